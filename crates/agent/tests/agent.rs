//! The agent binary, driven frame by frame over its socket. Test names start with a promise's
//! number.
//!
//! Needs the static binary: `make agent` builds it, `MSB_AGENT` names another one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

mod support;

use bytes::{Bytes, BytesMut};
use msb_wire::limits::{OUTPUT_WINDOW, REPLAY, STDIN_WINDOW};
use msb_wire::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use support::*;

#[test]
fn binary_is_static() {
    let bytes = std::fs::read(binary()).unwrap();
    // PT_INTERP is 3; program headers of an ELF64 file start where bytes 32..40 say (elf(5)).
    let number = |at: usize, len: usize| {
        bytes[at..at + len].iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte))
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!(count > 0);
    for i in 0..count {
        assert_ne!(number(start + i * size, 4), 3, "it has a dynamic loader");
    }
}

#[test]
fn b1_started_output_exited_end_arrive_in_this_order() {
    let agent = Agent::start();
    let result = agent.connect().run(sh("echo out; echo err >&2; exit 7"));
    assert_eq!(result.order.first(), Some(&"started"));
    assert_eq!(result.order.last(), Some(&"exited"));
    assert_eq!((&result.stdout[..], &result.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    let exited = result.exited.unwrap();
    assert_eq!((exited.code, exited.signal, exited.timed_out), (7, None, false));
    assert!(exited.wall_ns > 0 && exited.max_rss > 0);
    assert_eq!(result.end, Some(End { writer_left: false, total: 8 }));
}

#[test]
fn a7_environment_has_request_and_account_only() {
    let agent = Agent::start();
    let mut command = exec(&["env"]);
    command.env = vec![b"A=1".to_vec().into(), b"A=2".to_vec().into()];
    let result = agent.connect().run(command);
    let text = String::from_utf8(result.stdout).unwrap();
    let mut names: Vec<&str> = text.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "HOME", "LOGNAME", "PATH", "USER"]);
    assert!(text.contains("A=2\n"));
}

#[test]
fn a10_default_stdin_is_dev_null() {
    let agent = Agent::start();
    let result = agent.connect().run(sh("readlink /proc/self/fd/0; cat"));
    assert_eq!(result.stdout, b"/dev/null\n");
}

#[test]
fn b3_signalled_command_has_code_minus_one_and_signal() {
    let agent = Agent::start();
    for (name, number) in [("KILL", 9), ("TERM", 15), ("37", 37)] {
        let result = agent.connect().run(sh(&format!("kill -{name} $$")));
        let exited = result.exited.unwrap();
        assert_eq!((exited.code, exited.signal), (-1, Some(number)));
    }
}

#[test]
fn b4_exit_ignores_background_writer() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let channel = client.exec(sh("sleep 600 & echo $!"));
    let Message::Stdout(pid) = client.wait_for(|m| matches!(m, Message::Stdout(_))) else {
        unreachable!()
    };
    client.wait_for(|m| matches!(m, Message::Exited(_)));
    let result = client.wait_for(|m| matches!(m, Message::End(_)));
    assert!(matches!(result, Message::End(End { writer_left: true, .. })));
    let pid = String::from_utf8(pid.to_vec()).unwrap();
    assert!(
        PathBuf::from(format!("/proc/{}", pid.trim())).exists(),
        "the background process lives"
    );
    assert!(Command::new("kill").arg(pid.trim()).status().unwrap().success());
    assert_eq!(channel, 1);
}

#[test]
fn b4_background_writer_continues_or_is_awaited() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("go");
    let done = folder.path().join("done");
    let script = format!(
        "mkfifo {0}; (read x <{0}; head -c 1000000 /dev/zero && echo ok >{1}) & echo $!",
        fifo.display(),
        done.display()
    );
    let result = agent.connect().run(sh(&script));
    assert!(result.end.unwrap().writer_left);
    std::fs::write(&fifo, "go\n").unwrap();
    let begun = Instant::now();
    while !done.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the writer is blocked or dead");
        std::thread::yield_now();
    }
    let mut command = sh("(sleep 0.6; echo late) & echo early");
    command.wait_for_eof = true;
    let result = agent.connect().run(command);
    assert_eq!(result.stdout, b"early\nlate\n");
    assert!(!result.end.unwrap().writer_left);
}

