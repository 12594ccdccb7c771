//! Promises B7 and I: faults around the library are reported and leak nothing.
//!
//! A fault that would affect other tests (limits of the process, mounts, a fork) runs in a new
//! process of this program for that test alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{block_on, builder, rest, rootfs, sandbox, shell};
use microsandbox::{ErrorKind, ExecEvent, ExecFailureKind, ExecHandle, Sandbox, SandboxStatus};
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW};
use msb_wire::{Decoder, Exec, Frame, Hello, Message, Peer, SessionId, StdinMode, encode};
use std::fs::{self, File};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Deadline for reporting a fault (B7).
const SOON: Duration = Duration::from_secs(2);
const FAULT: &str = "MSB_TEST_FAULT";

/// Runs one test of this program in a process of its own, started by `wrapper`. Returns true there.
fn alone(test: &str, wrapper: &[&str]) -> bool {
    if std::env::var(FAULT).is_ok_and(|name| name == test) {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let words = wrapper.iter().map(Into::into).chain([program.into_os_string()]);
    let words: Vec<std::ffi::OsString> = words.collect();
    let output = Command::new(&words[0])
        .args(&words[1..])
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FAULT, test)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let also = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {}\n{printed}\n{also}", output.status);
    false
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until no more descriptors are open than before.
fn descriptors_are_back_to(before: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while open_descriptors() > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", open_descriptors());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns processes by a part of their command line and of their ancestors'.
fn processes(what: impl Fn(&str) -> bool) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            what(&String::from_utf8_lossy(&command))
        })
        .collect()
}

fn directory_of(name: &str) -> PathBuf {
    PathBuf::from(std::env::var("MSB_HOME").unwrap()).join("sandboxes").join(name)
}

