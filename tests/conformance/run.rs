//! One case in one sandbox: the call, its steps, and what came of it.

use crate::bytes::{find, show};
use crate::common;
use crate::format::{Call, Case, Infinity, Kind, Limit, Listed, Mode, Run, Stdin, Step};
use crate::outcome::{End, Outcome};
use crate::seen::Seen;
use microsandbox::{
    Error, ErrorKind, ExecControl, ExecHandle, ExecOptionsBuilder, ExecOutput, ExecSink,
    MicrosandboxResult, Sandbox,
};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a case may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Times that a slow machine may stretch, by `MSB_TEST_TIME_SCALE`.
pub(crate) fn scaled(time: Duration) -> Duration {
    time.mul_f64(common::scale())
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

type Verdict<T> = Result<T, String>;

/// Runs a future until it is done or it is too late.
fn by<F: Future>(deadline: Instant, future: F) -> Verdict<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => thread::park_timeout(left),
            _ => return Err("hung".to_owned()),
        }
    }
}

/// Runs a case once and tells everything that was wrong, and what came of it.
pub(crate) fn once(
    case: &Case,
    sandbox: &Sandbox,
    own_path: &str,
) -> (Vec<String>, Option<Outcome>) {
    let deadline = Instant::now() + scaled(LIMIT);
    let mut running = Running::new(case, sandbox, own_path, deadline);
    let result = running.run();
    let mut problems = Vec::new();
    let outcome = result.map_err(|problem| problems.push(problem)).ok();
    if problems.is_empty() {
        problems.extend(running.steps(&case.after).err().map(|why| format!("afterwards: {why}")));
    }
    running.clean_up();
    (problems, outcome)
}

struct Running<'a> {
    case: &'a Case,
    sandbox: &'a Sandbox,
    own_path: &'a str,
    deadline: Instant,
    handle: Option<ExecHandle>,
    control: Option<ExecControl>,
    sink: Option<Arc<ExecSink>>,
    feeder: Option<JoinHandle<Verdict<()>>>,
    seen: Seen,
}

impl<'a> Running<'a> {
    fn new(case: &'a Case, sandbox: &'a Sandbox, own_path: &'a str, deadline: Instant) -> Self {
        let (handle, control, sink, feeder) = (None, None, None, None);
        let seen = Seen::default();
        Running { case, sandbox, own_path, deadline, handle, control, sink, feeder, seen }
    }

    fn by<F: Future>(&self, future: F) -> Verdict<F::Output> {
        by(self.deadline, future)
    }

    fn run(&mut self) -> Verdict<Outcome> {
        self.steps(&self.case.before).map_err(|why| format!("before: {why}"))?;
        let begun = Instant::now();
        if let (Mode::Collect, true) = (self.case.mode, self.case.steps.is_empty()) {
            return self.collected(begun);
        }
        match self.start()? {
            Ok(handle) => {
                self.control = Some(handle.control());
                self.handle = Some(handle);
            }
            Err(error) => return Ok(outcome(Err(error), begun)),
        }
        self.steps(&self.case.steps)?;
        if self.handle.is_none() {
            self.fed()?;
            return Ok(closed(begun));
        }
        let outcome = match self.case.mode {
            Mode::Collect => {
                let mut handle = self.handle.take().ok_or("closed")?;
                let result = self.by(handle.collect())?;
                self.handle = Some(handle);
                outcome(result, begun)
            }
            Mode::Wait => self.waited(begun)?,
            Mode::Stream => self.streamed(begun)?,
        };
        self.fed()?;
        Ok(outcome)
    }

    /// One collected call, or many at once of which all are to be alike.
    fn collected(&mut self, begun: Instant) -> Verdict<Outcome> {
        let Some(many) = self.case.at_once else {
            let result = match (&self.case.cmd, &self.case.script) {
                (Some(cmd), _) => {
                    let call = self.sandbox.exec_with(cmd.text(self.own_path), |o| self.options(o));
                    self.by(call)?
                }
                (None, script) => {
                    let script = script.as_ref().ok_or("nothing to run")?.text(self.own_path);
                    self.by(self.sandbox.shell_with(script, |o| self.options(o)))?
                }
            };
            return Ok(outcome(result, begun));
        };
        let handles: Vec<_> = (0..many).map(|_| self.start()).collect::<Verdict<_>>()?;
        let mut last = Err("none".to_owned());
        for handle in handles {
            let result = match handle {
                Ok(mut handle) => self.by(handle.collect())?,
                Err(error) => Err(error),
            };
            let outcome = outcome(result, begun);
            let wrong = crate::outcome::problems(self.case, &outcome, self.own_path);
            if let Some(wrong) = wrong.first() {
                return Err(format!("one of {many}: {wrong}"));
            }
            last = Ok(outcome);
        }
        last
    }

