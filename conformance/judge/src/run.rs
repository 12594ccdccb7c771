//! One run of a case: the call, its steps, and its outcome.

use crate::bytes::{OWN_PATH, find, show};
use crate::command::command;
use crate::format::{Bytes, Call, Case, Listed, Match, Mode, Run, Stdin, Step};
use crate::outcome::{self, End, Outcome};
use crate::protocol::{Cannot, Done, Exited, Request};
use crate::received::Received;
use crate::testee::{Answer, Testee};
use crate::time::scaled;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// The time limit of a case.
const LIMIT: Duration = Duration::from_secs(30);

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) enum Problem {
    Wrong(String),
    /// The language cannot express it.
    Cannot(Cannot),
}

impl From<String> for Problem {
    fn from(why: String) -> Self {
        Problem::Wrong(why)
    }
}

impl From<&str> for Problem {
    fn from(why: &str) -> Self {
        Problem::Wrong(why.to_owned())
    }
}

type Verdict<T> = Result<T, Problem>;

/// Runs a case once.
pub(crate) fn once(case: &Case, testee: &Testee, sandbox: u64, own_path: &str) -> Verdict<()> {
    let deadline = Instant::now() + scaled(LIMIT);
    thread::scope(|scope| {
        let (execs, received) = (Vec::new(), Received::default());
        let (exec, sink, input_closed, feeder) = (None, false, false, None);
        let state = State { exec, execs, sink, input_closed, feeder, received };
        let mut running = Running { case, testee, sandbox, own_path, deadline, scope, state };
        let result = running.run_and_compare();
        running.clean_up();
        result
    })
}

/// The resources that a run has created.
struct State<'scope> {
    /// The command of the case.
    exec: Option<Exec>,
    /// All handles to clean up.
    execs: Vec<u64>,
    /// The sink was taken.
    sink: bool,
    input_closed: bool,
    feeder: Option<ScopedJoinHandle<'scope, Result<(), String>>>,
    received: Received,
}

#[derive(Debug, Clone)]
struct Exec {
    id: u64,
    session: String,
    closed: bool,
}

struct Running<'scope, 'env> {
    case: &'env Case,
    testee: &'env Testee,
    sandbox: u64,
    own_path: &'env str,
    deadline: Instant,
    scope: &'scope thread::Scope<'scope, 'env>,
    state: State<'scope>,
}

impl Running<'_, '_> {
    fn run_and_compare(&mut self) -> Verdict<()> {
        if let Some(cannot) = self.testee.cannot(self.case) {
            return Err(Problem::Cannot(cannot));
        }
        self.steps(&self.case.before, "before: ")?;
        let mut outcome = self.run()?;
        if self.case.also_tty && self.case.tty.is_some() {
            outcome::as_if_piped(&mut outcome, self.case.mode);
        }
        self.compare(&outcome)?;
        self.steps(&self.case.after, "afterwards: ")
    }

    fn compare(&self, outcome: &Outcome) -> Verdict<()> {
        let problems = outcome::problems(self.case, outcome, self.own_path, self.testee.is_lossy());
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ").into()) }
    }

    fn run(&mut self) -> Verdict<Outcome> {
        let begun = Instant::now();
        match (self.case.at_once, self.case.mode) {
            (Some(many), _) => return self.at_once(many.get(), begun),
            (None, Mode::Collect) if self.case.steps.is_empty() => {
                let answer = self.ask(self.command("run"))?;
                return self.collected(answer, begun);
            }
            _ => {}
        }
        let answer = self.start()?;
        let id = answer.id;
        let session = match answer.done {
            Done::Started(session) => session,
            _ => return self.collected(answer, begun),
        };
        self.state.exec = Some(Exec { id, session, closed: false });
        self.steps(&self.case.steps, "")?;
        let outcome = if self.exec()?.closed {
            Outcome::new(End::Closed, begun)
        } else {
            match self.case.mode {
                Mode::Collect => {
                    let answer = self.ask(Request::of("collect", "exec", id))?;
                    self.collected(answer, begun)?
                }
                Mode::Wait => self.waited(id, begun)?,
                Mode::Stream => self.streamed(id, begun)?,
            }
        };
        self.join_feeder()?;
        Ok(outcome)
    }

    /// Starts many commands at once and compares each outcome.
    fn at_once(&mut self, many: u32, begun: Instant) -> Verdict<Outcome> {
        let started: Vec<_> = (0..many).map(|_| self.start()).collect::<Verdict<_>>()?;
        let mut last = None;
        for answer in started {
            let answer = match answer.done {
                Done::Started(_) => self.ask(Request::of("collect", "exec", answer.id))?,
                _ => answer,
            };
            let outcome = self.collected(answer, begun)?;
            self.compare(&outcome)
                .map_err(|problem| prefixed(&format!("one of {many}: "), problem))?;
            last = Some(outcome);
        }
        last.ok_or("none was started".into())
    }

