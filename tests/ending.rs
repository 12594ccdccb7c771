//! Promises D: ending commands.

mod common;

use common::{block_on, builder, poll_once, shared, shell, wait_until};
use microsandbox::{ErrorKind, ExecEvent};
use std::collections::HashSet;

fn gone(pid: &str) -> String {
    // Dead, or a zombie that its parent has not reaped yet.
    format!("! kill -0 {pid} 2>/dev/null || grep -q ') Z ' /proc/{pid}/stat 2>/dev/null")
}

#[test]
fn d1_dropping_a_handle_leaves_the_command_running() {
    let sb = shared();
    let handle = block_on(sb.shell_stream("echo $$ > /tmp/d1; exec sleep 600")).unwrap();
    wait_until(&sb, "[ -s /tmp/d1 ]");
    let id = handle.id();
    let control = handle.control();
    drop(handle);
    let sessions = block_on(sb.sessions()).unwrap();
    let session = sessions.iter().find(|session| session.id == id).unwrap();
    assert_eq!(session.status, None, "it still runs");
    shell(&sb, "kill -0 $(cat /tmp/d1)");
    block_on(control.kill()).unwrap();
    let pid = shell(&sb, "cat /tmp/d1");
    wait_until(&sb, &gone(pid.trim()));
}

#[test]
fn d2_kill_reaches_all_and_signal_only_the_group() {
    let sb = shared();
    let script = "setsid sh -c 'echo $$ > /tmp/d2; exec sleep 600' & \
                  trap 'echo term' TERM; echo up; while :; do usleep 10000; done";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    wait_until(&sb, "[ -s /tmp/d2 ]");
    block_on(handle.signal(libc::SIGTERM)).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"term\n") {
        if let Some(ExecEvent::Stdout(data)) = block_on(handle.recv()) {
            seen.extend_from_slice(&data);
        }
    }
    shell(&sb, "kill -0 $(cat /tmp/d2)");
    block_on(handle.kill()).unwrap();
    assert_eq!(block_on(handle.wait()).unwrap().signal, Some(libc::SIGKILL));
    let pid = shell(&sb, "cat /tmp/d2");
    wait_until(&sb, &gone(pid.trim()));
    assert_eq!(
        block_on(handle.signal(libc::SIGTERM)).unwrap_err().kind(),
        ErrorKind::NoSuchProcess
    );
    assert_eq!(block_on(handle.signal(999)).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn d2_an_init_reaps_orphans_and_forwards_signals() {
    let sb = block_on(builder("init").init(true).create()).unwrap();
    // The parent of each is gone before the orphan is.
    let orphans = "for i in 1 2 3; do (sleep 600 >/dev/null 2>&1 & echo $!); done";
    for pid in shell(&sb, orphans).lines() {
        wait_until(&sb, &format!("[ $(cut -d ' ' -f 4 /proc/{pid}/stat) = 1 ]"));
        shell(&sb, &format!("kill {pid}"));
        // A zombie would still be there.
        wait_until(&sb, &format!("[ ! -e /proc/{pid} ]"));
    }
    let script = "trap 'exit 5' TERM; touch /tmp/ready; while :; do usleep 10000; done";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    wait_until(&sb, "[ -e /tmp/ready ]");
    block_on(handle.signal(libc::SIGTERM)).unwrap();
    assert_eq!(block_on(handle.wait()).unwrap().code, 5);
    // An init would ignore what it does not handle; a command is none.
    let mut handle = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
    block_on(handle.signal(libc::SIGTERM)).unwrap();
    assert_eq!(block_on(handle.wait()).unwrap().signal, Some(libc::SIGTERM));
}

#[test]
fn d3_a_timeout_on_a_stream_ends_the_command_and_says_so() {
    let limit = std::time::Duration::from_millis(100);
    let options = |o: microsandbox::ExecOptionsBuilder| o.arg("600").timeout(limit);
    let mut handle = block_on(shared().exec_stream_with("sleep", options)).unwrap();
    let status = block_on(handle.wait()).unwrap();
    assert_eq!((status.timed_out, status.signal), (true, Some(libc::SIGKILL)));
}

#[test]
fn d4_cancelled_exec_kills_the_command() {
    let sb = shared();
    let mut call = Box::pin(sb.shell("echo $$ > /tmp/d4; exec sleep 600"));
    assert!(poll_once(call.as_mut()).is_pending());
    wait_until(&sb, "[ -s /tmp/d4 ]");
    let pid = shell(&sb, "cat /tmp/d4");
    shell(&sb, &format!("kill -0 {pid}"));
    drop(call);
    wait_until(&sb, &gone(pid.trim()));
}

#[test]
fn d4_cancelled_wait_on_a_handle_kills_nothing() {
    let sb = shared();
    let mut handle = block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    for _ in 0..10 {
        let mut wait = Box::pin(handle.wait());
        assert!(poll_once(wait.as_mut()).is_pending());
    }
    drop(handle.take_stdin());
    assert!(block_on(handle.wait()).unwrap().success);
}

#[test]
fn d5_ids_are_unique_and_listed_with_the_exit_status() {
    let sb = shared();
    let mut ids = HashSet::new();
    for code in 0..20 {
        let mut handle = block_on(sb.shell_stream(format!("exit {code}"))).unwrap();
        assert!(ids.insert(handle.id()));
        assert_eq!(block_on(handle.wait()).unwrap().code, code);
        let sessions = block_on(sb.sessions()).unwrap();
        let session = sessions.iter().find(|session| session.id == handle.id()).unwrap();
        assert_eq!(session.status.unwrap().code, code);
    }
}