#[test]
fn b6_output_waits_for_credit_and_is_complete() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let channel = client.exec(sh("head -c 5000000 /dev/zero"));
    let (mut got, mut credit) = (0, ReceiveCredit::new(OUTPUT_WINDOW));
    let mut held = Vec::new();
    // The whole window arrives, then nothing: the answer to a ping precedes further output.
    while credit.held() + 70_000 < OUTPUT_WINDOW {
        if let Message::Stdout(bytes) = client.receive().message {
            credit.receive(bytes.len()).unwrap();
            held.push(bytes.len());
        }
    }
    client.send(0, Message::Ping(1));
    loop {
        match client.receive().message {
            Message::Stdout(bytes) => {
                credit.receive(bytes.len()).expect("at most the window");
                held.push(bytes.len());
            }
            Message::Pong(1) => break,
            other => panic!("{other:?}"),
        }
    }
    for len in held {
        got += len;
        if let Some(limit) = credit.release(cost(len)) {
            client.send(channel, Message::Credit(limit));
        }
    }
    while got < 5_000_000 {
        if let Message::Stdout(bytes) = client.receive().message {
            got += bytes.len();
            credit.receive(bytes.len()).unwrap();
            if let Some(limit) = credit.release(cost(bytes.len())) {
                client.send(channel, Message::Credit(limit));
            }
        }
    }
    assert!(matches!(client.receive().message, Message::Exited(Exited { code: 0, .. })));
}

#[test]
fn b9_many_commands_at_once_do_not_delay_another_client() {
    const COMMANDS: usize = 200;
    let agent = Agent::start();
    let (mut many, mut other) = (agent.connect(), agent.connect());
    let mut starts = BytesMut::new();
    for _ in 0..COMMANDS {
        let channel = many.channel();
        assert!(encode(&Frame { channel, message: Message::Exec(exec(&["true"])) }, &mut starts));
    }
    // Stopped, so that everything is pending when the agent continues.
    agent.signal("STOP");
    many.stream.write_all(&starts).unwrap();
    let channel = other.channel();
    other.send(channel, Message::List);
    agent.signal("CONT");
    let mut seen = Vec::new();
    while seen.last() != Some(&COMMANDS) {
        let Message::Sessions(sessions) = other.receive().message else { unreachable!() };
        seen.push(sessions.sessions.len());
        let channel = other.channel();
        other.send(channel, Message::List);
    }
    assert!(seen.iter().any(|begun| (1..COMMANDS).contains(begun)), "{seen:?}");
}

#[test]
fn c2_input_and_eof_sent_before_the_start_arrive() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut command = exec(&["cat"]);
    command.stdin = StdinMode::Pipe;
    let channel = client.exec(command);
    client.send(channel, Message::Stdin(Bytes::from_static(b"hello")));
    client.send(channel, Message::StdinEof);
    let result = client.collect(channel);
    assert_eq!(result.stdout, b"hello");
    assert_eq!(result.exited.unwrap().code, 0);
}

#[test]
fn c3_closed_stdin_is_one_error_and_command_continues() {
    let agent = Agent::start();
    let mut client = agent.connect();
    // A second exec, since a shell keeps a copy of a redirected descriptor.
    let mut command = sh("exec sh -c 'echo closed; sleep 600' </dev/null");
    command.stdin = StdinMode::Pipe;
    let session = command.session;
    let channel = client.exec(command);
    client.wait_for(|m| matches!(m, Message::Stdout(b) if &b[..] == b"closed\n"));
    for _ in 0..3 {
        client.send(channel, Message::Stdin(Bytes::from_static(b"x")));
    }
    let result = client.wait_for(|m| matches!(m, Message::StdinError(_)));
    assert_eq!(result, Message::StdinError(StdinError { errno: 32 }));
    client.send(0, Message::Ping(1));
    while !matches!(client.receive().message, Message::Pong(1)) {}
    let mut kill = SignalRequest { session, signal: 9, scope: Scope::Everything };
    assert_eq!(client.verdict(Message::Signal(kill.clone())), Verdict::default());
    assert_eq!(client.collect(channel).exited.unwrap().signal, Some(9));
    kill.session = SessionId::from_bytes([0xff; 16]);
    assert_eq!(client.verdict(Message::Signal(kill)).refusal, Some(Refusal::NoSuchSession));
}

