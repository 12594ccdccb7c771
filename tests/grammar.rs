//! Promises B1 and B5 for random commands and readers: events follow their grammar, and no byte is
//! lost, doubled or invented.
//!
//! `MSB_GRAMMAR_SECONDS` (15) sets the duration; `MSB_GRAMMAR_SEED` repeats a run.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod common;

use common::{block_on, poll_once, sandbox};
use microsandbox::{Error, ErrorKind, ExecEvent, ExecHandle, ExecOptionsBuilder, Sandbox};
use std::fmt::Write as _;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const NAME: &str = "grammar";
const READERS: u64 = 4;

/// Pseudo-random numbers, reproducible from their seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// Mostly small, sometimes larger than every buffer on the path.
    fn lines(&mut self) -> u64 {
        let top = [1, 10, 1_000, 20_000, 400_000][self.below(5) as usize];
        self.below(top + 1)
    }
}

/// What a command does, and the expected result.
#[derive(Debug, Clone)]
struct Plan {
    program: String,
    args: Vec<String>,
    /// Its input, and whether a sink writes it.
    input: Option<(Vec<u8>, bool)>,
    timeout: Option<Duration>,
    tty: bool,
    cwd: Option<&'static str>,
    stdout: Output,
    stderr: Output,
    ending: Expected,
    /// The reader kills it after a while.
    kill: bool,
}

#[derive(Debug, Clone)]
enum Output {
    /// Exactly these bytes, all before the exit.
    Whole(Vec<u8>),
    /// A prefix of these bytes; may continue after the exit.
    Beginning(Vec<u8>),
    /// A prefix of all numbered lines.
    Numbers,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Code(i32),
    Signal(i32),
    TimedOut,
    Failed,
}

fn numbers(to: u64, end: &str) -> Vec<u8> {
    let mut text = String::new();
    for line in 1..=to {
        write!(text, "{line}{end}").unwrap();
    }
    text.into_bytes()
}

impl Plan {
    fn random(random: &mut Random) -> Plan {
        let code = random.below(256) as i32;
        let mut plan = Plan::shell(String::new(), Expected::Code(code));
        let (out, err) = (random.lines(), random.lines().min(20_000));
        match random.below(10) {
            0 | 1 => {
                plan.script(format!("seq 1 {out}; seq 1 {err} >&2; exit {code}"));
                plan.stdout = Output::Whole(numbers(out, "\n"));
                plan.stderr = Output::Whole(numbers(err, "\n"));
            }
            2 => {
                // Both at once.
                plan.script(format!("seq 1 {err} >&2 & seq 1 {out}; wait; exit {code}"));
                plan.stdout = Output::Whole(numbers(out, "\n"));
                plan.stderr = Output::Whole(numbers(err, "\n"));
            }
            3 => {
                // A background process writes before and after the exit.
                let pause = random.below(300_000);
                plan.script(format!(
                    "(usleep {pause}; seq 1 {err}) >&2 & seq 1 {out}; exit {code}"
                ));
                plan.stdout = Output::Whole(numbers(out, "\n"));
                plan.stderr = Output::Beginning(numbers(err, "\n"));
            }
            4 => {
                let signal = [1, 2, 6, 9, 10, 13, 15][random.below(7) as usize];
                plan.script(format!("seq 1 {out}; kill -{signal} $$; sleep 600"));
                plan.stdout = Output::Whole(numbers(out, "\n"));
                plan.ending = Expected::Signal(signal);
            }
            5 => {
                plan.ending = Expected::Failed;
                match random.below(3) {
                    0 => plan.program = "/no/such/program".into(),
                    1 => plan.program = "not-permitted".into(),
                    _ => plan.cwd = Some("/no/such/directory"),
                }
            }
            6 => {
                let input = numbers(out, "\n");
                (plan.program, plan.args) = ("cat".into(), Vec::new());
                plan.stdout = Output::Whole(input.clone());
                plan.input = Some((input, random.chance(2)));
                plan.ending = Expected::Code(0);
            }
            7 => {
                // Stops reading in the middle.
                let input = numbers(out, "\n");
                let taken = random.below(input.len() as u64 + 1) as usize;
                plan.script(format!("head -c {taken}; exec <&-; usleep 20000; exit {code}"));
                plan.stdout = Output::Whole(input[..taken].to_vec());
                plan.input = Some((input, random.chance(2)));
            }
            8 => {
                plan.program = "seq".into();
                plan.args = vec!["1".into(), "100000000".into()];
                plan.stdout = Output::Numbers;
                if random.chance(2) {
                    plan.timeout = Some(Duration::from_millis(1 + random.below(60)));
                    plan.ending = Expected::TimedOut;
                } else {
                    plan.kill = true;
                    plan.ending = Expected::Signal(9);
                }
            }
            _ => {
                plan.tty = true;
                plan.script(format!("seq 1 {out}; exit {code}"));
                plan.stdout = Output::Whole(numbers(out, "\r\n"));
            }
        }
        plan
    }