/// Returns the processes that watch a sandbox of this test program.
fn runners_of(name: &str) -> Vec<i32> {
    let dir = format!("{}\0", directory_of(name).display());
    processes(|command| command.contains("msb-runner\0") && command.contains(&dir))
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Returns the agent of a sandbox: the descendant of its runner that has a listening address.
fn agent_of(name: &str) -> i32 {
    let runners = runners_of(name);
    let mut agents = processes(|command| command.contains("\0--listen-fd\0"));
    agents.retain(|pid| {
        let mut at = Some(*pid);
        while let Some(pid) = at.filter(|pid| *pid > 1) {
            if runners.contains(&pid) {
                return true;
            }
            at = parent_of(pid);
        }
        false
    });
    // A child before execve still looks like its parent.
    let children: Vec<i32> = agents.clone();
    agents.retain(|pid| parent_of(*pid).is_some_and(|parent| !children.contains(&parent)));
    assert_eq!(agents.len(), 1, "the agent of {name}");
    agents[0]
}

fn nothing_is_left_of(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !runners_of(name).is_empty() {
        assert!(Instant::now() < deadline, "the runner of {name} still runs");
        thread::sleep(Duration::from_millis(10));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = directory_of(name).display().to_string();
    assert!(!mounts.contains(&dir), "something is mounted in {dir}");
}

/// A client that violates the protocol, on the agent's own socket.
struct Hostile {
    stream: UnixStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Hostile {
    fn connect(name: &str) -> Hostile {
        let run = fs::canonicalize(directory_of(name).join("run")).unwrap();
        let stream = connect_in(&run);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Hostile { stream, decoder: Decoder::new(Peer::Agent), buffer: BytesMut::new() }
    }

    fn greeted(name: &str) -> Hostile {
        let mut hostile = Hostile::connect(name);
        hostile.send(0, Message::Hello(Hello::ours(None)));
        assert!(matches!(hostile.receive(), Some(Message::Hello(_))));
        hostile
    }

    fn raw(&mut self, bytes: &[u8]) {
        // The agent may have closed the connection in the middle of it.
        let _ = self.stream.write_all(bytes);
    }

    fn send(&mut self, channel: u32, message: Message) {
        self.raw(&encoded(channel, message));
    }

    fn receive(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(frame.message);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == IoErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no message from the agent: {error}"),
            }
        }
    }

    /// Reads to the end; returns the last message if it is the reason.
    fn why(mut self) -> Option<String> {
        let mut why = None;
        while let Some(message) = self.receive() {
            if let Message::Error(text) = message {
                why = Some(text);
            }
        }
        why
    }
}

fn encoded(channel: u32, message: Message) -> BytesMut {
    let mut out = BytesMut::new();
    assert!(encode(&Frame { channel, message }, &mut out));
    out
}

/// Connects through a descriptor, because the path is longer than an address.
fn connect_in(run: &Path) -> UnixStream {
    use std::os::fd::AsRawFd;
    let dir = File::open(run).unwrap();
    UnixStream::connect(format!("/proc/self/fd/{}/agent.sock", dir.as_raw_fd())).unwrap()
}

fn exec(argv: &[&str], stdin: StdinMode) -> Exec {
    Exec {
        session: SessionId::from_bytes(rand()),
        argv: argv.iter().map(|word| word.as_bytes().to_vec().into()).collect(),
        env: Vec::new(),
        cwd: b"/".to_vec(),
        user: None,
        stdin,
        tty: None,
        modes: None,
        timeout_ns: None,
        rlimits: Vec::new(),
        drain_ns: None,
        wait_for_eof: false,
        window: OUTPUT_WINDOW,
    }
}

fn rand() -> [u8; 16] {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// Returns the resident memory of a process, in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs commands that show that a sandbox keeps working.
struct Undisturbed {
    handle: ExecHandle,
    sink: microsandbox::ExecSink,
}

impl Undisturbed {
    fn new(sb: &Sandbox) -> Undisturbed {
        let mut handle = block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
        let sink = handle.take_stdin().unwrap();
        assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
        Undisturbed { handle, sink }
    }

    fn check(&mut self) {
        block_on(self.sink.write("ping")).unwrap();
        let mut got = Vec::new();
        while got.len() < 4 {
            match block_on(self.handle.recv()) {
                Some(ExecEvent::Stdout(data)) => got.extend_from_slice(&data),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, b"ping");
    }

    fn end(mut self) {
        self.check();
        drop(self.sink);
        assert_eq!(rest(&mut self.handle), [ExecEvent::Exited { code: 0 }]);
    }
}

#[test]
fn b7_a_killed_agent_is_a_loss_within_two_seconds() {
    const TEST: &str = "b7_a_killed_agent_is_a_loss_within_two_seconds";
    if !alone(TEST, &[]) {
        return;
    }
    block_on(sandbox("b7-warm").kill()).unwrap();
    let before = open_descriptors();
    let sb = sandbox("b7-agent");
    let mut handle = block_on(sb.shell_stream("echo up; exec sleep 600")).unwrap();
    let mut collected = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    let mut fed = block_on(sb.exec_stream_with("sleep", |o| o.arg("600").stdin_pipe())).unwrap();
    let sink = fed.take_stdin().unwrap();
    while !matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))) {}
    // SAFETY: touches no memory.
    assert_eq!(unsafe { libc::kill(agent_of("b7-agent"), libc::SIGKILL) }, 0);
    let at = Instant::now();
    let events = rest(&mut handle);
    assert!(matches!(events.as_slice(), [ExecEvent::Lost(_)]), "{events:?}");
    let error = block_on(collected.collect()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost, "{error}");
    assert!(at.elapsed() < SOON, "reported after {:?}", at.elapsed());
    // More than any window, so that the error must be reported.
    let error = block_on(sink.write(vec![0; 4 * 1024 * 1024])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost, "{error}");
    let error = block_on(sb.exec("true", [""; 0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotRunning, "{error}");
    nothing_is_left_of("b7-agent");
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Crashed);
    drop((handle, collected, fed, sink, sb));
    block_on(Sandbox::remove("b7-agent")).unwrap();
    descriptors_are_back_to(before);
}

#[test]
fn d3_stop_and_remove_end_a_sandbox_with_a_frozen_agent() {
    for name in ["frozen-stop", "frozen-remove"] {
        let sb = sandbox(name);
        let mut handle = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
        assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::kill(agent_of(name), libc::SIGSTOP) }, 0);
        if name == "frozen-stop" {
            block_on(sb.stop_with_timeout(Duration::from_millis(100))).unwrap();
            assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Stopped);
        }
        block_on(Sandbox::remove_forced(name)).unwrap();
        assert!(matches!(rest(&mut handle).as_slice(), [ExecEvent::Lost(_)]));
        nothing_is_left_of(name);
    }
}