    fn start(&self) -> Verdict<MicrosandboxResult<ExecHandle>> {
        match (&self.case.cmd, &self.case.script) {
            (Some(cmd), _) => {
                let cmd = cmd.text(self.own_path);
                self.by(self.sandbox.exec_stream_with(cmd, |o| self.options(o)))
            }
            (None, script) => {
                let script = script.as_ref().ok_or("nothing to run")?.text(self.own_path);
                self.by(self.sandbox.shell_stream_with(script, |o| self.options(o)))
            }
        }
    }

    fn options(&self, mut o: ExecOptionsBuilder) -> ExecOptionsBuilder {
        let case = self.case;
        for arg in &case.args {
            o = o.arg_bytes(arg.value(self.own_path));
        }
        for (key, value) in &case.env {
            o = o.env_bytes(key.value(self.own_path), value.value(self.own_path));
        }
        if let Some(cwd) = &case.cwd {
            o = o.cwd_bytes(cwd.value(self.own_path));
        }
        if let Some(user) = &case.user {
            o = o.user(user);
        }
        if let Some(tty) = case.tty {
            o = o.tty(true);
            if let (Some(rows), Some(cols)) = (tty.rows, tty.cols) {
                o = o.tty_size(rows, cols);
            }
        }
        for limit in &case.rlimits {
            let number = |limit| match limit {
                Limit::Number(number) => number,
                Limit::Word(Infinity::Infinity) => u64::MAX,
            };
            let resource = limit.resource.parse().unwrap();
            o = o.rlimit_range(resource, number(limit.soft), number(limit.hard));
        }
        o = match &case.stdin {
            Stdin::Null => o,
            Stdin::Pipe => o.stdin_pipe(),
            Stdin::Bytes(bytes) => o.stdin_bytes(bytes.value(self.own_path)),
        };
        let ms = |ms: Option<u64>| ms.map(Duration::from_millis);
        o = ms(case.timeout_ms).into_iter().fold(o, ExecOptionsBuilder::timeout);
        o = ms(case.drain_ms).into_iter().fold(o, ExecOptionsBuilder::drain);
        o = case.max_output.into_iter().fold(o, ExecOptionsBuilder::max_output);
        o.wait_for_eof(case.wait_for_eof)
    }

    fn waited(&mut self, begun: Instant) -> Verdict<Outcome> {
        let handle = self.handle.as_mut().ok_or("closed")?;
        let end = match by(self.deadline, handle.wait())? {
            Ok(status) => End::Exited(status),
            Err(error) => End::of(error),
        };
        let again = by(self.deadline, handle.wait())?;
        if let (End::Exited(first), Ok(second)) = (&end, again)
            && *first != second
        {
            return Err(format!("a second wait said {second:?} after {first:?}"));
        }
        Ok(Outcome { end, ..closed(begun) })
    }

    fn streamed(&mut self, begun: Instant) -> Verdict<Outcome> {
        self.until(|seen| seen.events.contains(&Kind::Exited) || seen.ended())?;
        let took = begun.elapsed();
        self.until(Seen::ended)?;
        let handle = self.handle.as_mut().ok_or("closed")?;
        for _ in 0..2 {
            if let Some(event) = by(self.deadline, handle.recv())? {
                return Err(format!("{event:?} came after the end"));
            }
        }
        let (end, writer_left) = match by(self.deadline, handle.wait())? {
            Ok(status) => {
                let left = match by(self.deadline, handle.collect())? {
                    Ok(output) => output.writer_left(),
                    Err(Error::ExecTimeout { output, .. }) => output.writer_left(),
                    Err(error) => return Err(format!("collect after the end: {error}")),
                };
                (End::Exited(status), Some(left))
            }
            Err(error) => (End::of(error), None),
        };
        let Seen { events, stdout, stderr, stdin_errors, .. } = std::mem::take(&mut self.seen);
        let (events, output) = (Some(events), Some((stdout, stderr)));
        Ok(Outcome { end, output, writer_left, events, stdin_errors, took, ..closed(begun) })
    }