#[test]
fn c2_input_beyond_credit_ends_only_the_connection() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut command = exec(&["sleep", "60"]);
    command.stdin = StdinMode::Pipe;
    let channel = client.exec(command);
    let piece = Bytes::from(vec![0; 65536]);
    let mut out = BytesMut::new();
    for _ in 0..=STDIN_WINDOW / 65536 + 2 {
        assert!(encode(&Frame { channel, message: Message::Stdin(piece.clone()) }, &mut out));
    }
    // The agent may close before it has read everything.
    let _ = client.stream.write_all(&out);
    let mut last = None;
    loop {
        let mut bytes = [0; 4096];
        match client.stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(count) => client.buffer.extend_from_slice(&bytes[..count]),
        }
    }
    while let Some(frame) = client.decoder.next(&mut client.buffer).unwrap() {
        last = Some(frame.message);
    }
    if let Some(Message::Error(text)) = last {
        assert!(text.contains("credit"), "{text}");
    }
    assert_eq!(agent.connect().run(sh("echo fine")).stdout, b"fine\n");
}

#[test]
fn d3_time_limit_kills_and_is_reported_without_client() {
    let agent = Agent::start();
    let mut command = sh("sleep 600");
    command.timeout_ns = Some(100_000_000);
    let session = command.session;
    let result = agent.connect().run(command.clone());
    let exited = result.exited.unwrap();
    assert_eq!((exited.code, exited.signal, exited.timed_out), (-1, Some(9), true));

    // A shell that sees its child die first must neither report it nor continue.
    for _ in 0..40 {
        let mut command = sh("sleep 600; sleep 600; exit 3");
        command.timeout_ns = Some(10_000_000);
        let exited = agent.connect().run(command).exited.unwrap();
        assert_eq!((exited.code, exited.signal, exited.timed_out), (-1, Some(9), true));
    }

    command.session = SessionId::from_bytes([0xfe; 16]);
    let mut client = agent.connect();
    client.exec(command.clone());
    client.wait_for(|m| matches!(m, Message::Started(_)));
    drop(client);
    let mut client = agent.connect();
    let channel = client.channel();
    let attach = Attach { session: command.session, from: Some(0), window: OUTPUT_WINDOW };
    client.send(channel, Message::Attach(attach));
    let result = client.collect(channel);
    assert!(result.exited.as_ref().is_some_and(|exited| exited.timed_out), "{result:?}");
    assert_ne!(session, command.session);
}

#[test]
fn d1_d5_lost_connection_kills_nothing_and_reattaches() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("go");
    let command = sh(&format!("echo one; mkfifo {0}; read x <{0}; echo two", fifo.display()));
    let session = command.session;
    let mut first = agent.connect();
    first.exec(command);
    first.wait_for(|m| matches!(m, Message::Stdout(_)));
    drop(first);

    let mut second = agent.connect();
    let channel = second.channel();
    let attach = Attach { session, from: Some(1), window: OUTPUT_WINDOW };
    second.send(channel, Message::Attach(attach));
    let Message::Attached(attached) = second.receive().message else { panic!("not attached") };
    assert_eq!((attached.from, attached.missed), (1, 0));
    std::fs::write(&fifo, "go\n").unwrap();
    let result = second.collect(channel);
    assert_eq!(result.stdout, b"ne\ntwo\n");
    assert_eq!(result.exited.unwrap().code, 0);

    let channel = second.channel();
    second.send(channel, Message::List);
    let Message::Sessions(list) = second.receive().message else { panic!("no list") };
    assert_eq!(list.sessions.len(), 1);
    assert_eq!(list.sessions[0].session, session);
    assert!(list.sessions[0].exited.is_some());
}

#[test]
fn d5_attach_before_exec_gets_attached_or_failed_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    for (command, expected) in [
        (sh("echo hi"), ["attached", "stdout", "exited", "end"].as_slice()),
        (exec(&["/nonexistent"]), ["failed"].as_slice()),
    ] {
        let attach = Attach { session: command.session, from: Some(0), window: OUTPUT_WINDOW };
        let (started, joined) = (client.channel(), client.channel());
        client.send_all([(started, Message::Exec(command)), (joined, Message::Attach(attach))]);
        let mut order = Vec::new();
        let mut over = 0;
        while over < 2 {
            let frame = client.receive();
            let name = match frame.message {
                Message::Started(_) => "started",
                Message::Attached(_) => "attached",
                Message::Stdout(_) => "stdout",
                Message::Exited(_) => "exited",
                Message::End(_) => "end",
                Message::Failed(_) => "failed",
                other => panic!("{other:?}"),
            };
            over += u32::from(["end", "failed"].contains(&name));
            if frame.channel == joined {
                order.push(name);
            }
        }
        assert_eq!(order, expected);
    }
}

