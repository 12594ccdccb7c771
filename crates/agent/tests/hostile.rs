//! The agent binary with commands that break its environment: promises J5 and J7.
//!
//! Needs the static binary: `make agent` builds it, `MSB_AGENT` names another one. Each agent has
//! its own root file system, which needs root or user namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use msb_wire::*;
use support::*;

const TTY: Option<TtySize> = Some(TtySize { rows: 24, cols: 80 });

/// Runs a script, which must succeed, and returns its output.
fn run(client: &mut Client, script: &str) -> String {
    let result = client.run(sh(script));
    let text = String::from_utf8_lossy(&result.stdout).into_owned();
    let code = result.exited.as_ref().map(|exited| exited.code);
    assert_eq!(code, Some(0), "{script}: {text} {result:?}");
    text
}

/// Checks that commands run, with pipes and on a terminal.
fn check_commands_run(client: &mut Client) {
    assert_eq!(client.run(exec(&["echo", "hello"])).stdout, b"hello\n");
    let mut command = exec(&["sh", "-c", "tty; echo hello"]);
    command.tty = TTY;
    let result = client.run(command);
    let text = String::from_utf8(result.stdout.clone()).unwrap();
    assert!(text.starts_with("/dev/pts/") && text.ends_with("hello\r\n"), "{text} {result:?}");
}

#[test]
fn j5_removed_dev_null_does_not_stop_commands() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    check_commands_run(&mut client);
    run(&mut client, "umount -l /dev/null 2>/tmp/log; rm /dev/null /dev/ptmx");
    assert_eq!(client.run(exec(&["cat"])).exited.unwrap().code, 0);
    check_commands_run(&mut client);
}

#[test]
fn j5_fifo_dev_null_does_not_block() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(
        &mut client,
        "umount -l /dev/null 2>/tmp/log; rm /dev/null /dev/ptmx; mkfifo /dev/null /dev/ptmx",
    );
    check_commands_run(&mut client);
}

#[test]
fn j5_covered_devices_do_not_stop_commands() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(&mut client, "mkfifo /tmp/fifo; mount --bind /tmp/fifo /dev/pts/ptmx");
    assert_eq!(client.run(exec(&["echo", "hello"])).stdout, b"hello\n");
    let mut command = exec(&["echo", "hello"]);
    command.tty = TTY;
    assert_eq!(client.run(command).stdout, b"hello\r\n");
    run(&mut client, "mount -t tmpfs x /dev; mount -t tmpfs x /proc; mkfifo /dev/null /dev/ptmx");
    assert_eq!(client.run(exec(&["echo", "hello"])).stdout, b"hello\n");
}

/// Mounts an unresponsive file system on a directory. Returns false where the kernel has none.
fn mount_unresponsive(client: &mut Client, at: &str) -> bool {
    let script = format!(
        "(exec 5<>/dev/fuse) 2>/tmp/log || exit 0; exec 5<>/dev/fuse; mkdir -p {at}; \
         mount -t fuse -o fd=5,rootmode=40000,user_id=0,group_id=0 none {at} || exit 0; \
         sleep 600 >/dev/null 2>&1 & echo mounted"
    );
    run(client, &script) == "mounted\n"
}

#[test]
fn j5_unresponsive_directory_blocks_only_its_command() {
    let agent = Agent::start_in_root("");
    let (mut client, mut other) = (agent.connect(), agent.connect());
    if !mount_unresponsive(&mut client, "/tmp/fuse") {
        return;
    }
    // This reader must get its end of file while the start of another command hangs.
    let mut reader = exec(&["cat"]);
    reader.stdin = StdinMode::Pipe;
    let reading = other.exec(reader);
    let mut hangs = exec(&["true"]);
    hangs.cwd = b"/tmp/fuse".to_vec();
    let mut killed = hangs.clone();
    killed.session = SessionId::from_bytes([7; 16]);
    let id = killed.session;
    let held = agent.connect().exec(killed);
    assert_eq!(held, 1);
    hangs.timeout_ns = Some(300_000_000);
    let result = client.run(hangs);
    let exited = result.exited.expect("its time limit is over");
    assert!(exited.timed_out && exited.signal == Some(9), "{exited:?}");
    other.send(reading, Message::StdinEof);
    assert_eq!(other.collect(reading).exited.unwrap().code, 0);
    let kill = SignalRequest { session: id, signal: 9, scope: Scope::Everything };
    assert_eq!(client.verdict(Message::Signal(kill)).refusal, None);
    let attach = Attach { session: id, from: Some(0), window: 1 << 20 };
    let channel = client.channel();
    client.send(channel, Message::Attach(attach));
    assert_eq!(client.collect(channel).exited.unwrap().signal, Some(9));
}