/// Proxies between client and agent, and ends after a number of bytes from the agent.
fn cutting_proxy(listener: UnixListener, real: PathBuf, after: usize) {
    let (host, _) = listener.accept().unwrap();
    let agent = UnixStream::connect(real).unwrap();
    let (mut from_host, mut to_agent) = (host.try_clone().unwrap(), agent.try_clone().unwrap());
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from_host, &mut to_agent);
        let _ = to_agent.shutdown(std::net::Shutdown::Both);
    });
    let (mut from_agent, mut to_host) = (agent.take(after as u64), host);
    let _ = std::io::copy(&mut from_agent, &mut to_host);
    to_host.shutdown(std::net::Shutdown::Both).unwrap();
    up.join().unwrap();
}

#[test]
fn b7_a_cut_anywhere_is_a_loss_and_the_next_one_works() {
    let sb = sandbox("cut");
    let mut undisturbed = Undisturbed::new(&sb);
    let run = fs::canonicalize(directory_of("cut").join("run")).unwrap();
    let (address, real) = (run.join("agent.sock"), run.join("real.sock"));
    // A short path, since addresses are short.
    let link = tempfile::tempdir_in("/tmp").unwrap();
    std::os::unix::fs::symlink(&run, link.path().join("run")).unwrap();
    let short = link.path().join("run");
    fs::rename(&address, &real).unwrap();
    // In the greeting, in headers, in the middle of data and of small frames.
    for after in [0, 1, 11, 12, 40, 60, 70, 75, 80, 100, 1_000, 65_000, 70_000, 200_001, 900_013] {
        let listener = UnixListener::bind(short.join("agent.sock")).unwrap();
        let real = short.join("real.sock");
        let proxy = thread::spawn(move || cutting_proxy(listener, real, after));
        let through = block_on(Sandbox::get("cut")).unwrap();
        match block_on(through.exec_stream("seq", ["1", "100000000"])) {
            Ok(mut handle) => {
                let at = Instant::now();
                let events = rest(&mut handle);
                let Some((ExecEvent::Lost(lost), before)) = events.split_last() else {
                    panic!("{:?}", events.last());
                };
                assert!(!lost.message.is_empty() && !lost.message.contains('\n'), "{lost}");
                let output = common::stdout_of(before);
                assert!(output.len() <= after && at.elapsed() < SOON * 5);
                let expected: String = (1..=200_000).map(|line| format!("{line}\n")).collect();
                assert!(expected.as_bytes().starts_with(&output));
            }
            // Cut in the greeting: to this side, like a sandbox that is ending.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SandboxNotRunning, "{after}: {error}");
            }
        }
        proxy.join().unwrap();
        fs::remove_file(&address).unwrap();
        undisturbed.check();
    }
    fs::rename(&real, &address).unwrap();
    let again = block_on(Sandbox::get("cut")).unwrap();
    assert_eq!(shell(&again, "echo works"), "works\n");
    undisturbed.end();
    block_on(sb.kill()).unwrap();
}