#[test]
fn d5_attach_after_a_failed_start_gets_the_failure() {
    let agent = Agent::start();
    let mut unknown_user = sh("true");
    unknown_user.user = Some("nobody-of-this-name".into());
    for command in [exec(&["/nonexistent"]), unknown_user] {
        let attach = Attach { session: command.session, from: Some(0), window: OUTPUT_WINDOW };
        let (mut first, mut other) = (agent.connect(), agent.connect());
        first.exec(command);
        let Message::Failed(failure) = first.receive().message else { panic!("not failed") };
        let channel = other.channel();
        other.send(channel, Message::Attach(attach));
        assert_eq!(other.receive().message, Message::Failed(failure));
    }
}

#[test]
fn d5_attach_waits_for_a_pending_start() {
    let agent = Agent::start();
    let command = sh("echo hi");
    let attach = Attach { session: command.session, from: Some(0), window: OUTPUT_WINDOW };
    let (mut first, mut other) = (agent.connect(), agent.connect());
    let channel = other.channel();
    other.send(channel, Message::Attach(attach));
    // The agent has handled this, so also the request before it.
    let mut third = agent.connect();
    third.run(sh("true"));
    first.exec(command);
    assert!(matches!(other.receive().message, Message::Attached(_)));
    assert_eq!(other.collect(channel).stdout, b"hi\n");
    // A session that never starts is unknown.
    let attach = Attach { session: sh("true").session, from: Some(0), window: OUTPUT_WINDOW };
    let channel = other.channel();
    other.send(channel, Message::Attach(attach));
    let Message::Verdict(verdict) = other.receive().message else { panic!("no verdict") };
    assert_eq!(verdict.refusal, Some(msb_wire::Refusal::NoSuchSession));
}

#[test]
fn d5_dropped_output_is_counted() {
    let agent = Agent::start();
    let command = sh("head -c 3000000 /dev/zero");
    let session = command.session;
    let mut client = agent.connect();
    let result = client.run(command);
    assert_eq!(result.stdout.len(), 3_000_000);
    let channel = client.channel();
    let attach = Attach { session, from: Some(0), window: OUTPUT_WINDOW };
    client.send(channel, Message::Attach(attach));
    let Message::Attached(attached) = client.receive().message else { panic!("not attached") };
    assert_eq!(attached.missed, attached.from);
    let result = client.collect(channel);
    assert_eq!(result.stdout.len() as u64 + attached.missed, 3_000_000);
    assert!(result.stdout.len() >= REPLAY);
}

#[test]
fn e_each_failure_has_kind_stage_and_errno() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path(name), text).unwrap();
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", "text", 0o644);
    file("noformat", "text", 0o755);
    file("orphan", "#!/no/such/interpreter\n", 0o755);
    let mut client = agent.connect();
    let table = [
        ("/no/such/program".to_owned(), FailureKind::NotFound, 2),
        ("no-such-program".to_owned(), FailureKind::NotFound, 2),
        (path("plain"), FailureKind::PermissionDenied, 13),
        (path(""), FailureKind::PermissionDenied, 13),
        (path("noformat"), FailureKind::NotExecutable, 8),
        (path("orphan"), FailureKind::NotExecutable, 2),
        ("x".repeat(5000) + "/x", FailureKind::BadArgs, 36),
    ];
    for tty in [None, Some(TtySize { rows: 24, cols: 80 })] {
        for (program, kind, errno) in &table {
            let mut command = exec(&[program.as_str()]);
            command.tty = tty;
            let failure = client.run(command).failed.expect(program);
            assert_eq!((failure.kind, failure.errno), (*kind, *errno), "{program} {failure:?}");
            assert_eq!(failure.stage, Stage::Execve);
            // The path is truncated at the length that the kernel accepts.
            let path = program.as_bytes();
            assert_eq!(failure.path, path[..path.len().min(4096)]);
            assert!(!failure.message.is_empty());
        }
        for (cwd, errno) in [("/no/such/folder".to_owned(), 2), (path("plain"), 20)] {
            let mut command = exec(&["true"]);
            command.cwd = cwd.clone().into_bytes();
            command.tty = tty;
            let failure = client.run(command).failed.unwrap();
            assert_eq!((failure.kind, failure.stage), (FailureKind::BadCwd, Stage::Chdir));
            assert_eq!((failure.errno, failure.path), (errno, cwd.into_bytes()));
        }
        let mut command = exec(&["true"]);
        command.user = Some("nobody-of-this-name".into());
        command.tty = tty;
        let failure = client.run(command).failed.unwrap();
        assert_eq!(failure.kind, FailureKind::UserSetupFailed);
        assert_eq!(failure.stage, Stage::ResolveUser);
    }
    assert_eq!(client.run(sh("echo on")).stdout, b"on\n");
}