    fn start(&mut self) -> Verdict<Answer> {
        let answer = self.ask(self.command("start"))?;
        if matches!(answer.done, Done::Started(_)) {
            self.state.execs.push(answer.id);
        }
        Ok(answer)
    }

    fn command(&self, action: &str) -> Request {
        command(action, self.sandbox, self.case, self.own_path)
    }

    fn ask(&mut self, request: Request) -> Verdict<Answer> {
        let received = &mut self.state.received;
        let answer = self.testee.ask(request, self.deadline, |kind, data| {
            received.take(kind, &data);
            Ok(())
        });
        Ok(answer.map_err(|why| format!("{why} after {}", self.state.received.summary()))?)
    }

    /// Sends a request that must succeed.
    fn succeeds(&mut self, request: Request) -> Verdict<()> {
        let answer = self.ask(request)?;
        if matches!(answer.done, Done::Ok) { Ok(()) } else { Err(answer.describe().into()) }
    }

    /// Sends a request that must fail with this kind.
    fn fails(&mut self, request: Request, wanted: &str) -> Verdict<()> {
        let answer = self.ask(request)?;
        match &answer.done {
            Done::Error { kind, .. } if kind == wanted => Ok(()),
            _ => Err(format!("expected {wanted}, got {}", answer.describe()).into()),
        }
    }

    fn exec(&self) -> Verdict<&Exec> {
        self.state.exec.as_ref().ok_or("nothing was started".into())
    }

    /// Creates a request about the case's own handle.
    fn own(&self, action: &str) -> Verdict<Request> {
        match self.exec()? {
            Exec { closed: true, .. } => Err("the handle is closed".into()),
            Exec { id, .. } => Ok(Request::of(action, "exec", *id)),
        }
    }

    fn collected(&self, answer: Answer, begun: Instant) -> Verdict<Outcome> {
        let (exited, output) = match answer.done {
            Done::Collected(exited, output) => (exited, output),
            Done::Exited(_) => return Err("a collected call without an output".into()),
            done => return Ok(Outcome::new(end_of(done)?, begun)),
        };
        let (timed_out, raised) = (exited.timed_out, output.raised);
        // A timeout is an error of the call, except in C.
        if raised != (timed_out && !self.testee.is_bare()) {
            return Err(format!("the call failed: {raised}, its time ran out: {timed_out}").into());
        }
        Ok(Outcome {
            output: Some((output.stdout.0, output.stderr.0)),
            totals: Some((output.stdout_total, output.stderr_total)),
            truncated: output.truncated,
            writer_left: Some(output.writer_left),
            ..Outcome::new(End::Exited(exited), begun)
        })
    }

    fn waited(&mut self, exec: u64, begun: Instant) -> Verdict<Outcome> {
        let first = self.ask(Request::of("wait", "exec", exec))?;
        let outcome = Outcome::new(end_of(first.done)?, begun);
        let second = self.ask(Request::of("wait", "exec", exec))?;
        match end_of(second.done)? {
            second if second == outcome.end => Ok(outcome),
            second => Err(format!("a second wait said {second:?} after {:?}", outcome.end).into()),
        }
    }

    fn streamed(&mut self, exec: u64, begun: Instant) -> Verdict<Outcome> {
        self.receive("end", Received::ended)?;
        let took = self.state.received.exited.map_or_else(|| begun.elapsed(), |at| at - begun);
        let count = self.state.received.events.len();
        for _ in 0..2 {
            self.succeeds(self.own("recv")?.with("until", "any"))?;
        }
        if let Some(event) = self.state.received.events.get(count) {
            return Err(format!("{event:?} came after the end").into());
        }
        let end = end_of(self.ask(Request::of("wait", "exec", exec))?.done)?;
        let mut writer_left = None;
        if matches!(end, End::Exited(_)) {
            let answer = self.ask(Request::of("collect", "exec", exec))?;
            let Done::Collected(_, output) = &answer.done else {
                return Err(format!("collect after the end: {}", answer.describe()).into());
            };
            writer_left = Some(output.writer_left);
        }
        let Received { events, stdout, stderr, stdin_errors, .. } =
            std::mem::take(&mut self.state.received);
        let (events, output) = (Some(events), Some((stdout, stderr)));
        let outcome = Outcome::new(end, begun);
        Ok(Outcome { output, writer_left, events, stdin_errors, took, ..outcome })
    }

    /// Receives events, up to one of a kind each time, until a condition holds.
    fn receive(&mut self, until: &str, so: impl Fn(&Received) -> bool) -> Verdict<()> {
        while !so(&self.state.received) {
            if self.state.received.ended() {
                return Err(format!("the end came first: {}", self.state.received.summary()).into());
            }
            self.succeeds(self.own("recv")?.with("until", until))?;
        }
        Ok(())
    }