/// Checks that a command as a named user fails with this errno, and that others run.
fn check_unreadable(client: &mut Client, errno: i32) {
    let mut command = exec(&["echo", "hello"]);
    command.user = Some("me".into());
    let failed = client.run(command).failed.expect("the user cannot be looked up");
    assert_eq!((failed.kind, failed.stage), (FailureKind::UserSetupFailed, Stage::ResolveUser));
    assert_eq!((failed.errno, failed.path.as_slice()), (errno, &b"/etc/passwd"[..]), "{failed:?}");
    assert!(failed.message.starts_with("cannot read /etc/passwd: "), "{failed:?}");
    // A number, like that of root, needs no file.
    check_commands_run(client);
}

#[test]
fn j5_endless_passwd_is_refused() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(&mut client, "truncate -s 1024G /etc/passwd");
    check_unreadable(&mut client, 27);
    run(&mut client, "ln -sf /dev/zero /etc/passwd");
    check_unreadable(&mut client, 22);
}

#[test]
fn j5_fifo_passwd_is_refused() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(&mut client, "rm /etc/passwd; mkfifo /etc/passwd");
    check_unreadable(&mut client, 22);
}

#[test]
fn j5_unresponsive_passwd_is_refused_in_time() {
    let agent = Agent::start_in_root("");
    let (mut client, mut other) = (agent.connect(), agent.connect());
    if !mount_unresponsive(&mut client, "/tmp/fuse") {
        return;
    }
    let mut busy = sh("while :; do echo on; sleep 0.1; done");
    busy.timeout_ns = Some(3_000_000_000);
    let channel = other.exec(busy);
    other.wait_for(|message| matches!(message, Message::Stdout(_)));
    run(&mut client, "ln -sf /tmp/fuse/passwd /etc/passwd");
    check_unreadable(&mut client, 110);
    // Meanwhile other commands ran, and the time limit applied.
    let result = other.collect(channel);
    let (exited, lines) = (result.exited.unwrap(), result.stdout.len() / 3);
    assert!(exited.timed_out && lines > 10, "{lines} lines, {exited:?}");
}

#[test]
fn j5_rm_rf_root_reports_not_found() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    client.run(sh("rm -rf /* 2>/bin/errors"));
    for tty in [None, TTY] {
        let mut command = exec(&["echo", "hello"]);
        command.tty = tty;
        let failed = client.run(command).failed.expect("the program is missing");
        assert_eq!((failed.kind, failed.stage), (FailureKind::NotFound, Stage::Execve));
        assert_eq!((failed.errno, failed.path.as_slice()), (2, &b"echo"[..]));
    }
}

#[test]
fn e1_root_without_devpts_is_a_pty_setup_failure() {
    let agent = Agent::start_in_root(r#"umount "$root/dev/pts""#);
    let mut client = agent.connect();
    let mut command = exec(&["true"]);
    command.tty = TTY;
    let failed = client.run(command).failed.expect("the terminal is missing");
    assert_eq!((failed.kind, failed.stage), (FailureKind::PtySetupFailed, Stage::OpenPty));
    assert_eq!((failed.errno, failed.path.as_slice()), (2, &b"/dev/ptmx"[..]));
    assert_eq!(client.run(exec(&["echo", "hello"])).stdout, b"hello\n");
}

#[test]
fn a8_user_can_open_its_own_streams() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user's namespace has one id only.
        return;
    }
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    let script = "cat /dev/stdin >/dev/stdout; echo err >/dev/stderr";
    let switched = format!("su me -c '{script}'");
    for (user, script) in [(Some("me"), script), (None, script), (None, &switched)] {
        let mut command = sh(script);
        command.user = user.map(Into::into);
        command.stdin = StdinMode::Pipe;
        let channel = client.exec(command);
        client.send(channel, Message::Stdin(b"in".to_vec().into()));
        client.send(channel, Message::StdinEof);
        let result = client.collect(channel);
        assert_eq!(
            (&result.stdout[..], &result.stderr[..]),
            (&b"in"[..], &b"err\n"[..]),
            "{script}"
        );
    }
    let mut command = sh("echo out >/dev/stdout");
    (command.user, command.tty) = (Some("me".into()), TTY);
    assert_eq!(client.run(command).stdout, b"out\r\n");
}