/// Makes every fork of the process fail with `errno` from now on.
fn no_forks(errno: i32) -> std::io::Result<()> {
    use libc::*;
    let at = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let equals = |call: i64, jt: u8| {
        at(BPF_JMP | BPF_JEQ | BPF_K, jt, 0, u32::try_from(call).unwrap_or(u32::MAX))
    };
    let result = |value: u32| at(BPF_RET | BPF_K, 0, 0, value);
    #[cfg(target_arch = "x86_64")]
    let fork = SYS_fork;
    #[cfg(not(target_arch = "x86_64"))]
    let fork = -1;
    let mut filter = [
        at(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0), // the number of the call
        equals(fork, 2),
        equals(SYS_clone, 1),
        result(SECCOMP_RET_ALLOW),
        result(SECCOMP_RET_ERRNO | u32::from(errno as u16)),
    ];
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: only numbers.
    unsafe { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the filter lives while the kernel copies it.
    let result = unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &raw const program) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn e_failed_fork_reports_memory_or_limit() {
    use std::os::unix::process::CommandExt;
    let table = [
        (libc::ENOMEM, FailureKind::OutOfMemory),
        (libc::EAGAIN, FailureKind::ResourceLimit),
        (libc::ENOSYS, FailureKind::Other),
    ];
    for (errno, kind) in table {
        let agent = Agent::start_as(|command| {
            // SAFETY: makes two system calls and no allocation between fork and exec.
            unsafe { command.pre_exec(move || no_forks(errno)) };
        });
        let mut client = agent.connect();
        for tty in [None, Some(TtySize { rows: 24, cols: 80 })] {
            let mut command = exec(&["true"]);
            command.tty = tty;
            let failure = client.run(command).failed.unwrap();
            assert_eq!((failure.kind, failure.stage), (kind, Stage::Fork), "{failure:?}");
            assert_eq!((failure.errno, failure.path), (errno, b"true".to_vec()));
            assert!(!failure.message.is_empty());
        }
    }
}

#[test]
fn g_forbidden_clone3_is_enosys_for_commands_and_children() {
    let call = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); \
                libc.syscall(435, 0, 0); print(ctypes.get_errno())";
    let script = format!("python3 -c '{call}'; exec python3 -c '{call}'");
    for (forbidden, errno) in [(true, libc::ENOSYS), (false, libc::EINVAL)] {
        let agent = Agent::start_as(|command| {
            if forbidden {
                command.arg("--forbid-clone3");
            }
        });
        let result = agent.connect().run(sh(&script));
        let said = String::from_utf8_lossy(&result.stdout);
        assert_eq!(said, format!("{errno}\n{errno}\n"), "{result:?}");
    }
}

#[test]
fn b8_terminal_merges_outputs_and_resizes() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut command = sh("stty size; echo err >&2; trap 'stty size; exit 3' WINCH; echo r; \
                          while :; do read x; done");
    command.tty = Some(TtySize { rows: 50, cols: 132 });
    let session = command.session;
    client.exec(command);
    let mut text = String::new();
    while !text.contains("r\r\n") || !text.contains("err") {
        let Message::Stdout(bytes) = client.wait_for(|m| matches!(m, Message::Stdout(_))) else {
            unreachable!()
        };
        text += std::str::from_utf8(&bytes).unwrap();
    }
    assert!(text.starts_with("50 132\r\n"), "{text}");
    let size = TtySize { rows: 10, cols: 20 };
    let verdict = client.verdict(Message::Resize(ResizeRequest { session, size }));
    assert_eq!(verdict, Verdict::default());
    let verdict = client
        .verdict(Message::Resize(ResizeRequest { session, size: TtySize { rows: 0, cols: 20 } }));
    assert_eq!(verdict.refusal, Some(Refusal::Invalid));
}