    fn wait_text(&mut self, at: usize, text: &[u8]) -> Verdict<()> {
        let found = |received: &Received| {
            let rest = received.output(at).get(*received.looked.get(at)?..)?;
            find(rest, text)
        };
        self.receive("any", |received| found(received).is_some())
            .map_err(|problem| prefixed(&format!("waiting for {}: ", show(text)), problem))?;
        let end = found(&self.state.received).unwrap_or_default() + text.len();
        if let Some(looked) = self.state.received.looked.get_mut(at) {
            *looked += end;
        }
        Ok(())
    }

    fn steps(&mut self, steps: &[Step], place: &str) -> Verdict<()> {
        for (number, step) in steps.iter().enumerate() {
            self.step(step)
                .map_err(|problem| prefixed(&format!("{place}step {}: ", number + 1), problem))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Verdict<()> {
        let value = |bytes: &Bytes| bytes.value(self.own_path);
        match step {
            Step::Wait(kind) => {
                self.receive(kind.name(), |received| received.events.contains(kind))
            }
            Step::WaitStdout(text) => self.wait_text(0, &value(text)),
            Step::WaitStderr(text) => self.wait_text(1, &value(text)),
            Step::WaitExit => {
                let answer = self.ask(self.own("wait")?)?;
                let exited = matches!(answer.done, Done::Exited(_));
                if exited { Ok(()) } else { Err(answer.describe().into()) }
            }
            Step::Write(data) => {
                let data = value(data);
                let request = self.input("write")?;
                self.succeeds(request.bytes("data", data))
            }
            Step::WriteFails { data, error } => self.write_fails(value(data), error),
            Step::Feed(data) => self.feed(value(data)),
            Step::CloseStdin => {
                let request = self.input("close_stdin")?;
                // In C, a closed handle is invalid.
                if std::mem::replace(&mut self.state.input_closed, true) && self.testee.is_bare() {
                    return self.fails(request, "closed");
                }
                self.succeeds(request)
            }
            Step::NoSink => match self.take_stdin()? {
                false => Ok(()),
                true => Err("there is a writing end".into()),
            },
            Step::Signal(signal) => self.control("signal", |r| r.with("signal", *signal), None),
            Step::SignalFails { signal, error } => {
                self.control("signal", |r| r.with("signal", *signal), Some(error))
            }
            Step::Kill => self.control("kill", |request| request, None),
            Step::KillFails(error) => self.control("kill", |request| request, Some(error)),
            Step::Resize(rows, cols) => self.succeeds(size(self.own("resize")?, *rows, *cols)),
            Step::ResizeFails { rows, cols, error } => {
                self.fails(size(self.own("resize")?, *rows, *cols), error)
            }
            Step::GiveUp { on, times } => self.give_up(*on, times.get()),
            Step::Close => {
                // The sink is taken first: closing the handle would close it.
                if matches!(self.case.stdin, Stdin::Pipe) {
                    self.input("")?;
                }
                self.succeeds(self.own("close")?)?;
                self.state.exec.iter_mut().for_each(|exec| exec.closed = true);
                Ok(())
            }
            Step::Run(run) => self.run_beside(run),
            Step::Until(condition) => {
                let script = format!("until {condition}; do usleep 10000; done");
                self.run_beside(&Run { script, stdout: Some(Match::All(Default::default())) })
            }
            Step::Listed(wanted) => {
                let wanted = match wanted {
                    Listed::Running => "running",
                    Listed::Ended => "ended",
                };
                let session = self.exec()?.session.clone();
                let request = Request::of("listed", "sandbox", self.sandbox);
                let answer = self.ask(request.with("session", session))?;
                match &answer.done {
                    Done::State(state) if state == wanted => Ok(()),
                    _ => Err(format!("expected {wanted}, got {}", answer.describe()).into()),
                }
            }
        }
    }

    /// Creates a request about the sink, which is taken first.
    fn input(&mut self, action: &str) -> Verdict<Request> {
        if !self.state.sink {
            self.state.sink = self.take_stdin()?;
        }
        match self.state.sink {
            true => Ok(Request::of(action, "exec", self.exec()?.id)),
            false => Err("there is no writing end".into()),
        }
    }

    fn take_stdin(&mut self) -> Verdict<bool> {
        let answer = self.ask(self.own("take_stdin")?)?;
        match answer.done {
            Done::Yes(there) => Ok(there),
            _ => Err(answer.describe().into()),
        }
    }

    fn write_fails(&mut self, data: Vec<u8>, wanted: &str) -> Verdict<()> {
        let request = self.input("write")?.bytes("data", data);
        loop {
            let answer = self.ask(request.clone())?;
            match &answer.done {
                Done::Ok => {}
                Done::Error { kind, .. } if kind == wanted => return Ok(()),
                _ => return Err(format!("expected {wanted}, got {}", answer.describe()).into()),
            }
        }
    }

    /// Writes and closes while the case continues.
    fn feed(&mut self, data: Vec<u8>) -> Verdict<()> {
        let requests = [self.input("write")?.bytes("data", data), self.input("close_stdin")?];
        let (testee, deadline) = (self.testee, self.deadline);
        self.state.feeder = Some(self.scope.spawn(move || {
            for request in requests {
                let answer = testee.ask(request, deadline, |_, _| Err("an event".to_owned()))?;
                match &answer.done {
                    Done::Ok => {}
                    // That the command no longer reads is not an error of the feeder.
                    Done::Error { kind, .. } if kind == "broken_pipe" => {}
                    _ => return Err(answer.describe()),
                }
            }
            Ok(())
        }));
        Ok(())
    }

    fn join_feeder(&mut self) -> Verdict<()> {
        match self.state.feeder.take().map(ScopedJoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(why))) => Err(format!("feeding: {why}").into()),
            Some(Err(_)) => Err("the feeder panicked".into()),
        }
    }