#[test]
fn i_garbage_of_another_process_ends_its_connection_only() {
    let sb = sandbox("garbage");
    let mut undisturbed = Undisturbed::new(&sb);
    let agent = agent_of("garbage");
    let descriptors = || fs::read_dir(format!("/proc/{agent}/fd")).unwrap().count();
    let before = descriptors();

    // Without a greeting.
    let mut noise = vec![0; 100_000];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &noise, &[0xff; 64], &[0; 64]] {
        let mut hostile = Hostile::connect("garbage");
        hostile.raw(bytes);
        let why = hostile.why();
        assert!(why.is_none_or(|why| !why.is_empty() && !why.contains('\n')));
        undisturbed.check();
    }
    // After the greeting: the violation is named.
    let huge = [&u32::MAX.to_le_bytes()[..], &[21, 0, 0, 0], &1u32.to_le_bytes()].concat();
    let unknown = [&0u32.to_le_bytes()[..], &[99, 0, 0, 0], &1u32.to_le_bytes()].concat();
    let reserved = [&0u32.to_le_bytes()[..], &[18, 1, 0, 0], &1u32.to_le_bytes()].concat();
    let second = encoded(0, Message::Hello(Hello::ours(None))).to_vec();
    let unopened = encoded(9, Message::StdinEof).to_vec();
    let malformed =
        [&4u32.to_le_bytes()[..], &[16, 0, 0, 0], &1u32.to_le_bytes(), b"\xff\xff\xff\xff"]
            .concat();
    for bytes in [huge, unknown, reserved, second, unopened, malformed] {
        let mut hostile = Hostile::greeted("garbage");
        hostile.raw(&bytes);
        let why = hostile.why().expect("the agent says why");
        assert!(why.contains("frame") && !why.contains('\n'), "{why}");
        undisturbed.check();
    }
    // More input than was granted.
    let mut hostile = Hostile::greeted("garbage");
    hostile.send(1, Message::Exec(exec(&["/bin/sleep", "600"], StdinMode::Pipe)));
    // Before, `pidof` would not find it.
    assert!(matches!(hostile.receive(), Some(Message::Started(_))));
    for _ in 0..16 {
        hostile.send(1, Message::Stdin(Bytes::from(vec![0; MAX_DATA])));
    }
    assert!(hostile.why().expect("the agent says why").contains("credit"));
    shell(&sb, "kill $(pidof sleep)");
    // Frames that stop in the middle.
    let whole = encoded(1, Message::Exec(exec(&["/bin/true"], StdinMode::Null)));
    for cut in [1, 4, 11, 12, 13, whole.len() - 1] {
        let mut hostile = Hostile::greeted("garbage");
        hostile.raw(&whole[..cut]);
        drop(hostile);
        undisturbed.check();
    }
    undisturbed.check();
    let deadline = Instant::now() + Duration::from_secs(10);
    while descriptors() > before {
        assert!(
            Instant::now() < deadline,
            "{} descriptors, {before} before: {:?}",
            descriptors(),
            fs::read_dir(format!("/proc/{agent}/fd"))
                .unwrap()
                .map(|e| fs::read_link(e.unwrap().path()))
                .collect::<Vec<_>>()
        );
        thread::sleep(Duration::from_millis(10));
    }
    undisturbed.end();
    block_on(sb.kill()).unwrap();
}

#[test]
fn i_a_client_that_never_reads_costs_no_agent_memory() {
    let sb = sandbox("deaf");
    // Something to list.
    for _ in 0..200 {
        shell(&sb, "true");
    }
    let mut undisturbed = Undisturbed::new(&sb);
    let agent = agent_of("deaf");
    let mut deaf = Hostile::greeted("deaf");
    deaf.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let before = resident(agent);
    // Sends requests until the agent accepts no more, with answers a thousand times as long.
    let mut sent = 0;
    'flood: for batch in 0..200u32 {
        let mut requests = BytesMut::new();
        for i in 1..=1000 {
            let request = Frame { channel: batch * 1000 + i, message: Message::List };
            assert!(encode(&request, &mut requests));
        }
        while !requests.is_empty() {
            match deaf.stream.write(&requests) {
                Ok(count) => drop(requests.split_to(count)),
                Err(_) => break 'flood,
            }
            sent += 1;
        }
        undisturbed.check();
    }
    let grown = resident(agent).saturating_sub(before);
    println!("{sent} writes, the agent grew by {} KiB", grown / 1024);
    assert!(grown < 24 * 1024 * 1024, "the agent grew by {} MiB", grown >> 20);
    undisturbed.check();
    // It is served again once it reads.
    for _ in 0..100 {
        assert!(matches!(deaf.receive(), Some(Message::Sessions(_))));
    }
    drop(deaf);
    undisturbed.end();
    block_on(sb.kill()).unwrap();
}

