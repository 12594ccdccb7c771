//! Promises B: streaming.

mod common;

use common::{block_on, poll_once, rest, sandbox, shared, shell, stdout_of, wait_until};
use microsandbox::{ErrorKind, ExecEvent, ResourceUsage};
use std::task::Poll;
use std::time::{Duration, Instant};

#[test]
fn b1_events_are_in_order_and_the_end_repeats() {
    let mut handle = block_on(shared().shell_stream("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!(handle.id().len(), 32);
    let events = rest(&mut handle);
    assert!(matches!(events.first(), Some(ExecEvent::Started { pid, .. }) if *pid > 0));
    let starts = |event: &&ExecEvent| matches!(event, ExecEvent::Started { .. });
    assert_eq!(events.iter().filter(starts).count(), 1);
    assert_eq!(events.last(), Some(&ExecEvent::Exited { code: 7 }));
    assert_eq!(stdout_of(&events), b"out\n");
    assert_eq!(block_on(handle.recv()), None);
    assert_eq!(block_on(handle.recv()), None);
    assert_eq!(block_on(handle.wait()).unwrap().code, 7);
}

#[test]
fn b2_output_arrives_while_the_program_runs() {
    let mut handle = block_on(shared().exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin().unwrap();
    assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
    for text in ["one", "two", "three"] {
        // The program waits for input, so this output arrived while it ran.
        block_on(sink.write(text)).unwrap();
        let mut got = Vec::new();
        while got.len() < text.len() {
            let Some(ExecEvent::Stdout(data)) = block_on(handle.recv()) else { panic!() };
            got.extend_from_slice(&data);
        }
        assert_eq!(got, text.as_bytes());
    }
    block_on(sink.close()).unwrap();
    assert_eq!(rest(&mut handle), [ExecEvent::Exited { code: 0 }]);
}

#[test]
fn b2_byte_arrives_within_50_ms_of_its_write() {
    let mut handle = block_on(shared().exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin().unwrap();
    assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
    let round_trip = |_| {
        let begun = Instant::now();
        block_on(sink.write("x")).unwrap();
        assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))));
        begun.elapsed()
    };
    // The minimum of many: a busy machine has quiet moments, a deliberate delay does not.
    let best = (0..50).map(round_trip).min().unwrap();
    assert!(best < Duration::from_millis(50), "{best:?}");
}

#[test]
fn b3_exit_by_signal_has_its_number_and_resource_usage() {
    let mut handle = block_on(shared().shell_stream("kill -TERM $$; sleep 600")).unwrap();
    let status = block_on(handle.wait()).unwrap();
    assert_eq!((status.code, status.success, status.signal), (-1, false, Some(libc::SIGTERM)));
    assert!(!status.timed_out);
    let usage = status.usage.unwrap();
    assert!(usage.wall_time > Duration::ZERO && usage.max_rss > 0, "{usage:?}");
}

#[test]
fn b3_core_dump_is_reported() {
    let sb = shared();
    for limit in ["0", "$(ulimit -H -c)"] {
        let abort = |script: &str| {
            let script = format!("cd $(mktemp -d); ulimit -S -c {limit}; {script}");
            block_on(sb.shell(script)).unwrap()
        };
        // It depends on the machine's core_pattern, so compare with a shell in the sandbox.
        let seen = abort("sh -c 'kill -ABRT $$'; true").stderr().unwrap();
        let status = abort("kill -ABRT $$").status();
        let dumped = seen.contains("core dumped");
        assert_eq!((status.signal, status.core_dumped), (Some(libc::SIGABRT), dumped), "{seen}");
    }
}