#[test]
fn i_garbage_ends_only_the_connection_with_an_error() {
    let agent = Agent::start();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64]] {
        let mut stream = UnixStream::connect(&agent.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(garbage).unwrap();
        let (mut decoder, mut answer) = (Decoder::new(Peer::Agent), Vec::new());
        let _ = stream.read_to_end(&mut answer);
        let mut answer = BytesMut::from(&answer[..]);
        let mut last = None;
        while let Some(frame) = decoder.next(&mut answer).unwrap() {
            last = Some(frame.message);
        }
        assert!(matches!(last, Some(Message::Error(_))), "{last:?}");
    }
    assert_eq!(agent.connect().run(sh("echo fine")).stdout, b"fine\n");
}

#[test]
fn shutdown_ends_sessions_sends_bye_and_exits() {
    let mut agent = Agent::start();
    let mut client = agent.connect();
    client.exec(sh("trap '' TERM; sleep 600 & wait; wait"));
    client.exec(sh("sleep 600"));
    client.wait_for(|m| matches!(m, Message::Started(_)));
    client.wait_for(|m| matches!(m, Message::Started(_)));
    client.send(0, Message::Shutdown(Shutdown { grace_ns: 200_000_000, signal: None }));
    client.wait_for(|m| matches!(m, Message::Bye));
    assert!(client.try_receive().is_none());
    assert!(agent.process.wait().unwrap().success());
}

#[test]
fn shutdown_signal_is_for_the_process_of_each_session() {
    let mut agent = Agent::start();
    let mut client = agent.connect();
    // The signal would end the child.
    let trap = "kill -0 $child && echo only; kill $child; exit 3";
    let script = format!("sleep 600 & child=$!; trap '{trap}' USR1; echo ready; wait");
    client.exec(sh(&script));
    client.wait_for(|m| matches!(m, Message::Stdout(b) if &b[..] == b"ready\n"));
    client.send(0, Message::Shutdown(Shutdown { grace_ns: 60_000_000_000, signal: Some(10) }));
    client.wait_for(|m| matches!(m, Message::Stdout(b) if &b[..] == b"only\n"));
    client.wait_for(|m| matches!(m, Message::Exited(exited) if exited.code == 3));
    client.wait_for(|m| matches!(m, Message::Bye));
    assert!(agent.process.wait().unwrap().success());
}

impl Client {
    /// Follows every session that starts from now on, and waits for the confirmation.
    fn follow_all(&mut self, window: u64) {
        let verdict = self.verdict(Message::FollowAll(FollowAll { window }));
        assert_eq!(verdict, Verdict::default());
    }

    /// Receives the next announcement. Returns its channel and content.
    fn announced(&mut self) -> (u32, Opened) {
        let frame = self.receive();
        let Message::Opened(opened) = frame.message else { panic!("{:?}", frame.message) };
        assert!(frame.channel >= limits::AGENT_CHANNELS, "{}", frame.channel);
        (frame.channel, opened)
    }
}

#[test]
fn d6_follower_of_all_receives_the_same_as_the_starter() {
    let agent = Agent::start();
    let (mut user, mut log) = (agent.connect(), agent.connect());
    user.run(sh("echo unseen"));
    log.follow_all(OUTPUT_WINDOW);
    for round in 0..2 {
        let mut command = sh("printf 'a\\377'; echo b >&2; exit 3");
        command.argv.push(vec![0xff].into());
        let (session, argv) = (command.session, command.argv.clone());
        let own = user.run(command);
        let (channel, opened) = log.announced();
        assert_eq!(channel, limits::AGENT_CHANNELS + round);
        assert_eq!(opened, Opened { session, argv, tty: false });
        let result = log.collect(channel);
        assert_eq!(result.order.first(), Some(&"started"));
        assert_eq!((result.stdout, result.stderr), (own.stdout, own.stderr));
        assert_eq!((result.exited, result.end), (own.exited, own.end));
    }
    let mut missing = exec(&["/nonexistent"]);
    missing.tty = Some(TtySize { rows: 1, cols: 1 });
    assert!(user.run(missing).failed.is_some());
    let (channel, opened) = log.announced();
    assert!(opened.tty);
    assert_eq!(log.collect(channel).failed.unwrap().kind, FailureKind::NotFound);
    let mut nobody = exec(&["true"]);
    nobody.user = Some("nobody-here".into());
    assert!(user.run(nobody).failed.is_some());
    let (channel, _) = log.announced();
    assert_eq!(log.collect(channel).failed.unwrap().kind, FailureKind::UserSetupFailed);
}

