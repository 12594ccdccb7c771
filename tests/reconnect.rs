//! Promises D1 and D5 when the connection to a sandbox is lost. In a separate program, because it
//! cuts every connection of the process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use common::{block_on, rest, sandbox, stdout_of};
use microsandbox::{ExecEvent, ReattachFrom, Sandbox};
use rustix::net::{Shutdown, getpeername, shutdown};
use std::os::fd::BorrowedFd;

/// Waits until a session has written a number of bytes.
fn wait_for_output(sb: &Sandbox, id: &str, total: u64) {
    loop {
        let sessions = block_on(sb.sessions()).unwrap();
        let session = sessions.into_iter().find(|session| session.id == id);
        if session.is_some_and(|session| session.output_total >= total) {
            return;
        }
    }
}

/// Cuts every connection of this process to an agent.
fn cut_connections() {
    let mut cut = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number = entry.unwrap().file_name().into_string().unwrap().parse().unwrap();
        // SAFETY: the library keeps its connections open while its sandbox and its handles exist;
        // for any other descriptor this only queries the peer's name, which may fail.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let Some(peer) = getpeername(fd).ok().flatten() else { continue };
        let path = rustix::net::SocketAddrUnix::try_from(peer).ok();
        if path
            .as_ref()
            .and_then(|path| path.path())
            .is_some_and(|path| path.to_bytes().ends_with(b"/agent.sock"))
        {
            shutdown(fd, Shutdown::Both).unwrap();
            cut += 1;
        }
    }
    assert_eq!(cut, 1);
}

#[test]
fn d1_d5_a_session_outlives_its_connection_without_loss() {
    const LINES: u32 = 5_000;
    let name = "d5-lost";
    let sb = sandbox(name);
    let script = format!("seq 1 {LINES}; read line; seq 1 {LINES}; echo $line");
    let mut handle = block_on(sb.shell_stream_with(script, |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin();
    let mut text = Vec::new();
    while text.len() < 1000 {
        if let Some(ExecEvent::Stdout(data)) = block_on(handle.recv()) {
            text.extend_from_slice(&data);
        }
    }
    let (id, position) = (handle.id(), handle.position());
    assert_eq!(position, text.len() as u64);
    let half: u64 = (1..=LINES).map(|line| line.to_string().len() as u64 + 1).sum();
    wait_for_output(&sb, &id, half);
    cut_connections();
    let events = rest(&mut handle);
    assert!(matches!(events.last(), Some(ExecEvent::Lost(_))), "{events:?}");
    // Output received before the cut can still be read; the position counts it.
    text.extend(stdout_of(&events));
    assert_eq!(handle.position(), text.len() as u64);
    drop(sink);
    let mut again = block_on(sb.reattach(&id, ReattachFrom::Position(handle.position()))).unwrap();
    assert_eq!(again.missed(), 0);
    block_on(again.take_stdin().unwrap().write("done\n")).unwrap();
    let output = block_on(again.collect()).unwrap();
    text.extend_from_slice(output.stdout_bytes());
    let numbers: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(text == format!("{numbers}{numbers}done\n").as_bytes());
    block_on(sb.kill()).unwrap();
}