    /// Receives until it is so.
    fn until(&mut self, so: impl Fn(&Seen) -> bool) -> Verdict<()> {
        while !so(&self.seen) {
            if self.seen.ended() {
                return Err(format!("the end came first: {}", self.seen.tell()));
            }
            let handle = self.handle.as_mut().ok_or("the handle is closed")?;
            let event = by(self.deadline, handle.recv())
                .map_err(|hung| format!("{hung} after {}", self.seen.tell()))?;
            self.seen.take(event);
        }
        Ok(())
    }

    fn wait_text(&mut self, at: usize, text: &[u8]) -> Verdict<()> {
        let found = |seen: &Seen| {
            let rest = seen.output(at).get(*seen.looked.get(at)?..)?;
            find(rest, text)
        };
        self.until(|seen| found(seen).is_some())
            .map_err(|why| format!("waiting for {}: {why}", show(text)))?;
        let end = found(&self.seen).unwrap_or_default() + text.len();
        if let Some(looked) = self.seen.looked.get_mut(at) {
            *looked += end;
        }
        Ok(())
    }

    fn steps(&mut self, steps: &[Step]) -> Verdict<()> {
        for (number, step) in steps.iter().enumerate() {
            self.step(step).map_err(|why| format!("step {}: {why}", number + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Verdict<()> {
        match step {
            Step::Wait(kind) => self.until(|seen| seen.events.contains(kind)),
            Step::WaitStdout(text) => self.wait_text(0, &text.value(self.own_path)),
            Step::WaitStderr(text) => self.wait_text(1, &text.value(self.own_path)),
            Step::WaitExit => {
                let handle = self.handle.as_mut().ok_or("closed")?;
                by(self.deadline, handle.wait())?.map(drop).map_err(|error| error.to_string())
            }
            Step::Write(data) => {
                let (sink, data) = (self.sink()?, data.value(self.own_path));
                fine(self.by(sink.write(&data))?)
            }
            Step::WriteFails { data, error } => {
                let (sink, data) = (self.sink()?, data.value(self.own_path));
                loop {
                    let result = self.by(sink.write(&data))?;
                    if result.is_err() {
                        return fails(result, error);
                    }
                }
            }
            Step::Feed(data) => {
                let (sink, data) = (self.sink()?, data.value(self.own_path));
                let deadline = self.deadline;
                self.feeder = Some(thread::spawn(move || {
                    fine(by(deadline, sink.write(&data))?)?;
                    fine(by(deadline, sink.close())?)
                }));
                Ok(())
            }
            Step::CloseStdin => {
                let sink = self.sink()?;
                fine(self.by(sink.close())?)
            }
            Step::NoSink => match self.handle.as_mut().ok_or("closed")?.take_stdin() {
                None => Ok(()),
                Some(_) => Err("there is a writing end".to_owned()),
            },
            Step::Signal(signal) => fine(self.by(self.control()?.signal(*signal))?),
            Step::SignalFails { signal, error } => {
                fails(self.by(self.control()?.signal(*signal))?, error)
            }
            Step::Kill => fine(self.by(self.control()?.kill())?),
            Step::KillFails(error) => fails(self.by(self.control()?.kill())?, error),
            Step::Resize(rows, cols) => fine(self.by(self.control()?.resize(*rows, *cols))?),
            Step::ResizeFails { rows, cols, error } => {
                fails(self.by(self.control()?.resize(*rows, *cols))?, error)
            }
            Step::GiveUp { on, times } => (0..*times).try_for_each(|_| self.give_up(*on)),
            Step::Close => {
                // The writing end is ours already, if anybody is to have it.
                if matches!(self.case.stdin, Stdin::Pipe) {
                    self.sink()?;
                }
                self.handle = None;
                Ok(())
            }
            Step::Run(run) => self.beside(run),
            Step::Until(condition) => {
                let script = format!("until {condition}; do usleep 10000; done");
                self.beside(&Run {
                    script,
                    stdout: Some(crate::format::Match::All(Default::default())),
                })
            }
            Step::Listed(wanted) => self.listed(*wanted),
        }
    }

    fn control(&self) -> Verdict<ExecControl> {
        self.control.clone().ok_or_else(|| "nothing was started".to_owned())
    }

    fn sink(&mut self) -> Verdict<Arc<ExecSink>> {
        if self.sink.is_none() {
            let handle = self.handle.as_mut().ok_or("closed")?;
            self.sink = handle.take_stdin().map(Arc::new);
        }
        self.sink.clone().ok_or_else(|| "there is no writing end".to_owned())
    }

    /// A look at a call, which is then given up.
    fn give_up(&mut self, call: Call) -> Verdict<()> {
        let handle = self.handle.as_mut().ok_or("closed")?;
        let mut context = Context::from_waker(Waker::noop());
        match call {
            Call::Recv => {
                if let Poll::Ready(event) = pin!(handle.recv()).poll(&mut context) {
                    self.seen.take(event);
                }
            }
            Call::Wait => drop(pin!(handle.wait()).poll(&mut context).map(drop)),
            Call::Collect => match pin!(handle.collect()).poll(&mut context) {
                Poll::Pending => {}
                Poll::Ready(_) => return Err("it ended while collecting was given up".to_owned()),
            },
        }
        Ok(())
    }

    /// Another command beside the case's own.
    fn beside(&self, run: &Run) -> Verdict<()> {
        let script = run.script.replace(crate::bytes::OWN_PATH, self.own_path);
        let output = self
            .by(self.sandbox.shell(script.clone()))
            .map_err(|hung| format!("{hung}: {script}"))?
            .map_err(|error| format!("{script}: {error}"))?;
        if !output.status().success {
            return Err(format!("{script}: {:?}", output.status()));
        }
        let nothing = crate::format::Match::Exact(crate::format::Bytes::Plain(String::new()));
        let wanted = run.stdout.as_ref().unwrap_or(&nothing);
        match wanted.problem(output.stdout_bytes(), self.own_path) {
            Some(why) => Err(format!("{script}: {why}")),
            None => Ok(()),
        }
    }

    fn listed(&self, wanted: Listed) -> Verdict<()> {
        let id = self.control()?.id();
        let sessions = self.by(self.sandbox.sessions())?.map_err(|error| error.to_string())?;
        let found = sessions.iter().find(|session| session.id == id);
        let state = found.map(|session| match session.status {
            None => Listed::Running,
            Some(_) => Listed::Ended,
        });
        if state == Some(wanted) { Ok(()) } else { Err(format!("session {id} is {state:?}")) }
    }

    /// Waits for what feeds the input. That nobody reads any more is not its fault.
    fn fed(&mut self) -> Verdict<()> {
        match self.feeder.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(why))) if why.starts_with(ErrorKind::BrokenPipe.name()) => Ok(()),
            Some(Ok(Err(why))) => Err(format!("feeding: {why}")),
            Some(Err(_)) => Err("the feeder panicked".to_owned()),
        }
    }

    /// Leaves nothing behind, whatever went wrong.
    fn clean_up(&mut self) {
        if let Some(control) = self.control.take() {
            let late = Instant::now() + scaled(Duration::from_secs(5));
            // Most have ended; then there is nothing to kill.
            let _ = by(late, control.kill());
        }
        self.handle = None;
        self.sink = None;
    }
}

impl End {
    fn of(error: Error) -> End {
        match error {
            Error::ExecFailed(failed) => End::Failed(failed),
            error => End::Error(error.kind(), error.to_string()),
        }
    }
}

fn closed(begun: Instant) -> Outcome {
    Outcome {
        end: End::Closed,
        output: None,
        totals: None,
        truncated: false,
        writer_left: None,
        events: None,
        stdin_errors: 0,
        took: begun.elapsed(),
    }
}

/// What came of a collected call.
fn outcome(result: MicrosandboxResult<ExecOutput>, begun: Instant) -> Outcome {
    let output = match result {
        // That the time ran out is an error of the call, with everything in it.
        Err(Error::ExecTimeout { output, .. }) if output.status().timed_out => *output,
        Ok(output) if output.status().timed_out => {
            let why = "a call that timed out was no error".to_owned();
            return Outcome { end: End::Error(ErrorKind::Internal, why), ..closed(begun) };
        }
        Ok(output) => output,
        Err(error) => return Outcome { end: End::of(error), ..closed(begun) },
    };
    Outcome {
        end: End::Exited(output.status()),
        output: Some((output.stdout_bytes().to_vec(), output.stderr_bytes().to_vec())),
        totals: Some((output.stdout_total(), output.stderr_total())),
        truncated: output.truncated(),
        writer_left: Some(output.writer_left()),
        ..closed(begun)
    }
}

fn fine(result: MicrosandboxResult<()>) -> Verdict<()> {
    result.map_err(|error| format!("{}: {error}", error.kind().name()))
}

fn fails(result: MicrosandboxResult<()>, wanted: &str) -> Verdict<()> {
    match result {
        Err(error) if error.kind().name() == wanted => Ok(()),
        Err(error) => Err(format!("expected {wanted}, got {}: {error}", error.kind().name())),
        Ok(()) => Err(format!("expected {wanted}, got success")),
    }
}