    fn shell(script: String, ending: Expected) -> Plan {
        Plan {
            program: "sh".into(),
            args: vec!["-c".into(), script],
            input: None,
            timeout: None,
            tty: false,
            cwd: None,
            stdout: Output::Whole(Vec::new()),
            stderr: Output::Whole(Vec::new()),
            ending,
            kill: false,
        }
    }

    fn script(&mut self, script: String) {
        self.args = vec!["-c".into(), script];
    }

    fn options(&self, mut options: ExecOptionsBuilder) -> ExecOptionsBuilder {
        options = options.args(self.args.clone()).tty(self.tty);
        if let Some(cwd) = self.cwd {
            options = options.cwd(cwd);
        }
        if let Some(timeout) = self.timeout {
            options = options.timeout(timeout);
        }
        match &self.input {
            Some((_, true)) => options.stdin_pipe(),
            Some((data, false)) => options.stdin_bytes(data.clone()),
            None => options,
        }
    }
}

/// Output seen by a reader, checked as it arrives.
#[derive(Default)]
struct Seen {
    started: bool,
    ending: Option<ExecEvent>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How much of both had arrived before the end.
    before: (usize, usize),
    stdin_errors: u32,
}

impl Seen {
    fn take(&mut self, event: ExecEvent) {
        let ended_for_good = matches!(self.ending, Some(ExecEvent::Failed(_) | ExecEvent::Lost(_)));
        assert!(!ended_for_good, "{event:?} after the last event");
        match event {
            ExecEvent::Started { pid } => {
                assert!(!self.started && self.ending.is_none() && pid > 0);
                self.started = true;
            }
            ExecEvent::Stdout(data) => {
                assert!(self.started && !data.is_empty());
                self.stdout.extend_from_slice(&data);
            }
            ExecEvent::Stderr(data) => {
                assert!(self.started && !data.is_empty());
                self.stderr.extend_from_slice(&data);
            }
            ExecEvent::StdinError(_) => {
                assert!(self.started && self.ending.is_none());
                self.stdin_errors += 1;
            }
            event => {
                assert!(self.ending.is_none(), "{event:?} is a second end");
                assert_eq!(self.started, !matches!(event, ExecEvent::Failed(_)), "{event:?}");
                self.before = (self.stdout.len(), self.stderr.len());
                self.ending = Some(event);
            }
        }
    }

    fn check(&self, plan: &Plan) {
        assert!(self.stdin_errors <= u32::from(plan.input.is_some()));
        check_output(&plan.stdout, &self.stdout, self.before.0, "stdout");
        check_output(&plan.stderr, &self.stderr, self.before.1, "stderr");
        match (plan.ending, &self.ending) {
            (Expected::Failed, Some(ExecEvent::Failed(_))) => {}
            (Expected::Code(code), Some(ExecEvent::Exited { code: seen })) => {
                assert_eq!(code, *seen);
            }
            (Expected::Signal(_) | Expected::TimedOut, Some(ExecEvent::Exited { code: -1 })) => {}
            (_, seen) => panic!("{seen:?}"),
        }
    }
}

fn check_output(expected: &Output, seen: &[u8], before: usize, name: &str) {
    match expected {
        Output::Whole(all) => {
            assert!(all == seen, "{name}: {} bytes of {}", seen.len(), all.len());
            assert_eq!(before, seen.len(), "{name}: its own bytes arrived after the exit");
        }
        Output::Beginning(all) => {
            assert!(all.starts_with(seen), "{name}: {} bytes of {}", seen.len(), all.len());
        }
        Output::Numbers => {
            // The last line may be truncated.
            let lines = seen.split(|byte| *byte == b'\n');
            let mut left = lines.clone().count();
            for (expected, line) in (1u64..).zip(lines) {
                let expected = expected.to_string();
                left -= 1;
                let whole = left > 0;
                let ok = if whole {
                    line == expected.as_bytes()
                } else {
                    expected.as_bytes().starts_with(line)
                };
                assert!(ok, "{name}: a gap before line {expected}");
            }
        }
    }
}

/// Receives the next event, with random cancellation before.
fn next(handle: &mut ExecHandle, random: &mut Random) -> Option<ExecEvent> {
    loop {
        let mut future = Box::pin(handle.recv());
        if random.chance(3) {
            match poll_once(future.as_mut()) {
                Poll::Ready(event) => return event,
                Poll::Pending if random.chance(2) => continue,
                Poll::Pending => {}
            }
        }
        return block_on(future);
    }
}