    /// Signals the command; uses another handle of the session if the case's own is closed.
    fn control(
        &mut self,
        action: &str,
        fill: impl Fn(Request) -> Request,
        error: Option<&str>,
    ) -> Verdict<()> {
        let Exec { mut id, session, closed } = self.exec()?.clone();
        if closed {
            let request = Request::of("reattach", "sandbox", self.sandbox);
            let answer = self.ask(request.with("session", session))?;
            match (&answer.done, error) {
                (Done::Started(_), _) => id = answer.id,
                (Done::Error { kind, .. }, Some(wanted)) if kind == wanted => return Ok(()),
                _ => return Err(answer.describe().into()),
            }
            self.state.execs.push(id);
        }
        let request = fill(Request::of(action, "exec", id));
        match error {
            Some(wanted) => self.fails(request, wanted),
            None => self.succeeds(request),
        }
    }

    /// Starts and cancels a call, repeatedly.
    fn give_up(&mut self, call: Call, times: u32) -> Verdict<()> {
        let on = match call {
            Call::Recv => "recv",
            Call::Wait => "wait",
            Call::Collect => "collect",
        };
        let answer = self.ask(self.own("give_up")?.with("on", on).with("times", times))?;
        match answer.done {
            Done::Yes(true) if call == Call::Collect => {
                Err("it ended while collecting was given up".into())
            }
            Done::Yes(_) => Ok(()),
            _ => Err(answer.describe().into()),
        }
    }

    /// Runs another command besides the case's own.
    fn run_beside(&mut self, run: &Run) -> Verdict<()> {
        let script = run.script.replace(OWN_PATH, self.own_path);
        let request = Request::of("run", "sandbox", self.sandbox);
        let answer = self
            .ask(request.bytes("script", script.clone().into_bytes()))
            .map_err(|problem| prefixed(&format!("{script}: "), problem))?;
        let Done::Collected(Exited { code: 0, signal: 0, .. }, output) = &answer.done else {
            return Err(format!("{script}: {}", answer.describe()).into());
        };
        let nothing = Match::Exact(Bytes::Plain(String::new()));
        let wanted = run.stdout.as_ref().unwrap_or(&nothing);
        match wanted.problem(&output.stdout.0, self.own_path) {
            Some(why) => Err(format!("{script}: {why}").into()),
            None => Ok(()),
        }
    }

    /// Kills and forgets what was started. Most commands have ended; that is ignored.
    fn clean_up(&mut self) {
        self.deadline = Instant::now() + scaled(Duration::from_secs(5));
        if self.state.exec.as_ref().is_some_and(|exec| exec.closed) {
            let _ = self.control("kill", |request| request, None);
        }
        for exec in std::mem::take(&mut self.state.execs) {
            let _ = self.ask(Request::of("kill", "exec", exec));
            let _ = self.ask(Request::of("forget", "exec", exec));
        }
    }
}

fn end_of(done: Done) -> Verdict<End> {
    match done {
        Done::Exited(exited) => Ok(End::Exited(exited)),
        Done::Failed(failed) => Ok(End::Failed(failed)),
        Done::Error { kind, message } => Ok(End::Error { kind, message }),
        done => Err(format!("no end of a command: {done:?}").into()),
    }
}

fn size(request: Request, rows: u16, cols: u16) -> Request {
    request.with("rows", rows).with("cols", cols)
}

fn prefixed(place: &str, problem: Problem) -> Problem {
    match problem {
        Problem::Wrong(why) => Problem::Wrong(format!("{place}{why}")),
        Problem::Cannot(cannot) => Problem::Cannot(cannot),
    }
}