#[test]
fn b3_user_time_and_system_time_are_separate() {
    let usage = |script: &str| -> ResourceUsage {
        block_on(shared().shell(script)).unwrap().status().usage.unwrap()
    };
    let program = usage("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
    assert!(program.user_time > program.system_time, "{program:?}");
    let kernel = usage("dd if=/dev/zero of=/dev/null bs=1M count=1000");
    assert!(kernel.system_time > kernel.user_time, "{kernel:?}");
}

#[test]
fn b4_the_exit_does_not_wait_for_background_processes() {
    let sb = shared();
    let dir = shell(&sb, "mktemp -d").trim().to_owned();
    let script = format!(
        "(until [ -e {dir}/go ]; do usleep 10000; done; \
          head -c 1000000 /dev/zero; echo $? > {dir}/result) & echo hi"
    );
    let output = block_on(sb.shell(script)).unwrap();
    assert_eq!(output.stdout().unwrap(), "hi\n");
    assert!(output.status().success && output.writer_left());
    // Its output is discarded, which neither blocks nor kills it.
    shell(&sb, &format!("touch {dir}/go"));
    wait_until(&sb, &format!("[ -s {dir}/result ]"));
    assert_eq!(shell(&sb, &format!("cat {dir}/result")), "0\n");
}

#[test]
fn b4_exit_is_reported_within_100_ms() {
    let sb = shared();
    let delay = |_| {
        let mut handle = block_on(sb.shell_stream("sleep 2 & echo hi")).unwrap();
        while !matches!(block_on(handle.recv()).unwrap(), ExecEvent::Stdout(_)) {}
        let begun = Instant::now();
        assert!(block_on(handle.wait()).unwrap().success);
        begun.elapsed()
    };
    // The minimum of some, since the machine may be busy.
    let best = (0..20).map(delay).min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[test]
fn b4_wait_for_every_writer_returns_all_output() {
    let script = "(usleep 600000; echo late) & echo early";
    let output = block_on(shared().shell_with(script, |o| o.wait_for_eof(true))).unwrap();
    assert_eq!(output.stdout().unwrap(), "early\nlate\n");
    assert!(!output.writer_left());
    let output = block_on(shared().shell_with(script, |o| o.drain(Duration::ZERO))).unwrap();
    assert_eq!(output.stdout().unwrap(), "early\n");
    assert!(output.writer_left());
}

#[test]
fn b5_random_cancels_lose_no_line() {
    const LINES: u32 = 200_000;
    let mut handle = block_on(shared().exec_stream("seq", ["1", &LINES.to_string()])).unwrap();
    let (mut text, mut endings, mut random) = (Vec::new(), 0, 1u64);
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let event = {
            let mut future = Box::pin(handle.recv());
            match poll_once(future.as_mut()) {
                Poll::Ready(event) => event,
                // Cancelled while the event may be in flight.
                Poll::Pending if random >> 63 == 0 => continue,
                Poll::Pending => block_on(future),
            }
        };
        match event {
            Some(ExecEvent::Stdout(data)) => text.extend_from_slice(&data),
            Some(ExecEvent::Exited { code }) => {
                assert_eq!(code, 0);
                endings += 1;
            }
            Some(ExecEvent::Started { .. }) => {}
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    let expected: String = (1..=LINES).map(|line| format!("{line}\n")).collect();
    assert!(text == expected.as_bytes());
    assert_eq!(endings, 1);
}

#[test]
fn b6_stopped_reader_blocks_only_its_program() {
    const BLOCKS: u64 = 400;
    let sb = sandbox("b6");
    let script = format!(
        "i=0; while [ $i -lt {BLOCKS} ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > /tmp/at; done"
    );
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    wait_until(&sb, "[ -s /tmp/at ] && [ $(cat /tmp/at) -ge 10 ]");
    for _ in 0..200 {
        assert!(block_on(sb.exec_with("true", |o| o)).unwrap().status().success);
    }
    // The window, the replay buffer and the pipes are room for about forty blocks.
    let at: u64 = shell(&sb, "cat /tmp/at").trim().parse().unwrap();
    assert!(at < 64, "the program was not blocked: {at} blocks");
    let output = block_on(handle.collect()).unwrap();
    assert_eq!(output.stdout_total(), BLOCKS * 65536);
    block_on(sb.kill()).unwrap();
}

#[test]
fn b7_killed_sandbox_is_a_loss_and_never_an_exit() {
    let sb = sandbox("b7");
    let mut handle = block_on(sb.shell_stream("echo up; exec sleep 600")).unwrap();
    let mut collected = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    while !matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))) {}
    block_on(sb.kill()).unwrap();
    let events = rest(&mut handle);
    assert!(matches!(events.as_slice(), [ExecEvent::Lost(_)]), "{events:?}");
    let error = block_on(collected.collect()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost);
    let late = block_on(sb.exec("true", [""; 0])).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::SandboxNotRunning, "{late}");
}

#[test]
fn b8_a_terminal_has_its_size_and_changes_it() {
    let sb = shared();
    let options = |o: microsandbox::ExecOptionsBuilder| o.tty(true).stdin_pipe();
    let script = "trap 'stty size; exit 0' WINCH; stty size; while :; do usleep 10000; done";
    let mut handle = block_on(sb.shell_stream_with(script, options)).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"24 80\r\n") {
        if let Some(ExecEvent::Stdout(data)) = block_on(handle.recv()) {
            seen.extend_from_slice(&data);
        }
    }
    block_on(handle.resize(50, 132)).unwrap();
    let output = block_on(handle.collect()).unwrap();
    assert_eq!(output.stdout().unwrap(), "50 132\r\n");
    let piped = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    assert_eq!(block_on(piped.resize(1, 1)).unwrap_err().kind(), ErrorKind::NotATerminal);
    block_on(piped.kill()).unwrap();
    let merged = block_on(sb.shell_with("echo o; echo e >&2", |o| o.tty(true))).unwrap();
    assert_eq!(merged.stdout().unwrap(), "o\r\ne\r\n");
    assert!(merged.stderr_bytes().is_empty());
}

#[test]
fn b10_cancelled_collect_keeps_its_output() {
    let sb = shared();
    let mut handle = block_on(sb.exec_stream_with("cat", |o| o.stdin_pipe())).unwrap();
    let sink = handle.take_stdin().unwrap();
    for text in ["one ", "two ", "three"] {
        block_on(sink.write(text)).unwrap();
        let taken = handle.position() + text.len() as u64;
        // Cancelled repeatedly, also after it has written the bytes.
        while handle.position() < taken {
            assert!(poll_once(Box::pin(handle.collect()).as_mut()).is_pending());
        }
    }
    drop(sink);
    assert_eq!(block_on(handle.collect()).unwrap().stdout().unwrap(), "one two three");
}
