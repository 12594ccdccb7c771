//! Promises C: standard input.

mod common;

use common::{block_on, poll_once, rest, shared, shell};
use microsandbox::{ErrorKind, ExecEvent};
use std::thread;

#[test]
fn c1_sink_is_taken_once_and_outlives_the_handle() {
    let sb = shared();
    let file = shell(&sb, "mktemp").trim().to_owned();
    let script = format!("cat > {file}; echo done > {file}.done");
    let mut handle = block_on(sb.shell_stream_with(script, |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin().unwrap();
    assert!(handle.take_stdin().is_none());
    drop(handle);
    block_on(sink.write("still here")).unwrap();
    drop(sink);
    common::wait_until(&sb, &format!("[ -s {file}.done ]"));
    assert_eq!(shell(&sb, &format!("cat {file}")), "still here");
    let mut without = block_on(sb.exec_stream("true", [""; 0])).unwrap();
    assert!(without.take_stdin().is_none());
}

#[test]
fn c2_a_large_input_arrives_in_order_with_backpressure() {
    const SIZE: usize = 32 << 20;
    let sb = shared();
    let data: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    let options = |o: microsandbox::ExecOptionsBuilder| o.stdin_pipe();
    let mut handle = block_on(sb.exec_stream_with("cat", options)).unwrap();
    let sink = handle.take_stdin().unwrap();
    block_on(sink.write("")).unwrap();
    // `cat` blocks while its output is not read; other commands do not.
    let mut write = Box::pin(sink.write(&data));
    assert!(poll_once(write.as_mut()).is_pending());
    assert_eq!(shell(&sb, "echo other"), "other\n");
    thread::scope(|scope| {
        scope.spawn(|| {
            block_on(write).unwrap();
            block_on(sink.close()).unwrap();
            block_on(sink.close()).unwrap();
        });
        let output = block_on(handle.collect()).unwrap();
        assert!(output.stdout_bytes().as_ref() == data, "{} bytes", output.stdout_total());
    });
}

#[test]
fn c2_end_of_input_on_a_terminal_is_the_eof_key() {
    let options = |o: microsandbox::ExecOptionsBuilder| o.tty(true).stdin_pipe();
    let mut handle = block_on(shared().exec_stream_with("cat", options)).unwrap();
    let sink = handle.take_stdin().unwrap();
    block_on(sink.write("line\n")).unwrap();
    block_on(sink.close()).unwrap();
    let output = block_on(handle.collect()).unwrap();
    assert!(output.status().success);
    assert_eq!(output.stdout().unwrap(), "line\r\nline\r\n");
}

#[test]
fn c3_program_that_stops_reading_breaks_the_pipe_and_runs_on() {
    let script = "exec 0<&-; echo closed; until [ -e /tmp/c3 ]; do usleep 10000; done; echo on";
    let sb = shared();
    let mut handle = block_on(sb.shell_stream_with(script, |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin().unwrap();
    while !matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))) {}
    let error = loop {
        if let Err(error) = block_on(sink.write([0; 4096])) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    shell(&sb, "touch /tmp/c3");
    let events = rest(&mut handle);
    let errors = |event: &&ExecEvent| matches!(event, ExecEvent::StdinError(_));
    assert_eq!(events.iter().filter(errors).count(), 1, "{events:?}");
    assert_eq!(common::stdout_of(&events), b"on\n");
    assert_eq!(events.last(), Some(&ExecEvent::Exited { code: 0 }));
}

#[test]
fn c4_given_bytes_of_all_sizes_arrive_whole() {
    let sb = shared();
    for size in [0, 1, (64 << 10) + 1, 64 << 20] {
        let data: Vec<u8> = (0..=252).cycle().take(size).collect();
        let output = block_on(sb.exec_with("cat", |o| o.stdin_bytes(data.clone()))).unwrap();
        assert!(output.stdout_bytes().as_ref() == data, "{size} bytes");
    }
    let unread = block_on(sb.exec_with("true", |o| o.stdin_bytes(vec![0; 4 << 20]))).unwrap();
    assert!(unread.status().success);
}