#[test]
fn d6_slow_follower_of_all_blocks_output_until_it_closes() {
    let agent = Agent::start();
    let (mut user, mut log) = (agent.connect(), agent.connect());
    log.follow_all(limits::OUTPUT_WINDOW_MIN);
    let channel = user.exec(sh("head -c 500000 /dev/zero; echo done >&2"));
    let (own, _) = log.announced();
    // The user as well receives only what the log has credit for.
    let mut got = 0;
    while got < MAX_DATA_FOR_ONE_WINDOW {
        let Message::Stdout(data) = user.wait_for(|m| matches!(m, Message::Stdout(_))) else {
            unreachable!()
        };
        got += data.len();
    }
    got += user.output_meanwhile();
    assert!(got as u64 <= limits::OUTPUT_WINDOW_MIN, "output beyond the credit of the log");
    assert!(own >= limits::AGENT_CHANNELS);
    drop(log);
    let result = user.collect(channel);
    assert_eq!(result.stdout.len() + got, 500_000);
    assert_eq!(result.stderr, b"done\n");
}

/// The smallest window fits almost one full data frame.
const MAX_DATA_FOR_ONE_WINDOW: usize = 60_000;

impl Client {
    /// Counts the bytes of output that arrive before three answers of the agent.
    fn output_meanwhile(&mut self) -> usize {
        let mut bytes = 0;
        for number in 0..3 {
            self.send(0, Message::Ping(number));
            loop {
                match self.receive().message {
                    Message::Pong(answered) => break assert_eq!(answered, number),
                    Message::Stdout(data) => bytes += data.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
        bytes
    }
}

#[test]
fn d6_violations_of_follow_all_end_the_connection() {
    let agent = Agent::start();
    let refused = |client: &mut Client, channel, message| {
        client.send(channel, message);
        let last = std::iter::from_fn(|| client.try_receive()).last().unwrap();
        assert!(matches!(last.message, Message::Error(_)), "{last:?}");
    };
    let follow = || Message::FollowAll(FollowAll { window: OUTPUT_WINDOW });
    let mut twice = agent.connect();
    twice.follow_all(OUTPUT_WINDOW);
    let channel = twice.channel();
    refused(&mut twice, channel, follow());
    let mut upper = agent.connect();
    upper.follow_all(OUTPUT_WINDOW);
    refused(&mut upper, limits::AGENT_CHANNELS, Message::List);
    let mut late = agent.connect();
    late.send(limits::AGENT_CHANNELS, Message::List);
    refused(&mut late, u32::MAX, follow());
    let mut unknown = agent.connect();
    unknown.follow_all(OUTPUT_WINDOW);
    refused(&mut unknown, limits::AGENT_CHANNELS, Message::Credit(1));

    let mut old = agent.connect_with(0);
    refused(&mut old, 1, follow());
    assert_eq!(agent.connect().run(sh("echo still")).stdout, b"still\n");
}

#[test]
fn d6_unread_follower_of_all_has_bounded_memory() {
    let agent = Agent::start();
    let (mut user, mut log) = (agent.connect(), agent.connect());
    log.follow_all(OUTPUT_WINDOW);
    let fails_early = || {
        let mut command = exec(&["x", &"y".repeat(4000)]);
        command.user = Some("nobody-here".into());
        command.session = random_id();
        command
    };
    let mut announced = 0;
    let refusal = loop {
        let failure = user.run(fails_early()).failed.unwrap();
        match failure.stage {
            Stage::ResolveUser => announced += 1,
            _ => break failure,
        }
        assert!(announced < 3 * limits::FOLLOW_ALL_OUT / 4000, "memory is not bounded");
    };
    assert_eq!((refusal.stage, refusal.kind), (Stage::Admit, FailureKind::ResourceLimit));
    assert_eq!(user.run(exec(&["true"])).failed.unwrap().stage, Stage::Admit);
    // All announcements arrive, and once they are read sessions start again.
    for number in 0..announced {
        let (channel, _) = log.announced();
        assert_eq!(channel, limits::AGENT_CHANNELS + number as u32);
        assert_eq!(log.collect(channel).failed.unwrap().stage, Stage::ResolveUser);
    }
    assert_eq!(user.run(exec(&["true"])).exited.unwrap().code, 0);
}

fn random_id() -> SessionId {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    SessionId::from_bytes(bytes)
}
