//! Promise D6: the output of sessions is recorded in a log on request.

mod common;

use common::{block_on, builder, poll_once, rest, runner_of, sandbox, shell};
use microsandbox::{
    ErrorKind, ExecEvent, LogEvent, LogOptions, LogRecord, LogSource, LogStream, Sandbox, logs,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

/// More than enough files for what the tests write.
const SMALL: (u64, u32) = (1 << 20, 1000);

#[allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]
fn logged(name: &str) -> Sandbox {
    block_on(builder(name).log_limits(SMALL.0, SMALL.1).create()).unwrap()
}

#[allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]
fn all(mut stream: LogStream) -> Vec<LogRecord> {
    let records = std::iter::from_fn(|| block_on(stream.next()));
    records.map(Result::unwrap).collect()
}

#[allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]
fn log_of(sandbox: &Sandbox) -> Vec<LogRecord> {
    all(block_on(sandbox.logs(LogOptions::default())).unwrap())
}

fn bytes(records: &[LogRecord], session: &str, stream: LogSource) -> Vec<u8> {
    let wanted = |record: &&LogRecord| record.session == session && record.stream == stream;
    records.iter().filter(wanted).flat_map(|record| record.data.clone()).collect()
}

fn has_ended(records: &[LogRecord], session: &str) -> bool {
    records.iter().any(|record| {
        record.session == session && matches!(record.event, Some(LogEvent::Exited { .. }))
    })
}

/// Polls the log until it contains the end of a session, which is logged asynchronously.
#[allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]
fn log_to_the_end_of(sandbox: &Sandbox, session: &str) -> Vec<LogRecord> {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = block_on(sandbox.logs(options)).unwrap();
    let mut records = Vec::new();
    while !has_ended(&records, session) {
        records.push(block_on(stream.next()).unwrap().unwrap());
    }
    records
}

#[test]
fn d6_the_log_has_twenty_megabytes_byte_for_byte() {
    let sb = logged("log-bytes");
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do \
        head -c 1000003 /dev/urandom; head -c 1000007 /dev/urandom >&2; printf 'g\\303'; \
        printf '\\274n\\000\\n' | tee /dev/stderr; done";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    let events = rest(&mut handle);
    let stderr: Vec<u8> = events
        .iter()
        .flat_map(|event| match event {
            ExecEvent::Stderr(data) => data.to_vec(),
            _ => Vec::new(),
        })
        .collect();
    let records = log_to_the_end_of(&sb, &handle.id());
    let stdout = common::stdout_of(&events);
    assert!(stdout.len() > 10_000_000 && stderr.len() > 10_000_000);
    assert!(bytes(&records, &handle.id(), LogSource::Stdout) == stdout);
    assert!(bytes(&records, &handle.id(), LogSource::Stderr) == stderr);
    let first = records.first().unwrap();
    let Some(LogEvent::Started { pid, argv, tty: false, .. }) = &first.event else {
        panic!("{first:?}")
    };
    assert!(*pid > 0 && argv.last().unwrap() == script);
    let last = records.last().unwrap();
    assert!(matches!(last.event, Some(LogEvent::Exited { code: 0, signal: None, .. })), "{last:?}");
    assert!(records.windows(2).all(|pair| pair[0].time <= pair[1].time));
    let dir = format!("{}/sandboxes/log-bytes/log", std::env::var("MSB_HOME").unwrap());
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    let sizes: Vec<u64> = files.map(|file| file.len()).collect();
    assert!(sizes.len() > 20 && sizes.iter().all(|size| *size <= SMALL.0), "{sizes:?}");
    block_on(sb.kill()).unwrap();
}

#[test]
fn d6_sessions_are_separate_and_selectable_with_their_ends() {
    let sb = logged("log-sessions");
    let begun = SystemTime::now();
    let ids: Vec<String> = ["echo one; exit 3", "echo two; kill -9 $$"]
        .into_iter()
        .map(|script| {
            let mut handle = block_on(sb.shell_stream(script)).unwrap();
            rest(&mut handle);
            handle.id()
        })
        .collect();
    let mut failing = block_on(sb.exec_stream("nosuch", ["x"])).unwrap();
    assert!(matches!(rest(&mut failing).as_slice(), [ExecEvent::Failed(_)]));
    log_to_the_end_of(&sb, &ids[1]);
    block_on(sb.stop()).unwrap();
    let of = |session: &str| {
        let options = LogOptions { session: Some(session.to_owned()), ..LogOptions::default() };
        all(block_on(logs("log-sessions", options)).unwrap())
    };
    let (one, two, failed) = (of(&ids[0]), of(&ids[1]), of(&failing.id()));
    assert_eq!(bytes(&one, &ids[0], LogSource::Stdout), b"one\n");
    assert!(matches!(one[2].event, Some(LogEvent::Exited { code: 3, .. })));
    assert!(matches!(two[2].event, Some(LogEvent::Exited { code: -1, signal: Some(9), .. })));
    let Some(LogEvent::Failed { argv, failure, errno: 2, .. }) = &failed[0].event else {
        panic!("{failed:?}")
    };
    assert_eq!((argv.join(" ").as_str(), failure.as_str()), ("nosuch x", "not_found"));
    let whole = log_of(&sb);
    assert_eq!(whole.len(), one.len() + two.len() + failed.len());
    assert!(whole.iter().all(|record| record.time >= begun));
    let since = LogOptions { since: Some(SystemTime::now()), ..LogOptions::default() };
    assert!(all(block_on(sb.logs(since)).unwrap()).is_empty());
}

#[test]
fn d6_a_follower_reads_live_and_ends_with_the_sandbox() {
    let sb = logged("log-follow");
    let follow = || LogOptions { follow: true, ..LogOptions::default() };
    let mut stream = block_on(sb.logs(follow())).unwrap();
    let script = "echo ready; read line; echo got $line; exec sleep 600";
    let mut handle =
        block_on(sb.exec_stream_with("sh", |o| o.args(["-c", script]).stdin_pipe())).unwrap();
    let next = |stream: &mut LogStream| block_on(stream.next()).unwrap().unwrap();
    assert!(matches!(next(&mut stream).event, Some(LogEvent::Started { .. })));
    assert_eq!(next(&mut stream).data, b"ready\n");
    let sink = handle.take_stdin().unwrap();
    block_on(sink.write(b"it\n")).unwrap();
    assert_eq!(next(&mut stream).data, b"got it\n");
    // Dropping a reader consumes nothing.
    drop(block_on(sb.logs(follow())).unwrap());
    block_on(sb.kill()).unwrap();
    let last: Vec<LogRecord> = all(stream);
    assert!(
        matches!(&last[..], [r] if r.event == Some(LogEvent::Lost)
        || matches!(r.event, Some(LogEvent::Exited { .. }))),
        "{last:?}"
    );
}

#[test]
fn d6_without_the_option_there_is_no_log() {
    let sb = sandbox("log-off");
    shell(&sb, "echo secret");
    let error = block_on(sb.logs(LogOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let dir = format!("{}/sandboxes/log-off", std::env::var("MSB_HOME").unwrap());
    assert!(!std::path::Path::new(&dir).join("log").exists());
    assert_eq!(block_on(sb.sessions()).unwrap()[0].followers, 0);
    block_on(sb.kill()).unwrap();
    let off = builder("log-off").log(true).log(false);
    let sb = block_on(off.create()).unwrap();
    assert!(!std::path::Path::new(&dir).join("log").exists());
    block_on(sb.kill()).unwrap();
}

#[test]
fn d6_full_disk_ends_the_log_and_no_program() {
    let sb = logged("log-full");
    let runner = Pid::from_raw(runner_of("log-full")).unwrap();
    // A write beyond this limit fails, as on a full disk.
    let limit = Rlimit { current: Some(300_000), maximum: Some(300_000) };
    prlimit(Some(runner), Resource::Fsize, limit).unwrap();
    let script = "i=0; while [ $i -lt 200 ]; do head -c 10000 /dev/zero; i=$((i+1)); done; echo";
    let output = block_on(sb.shell(script)).unwrap();
    assert_eq!(output.stdout_bytes().len(), 2_000_001);
    let output = block_on(sb.shell("echo it goes on")).unwrap();
    assert_eq!(output.stdout().unwrap(), "it goes on\n");
    block_on(sb.stop()).unwrap();
    let mut stream = block_on(sb.logs(LogOptions::default())).unwrap();
    let mut logged = Vec::new();
    while let Some(record) = block_on(stream.next()) {
        logged.extend(record.unwrap().data);
    }
    assert!(!logged.is_empty() && logged.len() <= 300_000 && logged.iter().all(|byte| *byte == 0));
    let warning = stream.warning().unwrap();
    assert!(warning.contains("File too large"), "{warning}");
    let runner_log =
        format!("{}/sandboxes/log-full/runner.log", std::env::var("MSB_HOME").unwrap());
    assert!(std::fs::read_to_string(runner_log).unwrap().contains("log_failed"));
}

#[test]
fn d6_a_killed_runner_leaves_a_log_of_whole_records() {
    let sb = logged("log-killed");
    let script = "i=0; while :; do echo $i; i=$((i+1)); done";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    let mut seen = 0;
    while seen < 500_000 {
        if let ExecEvent::Stdout(data) = block_on(handle.recv()).unwrap() {
            seen += data.len();
        }
    }
    let runner = Pid::from_raw(runner_of("log-killed")).unwrap();
    kill_process(runner, Signal::KILL).unwrap();
    assert!(matches!(rest(&mut handle).last(), Some(ExecEvent::Lost(_))));
    let records = log_of(&sb);
    let text = String::from_utf8(bytes(&records, &handle.id(), LogSource::Stdout)).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    assert!(lines.len() > 1000);
    assert!(lines.iter().enumerate().all(|(i, line)| line.trim_end() == i.to_string()));
    // The next lookup cleans up after a killed runner.
    block_on(Sandbox::list()).unwrap();
}

#[test]
fn d6_the_log_spans_starts_and_is_removed_with_the_sandbox() {
    let sb = block_on(builder("log-again").log(true).detached(true).create()).unwrap();
    shell(&sb, "echo first");
    block_on(sb.stop()).unwrap();
    let sb = block_on(Sandbox::start("log-again")).unwrap();
    shell(&sb, "echo second");
    block_on(sb.stop()).unwrap();
    let records = log_of(&sb);
    let data: Vec<u8> = records.iter().flat_map(|record| record.data.clone()).collect();
    assert_eq!(data, b"first\nsecond\n");
    assert!(records.iter().all(|record| record.event != Some(LogEvent::Lost)), "{records:?}");
    let sb = block_on(builder("log-again").log(true).create()).unwrap();
    assert!(log_of(&sb).is_empty(), "another sandbox has another log");
    block_on(sb.kill()).unwrap();
    block_on(Sandbox::remove("log-again")).unwrap();
    let error = block_on(logs("log-again", LogOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotFound);
}

#[test]
fn d6_backpressure_stops_the_program_also_with_a_log() {
    let sb = logged("log-pressure");
    let mut handle = block_on(sb.shell_stream("head -c 8000000 /dev/zero; echo end >&2")).unwrap();
    assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
    // Other sessions continue, and the log contains only what the reader's credit allowed.
    assert_eq!(shell(&sb, "echo other"), "other\n");
    let written: usize = {
        let own: Vec<LogRecord> = log_of(&sb);
        bytes(&own, &handle.id(), LogSource::Stdout).len()
    };
    assert!(written <= 2 << 20, "{written}");
    let events = rest(&mut handle);
    assert_eq!(common::stdout_of(&events).len(), 8_000_000);
    let records = log_to_the_end_of(&sb, &handle.id());
    assert_eq!(bytes(&records, &handle.id(), LogSource::Stdout).len(), 8_000_000);
    assert_eq!(bytes(&records, &handle.id(), LogSource::Stderr), b"end\n");
    block_on(sb.kill()).unwrap();
}

#[test]
fn d6_a_hundred_sessions_at_once_are_all_in_the_log() {
    let sb = logged("log-many");
    let mut handles: Vec<_> = (0..100)
        .map(|i| block_on(sb.shell_stream(format!("echo {i}; echo {i} >&2; exit {i}"))).unwrap())
        .collect();
    for handle in &mut handles {
        rest(handle);
    }
    block_on(sb.stop_with_timeout(Duration::from_secs(5))).unwrap();
    let records = log_of(&sb);
    for (i, handle) in handles.iter().enumerate() {
        let line = format!("{i}\n").into_bytes();
        assert_eq!(bytes(&records, &handle.id(), LogSource::Stdout), line);
        assert_eq!(bytes(&records, &handle.id(), LogSource::Stderr), line);
        let exit = |record: &&LogRecord| record.session == handle.id() && record.event.is_some();
        let Some(LogEvent::Exited { code, .. }) = records.iter().rfind(exit).unwrap().event else {
            panic!("{i} did not end")
        };
        assert_eq!(usize::try_from(code).unwrap(), i);
    }
}

#[test]
fn d6_slow_log_slows_the_program_and_loses_nothing() {
    if std::env::var("MSB_DRIVER").is_ok_and(|driver| ["qemu", "gvisor"].contains(&&*driver)) {
        // With these drivers the runner, which writes the log, also forwards the connections:
        // stopping it would stop everything.
        return;
    }
    let sb = logged("log-slow");
    let runner = Pid::from_raw(runner_of("log-slow")).unwrap();
    kill_process(runner, Signal::STOP).unwrap();
    let mut handle = block_on(sb.shell_stream("head -c 5000000 /dev/urandom; echo >&2")).unwrap();
    let mut got = Vec::new();
    // Without its writer, the log blocks at its window, and so does every reader.
    while got.len() < 900_000 {
        if let ExecEvent::Stdout(data) = block_on(handle.recv()).unwrap() {
            got.extend_from_slice(&data);
        }
    }
    assert_eq!(shell(&sb, "echo other sessions start"), "other sessions start\n");
    while let Poll::Ready(Some(event)) = poll_once(pin!(handle.recv())) {
        if let ExecEvent::Stdout(data) = event {
            got.extend_from_slice(&data);
        }
    }
    assert!(got.len() <= 1 << 20, "{}", got.len());
    kill_process(runner, Signal::CONT).unwrap();
    got.extend(common::stdout_of(&rest(&mut handle)));
    let records = log_to_the_end_of(&sb, &handle.id());
    assert_eq!(got.len(), 5_000_000);
    assert!(bytes(&records, &handle.id(), LogSource::Stdout) == got);
    block_on(sb.kill()).unwrap();
}
