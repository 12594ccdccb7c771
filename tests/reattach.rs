//! Promise D5: reattach to sessions by their id.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use common::{block_on, rest, shared, stdout_of};
use microsandbox::{ErrorKind, ExecEvent, ExecHandle, ReattachFrom, Sandbox};

fn reattach(sb: &Sandbox, handle: &ExecHandle, from: ReattachFrom) -> ExecHandle {
    block_on(sb.reattach(handle.id(), from)).unwrap()
}

#[test]
fn d5_reattach_continues_exactly_at_the_position() {
    const LINES: u32 = 20_000;
    let sb = shared();
    let mut handle = block_on(sb.exec_stream("seq", ["1", &LINES.to_string()])).unwrap();
    let (mut text, mut pids) = (Vec::new(), Vec::new());
    loop {
        // A few events from each handle, until one comes to the end.
        let mut exited = false;
        for _ in 0..3 {
            match block_on(handle.recv()) {
                Some(ExecEvent::Started { pid }) => pids.push(pid),
                Some(ExecEvent::Stdout(data)) => text.extend_from_slice(&data),
                Some(ExecEvent::Exited { code: 0 }) => exited = true,
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        assert_eq!((handle.position(), handle.missed()), (text.len() as u64, 0));
        if exited {
            break;
        }
        let next = reattach(&sb, &handle, ReattachFrom::Position(handle.position()));
        assert_eq!(next.id(), handle.id());
        handle = next;
    }
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(text == expected.as_bytes());
    assert!(pids.len() > 1 && pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

#[test]
fn d5_a_position_counts_both_outputs() {
    let sb = shared();
    let mut first = block_on(sb.shell_stream("echo out; echo errors >&2")).unwrap();
    rest(&mut first);
    assert_eq!(first.position(), 11);
    let mut again = reattach(&sb, &first, ReattachFrom::Position(11));
    assert_eq!((again.missed(), again.position()), (0, 11));
    let events = rest(&mut again);
    assert!(matches!(
        events.as_slice(),
        [ExecEvent::Started { .. }, ExecEvent::Exited { code: 0 }]
    ));
}

#[test]
fn d5_unbuffered_output_is_counted_and_the_rest_follows() {
    const TOTAL: u64 = 3_000_000;
    let sb = shared();
    let mut first = block_on(sb.shell_stream(format!("yes | head -c {TOTAL}; exec sleep 600")));
    let first = first.as_mut().unwrap();
    while first.position() < TOTAL {
        assert!(block_on(first.recv()).is_some());
    }
    let mut again = reattach(&sb, first, ReattachFrom::Start);
    let missed = again.missed();
    assert!(missed > 0 && again.position() == missed);
    // A mebibyte is buffered, and at most one chunk more.
    assert!((1 << 20..(1 << 20) + 65536).contains(&(TOTAL - missed)), "{missed}");
    let mut text = Vec::new();
    while again.position() < TOTAL {
        if let Some(ExecEvent::Stdout(data)) = block_on(again.recv()) {
            text.extend_from_slice(&data);
        }
    }
    assert_eq!(text.len() as u64, TOTAL - missed);
    let first_byte = usize::try_from(missed % 2).unwrap();
    assert!(text.iter().enumerate().all(|(i, byte)| *byte == b"y\n"[(i + first_byte) % 2]));
    // From before the buffered output, from the end, and from beyond it.
    let part = reattach(&sb, first, ReattachFrom::Position(missed - 5));
    assert_eq!((part.missed(), part.position()), (5, missed));
    for from in [ReattachFrom::Now, ReattachFrom::Position(u64::MAX)] {
        let now = reattach(&sb, first, from);
        assert_eq!((now.missed(), now.position()), (0, TOTAL));
    }
    block_on(first.kill()).unwrap();
}

#[test]
fn d5_two_followers_get_the_same_bytes() {
    let sb = shared();
    let script = "read go; i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); \
                  done; exit 9";
    let mut one = block_on(sb.shell_stream_with(script, |o| o.stdin_pipe())).unwrap();
    let mut two = reattach(&sb, &one, ReattachFrom::Start);
    let mut three = block_on(sb.reattach(one.id(), ReattachFrom::Now)).unwrap();
    block_on(one.take_stdin().unwrap().write("go\n")).unwrap();
    let expected = |name: &str| (0..500).map(|i| format!("{name} {i}\n")).collect::<String>();
    for handle in [&mut one, &mut two, &mut three] {
        let output = block_on(handle.collect()).unwrap();
        assert_eq!(output.status().code, 9);
        assert!(output.stdout().unwrap() == expected("out"));
        assert!(output.stderr().unwrap() == expected("err"));
    }
}

#[test]
fn d5_an_unknown_session_is_a_typed_error_of_the_call() {
    let sb = shared();
    let unknown = "00".repeat(16);
    let error = block_on(sb.reattach(&unknown, ReattachFrom::Start)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchSession, "{error}");
    for text in ["", "abc", "no session at all"] {
        let error = block_on(sb.reattach(text, ReattachFrom::Now)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let output = block_on(sb.exec("true", [""; 0])).unwrap();
    assert!(output.status().success, "the connection goes on");
}

#[test]
fn c1_d5_input_continues_through_the_reattached_handle() {
    let sb = shared();
    let first = block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    let id = first.id();
    drop(first);
    let mut second = block_on(sb.reattach(&id, ReattachFrom::Start)).unwrap();
    let sink = second.take_stdin().unwrap();
    assert!(second.take_stdin().is_none());
    block_on(sink.write("through the second")).unwrap();
    block_on(sink.close()).unwrap();
    // The input is closed for all handles.
    let output = block_on(second.collect()).unwrap();
    assert_eq!(output.stdout().unwrap(), "through the second");
    let mut third = block_on(sb.reattach(&id, ReattachFrom::Start)).unwrap();
    assert!(third.take_stdin().is_none());
    let mut without = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    let mut again = reattach(&sb, &without, ReattachFrom::Now);
    assert!(again.take_stdin().is_none());
    block_on(again.kill()).unwrap();
    block_on(without.wait()).unwrap();
    block_on(third.wait()).unwrap();
}

#[test]
fn d5_reattach_to_an_ended_session_has_the_same_ending() {
    let sb = shared();
    for script in ["echo out; echo err >&2; exit 7", "echo out; kill -TERM $$"] {
        let mut first = block_on(sb.shell_stream(script)).unwrap();
        let events = rest(&mut first);
        let status = block_on(first.wait()).unwrap();
        for _ in 0..2 {
            let mut again = reattach(&sb, &first, ReattachFrom::Start);
            let replayed = rest(&mut again);
            assert!(matches!(replayed.first(), Some(ExecEvent::Started { .. })), "{replayed:?}");
            assert_eq!((replayed.first(), replayed.last()), (events.first(), events.last()));
            assert_eq!(stdout_of(&replayed), stdout_of(&events));
            assert_eq!(block_on(again.wait()).unwrap(), status);
            assert_eq!(block_on(again.recv()), None);
        }
        let mut end = reattach(&sb, &first, ReattachFrom::Now);
        assert_eq!(rest(&mut end).len(), 2, "a start and an end");
    }
}

#[test]
fn b8_d5_reattached_session_keeps_its_terminal() {
    let sb = shared();
    let first = block_on(sb.exec_stream_with("sh", |o| o.tty(true).stdin_pipe())).unwrap();
    let mut again = reattach(&sb, &first, ReattachFrom::Start);
    drop(first);
    block_on(again.resize(33, 77)).unwrap();
    let sink = again.take_stdin().unwrap();
    block_on(sink.write("stty size; exit 4\n")).unwrap();
    let output = block_on(again.collect()).unwrap();
    assert!(output.stdout().unwrap().contains("33 77"), "{output:?}");
    assert_eq!(output.status().code, 4);
}