/// Formats a failure: kind, origin, errno, one line.
fn assert_system_error(error: &microsandbox::Error, errno: i32) {
    assert_eq!(error.os_error(), Some(errno), "{error} ({:?})", error.kind());
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
}

/// Fills the last block of a started log, so that a full disk stops it.
fn fill_last_page(log: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        assert!(Instant::now() < deadline, "{} stays empty", log.display());
        thread::sleep(Duration::from_millis(10));
    }
    let mut file = File::options().append(true).open(log).unwrap();
    let page = 4096;
    let rest = page - usize::try_from(file.metadata().unwrap().len()).unwrap() % page;
    file.write_all(&vec![b'\n'; rest]).unwrap();
}

#[test]
fn i_full_disk_is_a_typed_and_transient_error() {
    const TEST: &str = "i_full_disk_is_a_typed_and_transient_error";
    // SAFETY: touches no memory.
    let root = unsafe { libc::geteuid() } == 0;
    let possible =
        root && Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
    if !possible {
        println!("skipped: mounting a small file system needs root and unshare(1)");
        return;
    }
    if !alone(TEST, &["unshare", "-m", "--propagation", "private"]) {
        return;
    }
    common::setup();
    // Both the state and the sandbox's own files are on it.
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"])
        .arg(disk.path())
        .status()
        .unwrap();
    assert!(mounted.success());
    // SAFETY: this process runs one test, and nothing reads the environment now.
    unsafe { std::env::set_var("MSB_HOME", disk.path()) };
    let sb = sandbox("full");
    let ends = sandbox("full-ends");
    fill_last_page(&directory_of("full-ends").join("runner.log"));
    let before = open_descriptors();
    let ballast = disk.path().join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
    drop(file);
    // Running commands continue; their own writes fail.
    assert_eq!(shell(&sb, "echo works"), "works\n");
    // A bounded upper layer is a file, which sees the full disk only on writeback.
    let write = "dd if=/dev/zero of=/root/file bs=100000 count=1 conv=fsync";
    let output = block_on(sb.shell(write)).unwrap();
    assert!(!output.status().success, "{output:?}");
    let error = block_on(builder("no-room").create()).unwrap_err();
    assert_system_error(&error, libc::ENOSPC);
    assert!(block_on(Sandbox::list()).unwrap().iter().all(|info| info.name != "no-room"));
    // Its runner cannot log its end, but still ends cleanly.
    block_on(ends.stop()).unwrap();
    fs::remove_file(&ballast).unwrap();
    let other = sandbox("no-room");
    assert_eq!(shell(&other, "echo works"), "works\n");
    for sandbox in [&other, &sb] {
        block_on(sandbox.stop()).unwrap();
    }
    drop((other, ends, sb));
    nothing_is_left_of("full");
    nothing_is_left_of("full-ends");
    nothing_is_left_of("no-room");
    // The connections are closed now.
    descriptors_are_back_to(before);
}