/// Runs one command and checks everything that is reported about it.
fn play(sb: &Sandbox, random: &mut Random) {
    let plan = Plan::random(random);
    // A connection of its own, which closes with the handle.
    let fresh = random.chance(6).then(|| block_on(Sandbox::get(NAME)).unwrap());
    let on = fresh.as_ref().unwrap_or(sb);
    let mut handle =
        block_on(on.exec_stream_with(plan.program.clone(), |o| plan.options(o))).unwrap();
    drop(fresh);
    let writer = handle.take_stdin().zip(plan.input.clone()).map(|(sink, (data, _))| {
        let step = 1 + random.below(100_000) as usize;
        thread::spawn(move || {
            for piece in data.chunks(step) {
                match block_on(sink.write(piece)) {
                    Ok(()) => {}
                    // The command no longer reads, or the connection was lost first.
                    Err(error) => {
                        let kinds = [ErrorKind::BrokenPipe, ErrorKind::StreamLost];
                        assert!(kinds.contains(&error.kind()), "{error}");
                        return;
                    }
                }
            }
        })
    });
    // An abandoned command still ends the same way.
    let finite = !plan.kill && plan.timeout.is_none() && plan.input.is_none();
    if finite && random.chance(8) {
        let (id, ending) = (handle.id(), plan.ending);
        for _ in 0..random.below(4) {
            if next(&mut handle, random).is_none() {
                break;
            }
        }
        drop(handle);
        return ended_by_itself(sb, &id, ending);
    }
    let mut seen = Seen::default();
    let kill_after = random.below(40);
    let mut events = 0;
    while let Some(event) = next(&mut handle, random) {
        seen.take(event);
        events += 1;
        if plan.kill && events == kill_after.max(1) {
            block_on(handle.kill()).unwrap();
        }
        if !plan.kill && seen.started && random.chance(100) {
            collect_the_rest(&mut handle, &mut seen);
            break;
        }
    }
    assert_eq!(block_on(handle.recv()), None);
    assert_eq!(block_on(handle.recv()), None);
    seen.check(&plan);
    let status = block_on(handle.wait());
    match plan.ending {
        Expected::Failed => assert_eq!(status.unwrap_err().kind(), ErrorKind::ExecFailed),
        Expected::Code(code) => assert_eq!(status.unwrap().code, code),
        Expected::Signal(signal) => assert_eq!(status.unwrap().signal, Some(signal)),
        Expected::TimedOut => assert!(status.unwrap().timed_out),
    }
    drop(handle);
    if let Some(writer) = writer {
        writer.join().unwrap();
    }
}

/// Switches from events to collecting, with a few cancellations.
fn collect_the_rest(handle: &mut ExecHandle, seen: &mut Seen) {
    let mut collected = None;
    for _ in 0..3 {
        if let Poll::Ready(result) = poll_once(Box::pin(handle.collect()).as_mut()) {
            collected = Some(result);
            break;
        }
    }
    let output = match collected.unwrap_or_else(|| block_on(handle.collect())) {
        Ok(output) => output,
        Err(Error::ExecTimeout { output, .. }) => *output,
        Err(error) => panic!("{error}"),
    };
    seen.stdout.extend_from_slice(output.stdout_bytes());
    seen.stderr.extend_from_slice(output.stderr_bytes());
    if seen.ending.is_none() {
        seen.before = (seen.stdout.len(), seen.stderr.len());
        seen.ending = Some(ExecEvent::Exited { code: output.status().code });
    }
}

/// Waits without a reader until the list of sessions reports the exit.
fn ended_by_itself(sb: &Sandbox, id: &str, ending: Expected) {
    if ending == Expected::Failed {
        return;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let sessions = block_on(sb.sessions()).unwrap();
        // More than a thousand may have ended since.
        let Some(session) = sessions.iter().find(|session| session.id == id) else { return };
        if let Some(status) = session.status {
            break status;
        }
        assert!(Instant::now() < deadline, "{id} does not end");
        thread::sleep(Duration::from_millis(5));
    };
    match ending {
        Expected::Code(code) => assert_eq!(status.code, code),
        Expected::Signal(signal) => assert_eq!(status.signal, Some(signal)),
        Expected::TimedOut | Expected::Failed => unreachable!(),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn b1_b5_events_of_random_commands_keep_their_grammar() {
    let sb = sandbox(NAME);
    let time = Duration::from_secs(number("MSB_GRAMMAR_SECONDS").unwrap_or(15));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("MSB_GRAMMAR_SEED").unwrap_or(now.as_secs());
    println!("MSB_GRAMMAR_SEED={seed}");
    let deadline = Instant::now() + time;
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (sb, mut random) = (sb.clone(), Random((seed << 8 | reader).max(1)));
            thread::spawn(move || {
                let mut commands = 0;
                while Instant::now() < deadline {
                    play(&sb, &mut random);
                    commands += 1;
                }
                commands
            })
        })
        .collect();
    let commands: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    println!("{commands} commands");
    assert!(commands > 20, "{commands} commands in {time:?}");
    let running = block_on(sb.sessions()).unwrap();
    let running: Vec<_> = running.iter().filter(|session| session.status.is_none()).collect();
    assert!(running.is_empty(), "{running:?}");
    block_on(sb.kill()).unwrap();
}