#[test]
fn i_without_descriptors_calls_fail_with_emfile() {
    const TEST: &str = "i_without_descriptors_calls_fail_with_emfile";
    if !alone(TEST, &[]) {
        return;
    }
    let sb = sandbox("emfile");
    assert_eq!(shell(&sb, "echo works"), "works\n");
    let before = open_descriptors();
    let limit = libc::rlimit { rlim_cur: 128, rlim_max: 4096 };
    // SAFETY: reads a local struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    // From no descriptors left to enough, so that each step of each call fails once.
    let (mut failed, mut worked) = (0, 0);
    for left in 0..12 {
        let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.truncate(taken.len() - left);
        // A connected sandbox needs no descriptor.
        assert_eq!(shell(&sb, "echo works"), "works\n");
        for result in [
            block_on(Sandbox::get("emfile")).and_then(|sb| block_on(sb.shell("true")).map(drop)),
            block_on(Sandbox::get("emfile")).and_then(|sb| block_on(sb.status()).map(drop)),
            block_on(builder("emfile-2").create()).and_then(|sb| block_on(sb.kill())),
            block_on(Sandbox::list()).map(drop),
        ] {
            match result {
                Ok(()) => worked += 1,
                Err(error) => {
                    failed += 1;
                    assert_system_error(&error, libc::EMFILE);
                }
            }
        }
        drop(taken);
        descriptors_are_back_to(before);
    }
    assert!(failed > 8 && worked > 8, "{failed} failed, {worked} worked");
    let again = sandbox("emfile-2");
    assert_eq!(shell(&again, "echo works"), "works\n");
    block_on(again.kill()).unwrap();
    drop(again);
    nothing_is_left_of("emfile-2");
    descriptors_are_back_to(before);
    block_on(sb.kill()).unwrap();
}

#[test]
fn i_an_agent_without_descriptors_refuses_and_lives_on() {
    const TEST: &str = "i_an_agent_without_descriptors_refuses_and_lives_on";
    // The agent inherits the limit, which cannot be set later across user namespaces.
    if !alone(TEST, &["prlimit", "--nofile=100:100"]) {
        return;
    }
    let sb = sandbox("emfile-agent");
    let mut undisturbed = Undisturbed::new(&sb);
    let agent = agent_of("emfile-agent");
    let descriptors = || fs::read_dir(format!("/proc/{agent}/fd")).unwrap().count();
    let before = descriptors();
    let (mut running, mut refused) = (Vec::new(), 0);
    for round in 0..100 {
        // With pipes and with terminals, so that every step fails once.
        let tty = round % 3 == 0;
        let mut handle =
            block_on(sb.exec_stream_with("sleep", |o| o.arg("600").tty(tty).stdin_pipe())).unwrap();
        match block_on(handle.recv()) {
            Some(ExecEvent::Started { .. }) => running.push(handle),
            Some(ExecEvent::Failed(failed)) => {
                refused += 1;
                assert_eq!(failed.kind, ExecFailureKind::ResourceLimit, "{failed:?}");
                assert_eq!(failed.errno_name, "EMFILE", "{failed:?}");
                assert_eq!(block_on(handle.recv()), None);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 10 && running.len() > 10, "{refused} refused, {} run", running.len());
    undisturbed.check();
    for mut handle in running {
        block_on(handle.kill()).unwrap();
        let status = block_on(handle.wait()).unwrap();
        assert_eq!(status.signal, Some(libc::SIGKILL));
    }
    assert_eq!(shell(&sb, "echo works"), "works\n");
    undisturbed.check();
    let deadline = Instant::now() + Duration::from_secs(10);
    while descriptors() > before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", descriptors());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(shell(&sb, "grep -l ') Z ' /proc/[0-9]*/stat 2>/dev/null; true"), "", "zombies");
    undisturbed.end();
    block_on(sb.kill()).unwrap();
}

#[test]
fn i_a_vanished_image_leaves_typed_errors_and_can_stop() {
    common::setup();
    let image = tempfile::tempdir().unwrap();
    let root = image.path().join("root");
    let copied = Command::new("cp").arg("-a").arg(rootfs()).arg(&root).status().unwrap();
    assert!(copied.success());
    let sb = block_on(builder("imageless").image(&root).create()).unwrap();
    let mut undisturbed = Undisturbed::new(&sb);
    fs::remove_dir_all(&root).unwrap();
    undisturbed.check();
    match block_on(sb.exec("/bin/ls", ["/"])).unwrap_err() {
        microsandbox::Error::ExecFailed(failed) => {
            let kinds = [ExecFailureKind::NotFound, ExecFailureKind::Other];
            assert!(kinds.contains(&failed.kind) && failed.errno != 0, "{failed:?}");
        }
        other => panic!("{other}"),
    }
    undisturbed.end();
    block_on(sb.stop()).unwrap();
    nothing_is_left_of("imageless");
    let error = block_on(Sandbox::start("imageless")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("root"), "{error}");
    block_on(Sandbox::remove("imageless")).unwrap();
}

/// A container uses the host's wall clock, which a test must not step, and time namespaces
/// (time_namespaces(7)) shift only the other clocks. So the test shows that timed code in the
/// agent's sessions and the client does not read the wall clock.
#[test]
fn i_step_of_the_wall_clock_affects_no_timeout() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut timed = 0;
    let places = ["crates/client/src", "crates/agent/src/session", "crates/transport/src"];
    let files = places.iter().flat_map(|dir| fs::read_dir(root.join(dir)).unwrap());
    let single = [
        "crates/microsandbox/src/exec.rs",
        "crates/agent/src/server.rs",
        "crates/agent/src/registry.rs",
    ];
    let files = files.map(|entry| entry.unwrap().path());
    for file in files.chain(single.map(|file| root.join(file))).filter(|path| path.is_file()) {
        let text = fs::read_to_string(&file).unwrap();
        timed += usize::from(text.contains("Instant"));
        for clock in ["SystemTime", "CLOCK_REALTIME", "ClockId::Realtime", "gettimeofday"] {
            assert!(!text.contains(clock), "{} uses {clock}", file.display());
        }
    }
    assert!(timed > 3);
}

#[test]
fn i_forked_child_gets_errors_and_the_parent_continues() {
    const TEST: &str = "i_forked_child_gets_errors_and_the_parent_continues";
    if !alone(TEST, &[]) {
        return;
    }
    let sb = sandbox("forked");
    // The I/O thread is busy, and may hold any lock at the moment of a fork.
    let mut noise = block_on(sb.exec_stream("seq", ["1", "1000000000"])).unwrap();
    let mut quiet = block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    let sink = quiet.take_stdin().unwrap();
    assert!(matches!(block_on(quiet.recv()), Some(ExecEvent::Started { .. })));
    for round in 0..40 {
        for _ in 0..20 {
            assert!(block_on(noise.recv()).is_some());
        }
        // SAFETY: the child runs only what the library allows after a fork, and ends by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: touches no memory. The alarm turns a hang into a failure.
            unsafe { libc::alarm(10) };
            let unsupported = |error: microsandbox::Error| error.kind() == ErrorKind::Unsupported;
            let reported = [
                block_on(sb.exec("true", [""; 0])).is_err_and(unsupported),
                block_on(Sandbox::get("forked")).is_err_and(unsupported),
                block_on(sb.sessions()).is_err_and(unsupported),
                block_on(quiet.kill()).is_err_and(unsupported),
                block_on(sink.write("from the child")).is_err_and(unsupported),
                block_on(noise.recv()).is_none(),
                block_on(noise.wait()).is_err_and(unsupported),
                block_on(quiet.collect()).is_err_and(unsupported),
            ];
            let wrong = reported.iter().position(|reported| !reported).map_or(0, |place| place + 1);
            // SAFETY: ends the child without running code of the parent.
            unsafe { libc::_exit(i32::try_from(wrong).unwrap_or(100)) };
        }
        let mut status = 0;
        // SAFETY: writes to a local number.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0, "round {round}: call {} of the child (or a signal)", status >> 8);
    }
    block_on(sink.write("from the parent")).unwrap();
    drop(sink);
    let events = rest(&mut quiet);
    assert_eq!(common::stdout_of(&events), b"from the parent");
    assert_eq!(events.last(), Some(&ExecEvent::Exited { code: 0 }));
    block_on(noise.kill()).unwrap();
    block_on(sb.kill()).unwrap();
}
