//! A session: one run of a command, from its start to the last byte that is kept of it.
//!
//! Owns the state that outlives connections: the process, what it put out lately, what waits for
//! its input, who follows it. `pump` moves the bytes, `start` makes the process, `machine` decides
//! when the end is told. Invariant: a follower is never behind while the pump reads on, so nothing
//! that was not sent is ever dropped from the replay.

mod follower;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod kill;
mod machine;
mod pump;
mod replay;
mod start;
mod stdin;

use crate::cgroup::Cgroup;
use crate::connection::Connection;
use crate::resources::Resources;
use crate::sys::{self, Reaped};
use follower::{Follower, Origin, Told};
use msb_wire::limits::{ARGV_SHOWN, MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN};
use msb_wire::{
    Attached, End, Exec, Exited, Message, Refusal, Scope, SendCredit, SessionId, SessionInfo,
    Started, StdinError, TtySize, Verdict, WireError,
};
use replay::Replay;
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stdin::StdinQueue;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

pub(crate) use pump::{Times, run};
pub(crate) use start::{not_admitted, start, unknown_user};

const SIGKILL: i32 = 9;
/// Signals that may wait for a program to be executed.
const SIGNALS_HELD: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) pid: i32,
    tty: bool,
    argv: Vec<Vec<u8>>,
    began: Instant,
    /// Something changed that the pump may be waiting for.
    wake: Notify,
    /// The terminal's master side, while it is open.
    terminal: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    cgroup: RefCell<Option<Cgroup>>,
    resources: Rc<Resources>,
    timed_out: Cell<bool>,
    /// Whether a larger pipe was asked for.
    wide: Cell<bool>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    running: bool,
    reaped: Option<(Reaped, Instant)>,
    held_signals: Vec<(i32, Scope)>,
    stdin: StdinQueue,
    stdin_error: Option<i32>,
    replay: Replay,
    /// How it ended, and up to which position its own output goes.
    exited: Option<(Exited, u64)>,
    end: Option<End>,
    followers: Vec<Follower>,
}

impl Session {
    fn new(
        exec: &Exec,
        pid: i32,
        cgroup: Option<Cgroup>,
        resources: Rc<Resources>,
        began: Instant,
    ) -> Session {
        let argv = shown(exec);
        Session {
            id: exec.session,
            pid,
            tty: exec.tty.is_some(),
            argv,
            began,
            wake: Notify::new(),
            terminal: RefCell::new(None),
            cgroup: RefCell::new(cgroup),
            resources,
            timed_out: Cell::new(false),
            wide: Cell::new(false),
            state: RefCell::new(State {
                running: false,
                reaped: None,
                held_signals: Vec::new(),
                stdin: StdinQueue::new(exec.stdin, exec.tty.is_some()),
                stdin_error: None,
                replay: Replay::new(),
                exited: None,
                end: None,
                followers: Vec::new(),
            }),
        }
    }

    /// Adds the channel that started the session. What comes first is told by the pump.
    pub(crate) fn follow_from_start(&self, connection: &Rc<Connection>, channel: u32, window: u64) {
        let credit = SendCredit::new(window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX));
        let follower = Follower::new(Rc::clone(connection), channel, Origin::Exec, 0, credit);
        self.state.borrow_mut().followers.push(follower);
    }

    /// Adds a channel that joins later, from a position, or from now on. Before the program runs it
    /// is told nothing: it may still turn out that it cannot.
    pub(crate) fn follow(
        &self,
        connection: &Rc<Connection>,
        channel: u32,
        from: Option<u64>,
        window: u64,
    ) {
        let mut state = self.state.borrow_mut();
        let end = state.replay.end();
        let wanted = from.unwrap_or(end).min(end);
        let cursor = wanted.max(state.replay.start());
        let credit = SendCredit::new(window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX));
        let connection = Rc::clone(connection);
        let follower = Follower::new(connection, channel, Origin::Attach, cursor, credit);
        if state.running {
            follower.send(self.attached(&state, cursor, cursor - wanted));
        }
        state.followers.push(follower);
        drop(state);
        self.poke();
    }

    fn attached(&self, state: &State, from: u64, missed: u64) -> Message {
        Message::Attached(Attached {
            pid: u32::try_from(self.pid).unwrap_or(0),
            from,
            missed,
            stdin_open: state.stdin.accepts(),
            tty: self.tty,
        })
    }

    /// Removes a channel: it was closed, or its connection was lost.
    pub(crate) fn unfollow(&self, connection: u64, channel: u32) {
        self.state.borrow_mut().followers.retain(|follower| !follower.is(connection, channel));
        self.poke();
    }

    /// Lets whoever waits for a change look again.
    pub(crate) fn poke(&self) {
        self.wake.notify_one();
        // After the end there is no pump any more, only late readers of what is kept.
        if self.state.borrow().end.is_some() {
            self.tell();
        }
    }

    /// A grant of credit for output.
    pub(crate) fn credit(&self, connection: u64, channel: u32, limit: u64) {
        if let Some(follower) = self
            .state
            .borrow_mut()
            .followers
            .iter_mut()
            .find(|follower| follower.is(connection, channel))
        {
            follower.credit.raise(limit);
        }
        self.poke();
    }

    /// Bytes for standard input.
    pub(crate) fn stdin(
        &self,
        connection: u64,
        channel: u32,
        data: bytes::Bytes,
    ) -> Result<(), WireError> {
        let mut state = self.state.borrow_mut();
        let State { stdin, followers, .. } = &mut *state;
        let Some(follower) = followers.iter_mut().find(|follower| follower.is(connection, channel))
        else {
            return Ok(());
        };
        follower.stdin.receive(data.len())?;
        if !data.is_empty() && !stdin.push(connection, channel, &data) {
            follower.give_back_stdin(data.len());
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// The end of standard input.
    pub(crate) fn stdin_eof(&self) {
        self.state.borrow_mut().stdin.finish();
        self.wake.notify_one();
    }

    /// The process has ended. True when this was news.
    pub(crate) fn child_ended(&self, reaped: &Reaped) {
        self.state.borrow_mut().reaped = Some((*reaped, Instant::now()));
        self.wake.notify_one();
    }

    /// Whether the process is known to have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().reaped.is_some()
    }

    /// Signals the session's processes.
    pub(crate) fn signal(&self, signal: i32, scope: Scope) -> Verdict {
        let mut state = self.state.borrow_mut();
        if !state.running && state.reaped.is_none() {
            // Between fork and exec there is no process group yet that a signal could go to.
            if state.held_signals.len() >= SIGNALS_HELD {
                return refuse(Refusal::TooMany, 0, "too many signals before the start");
            }
            state.held_signals.push((signal, scope));
            drop(state);
            if signal == SIGKILL {
                self.kill_before_exec();
            }
            return Verdict::default();
        }
        drop(state);
        self.send_signal(signal, scope)
    }

    /// Kills a process that may never come to executing its program. What the program started, if it
    /// did after all, is killed when that is known.
    fn kill_before_exec(&self) {
        if !self.is_over() {
            let _ = sys::kill_process(self.pid, SIGKILL);
        }
    }

    /// Kills everything that the session started.
    fn kill_everything(&self) {
        // What has ended by itself needs no signal.
        let _ = self.send_signal(SIGKILL, Scope::Everything);
    }

    fn send_signal(&self, signal: i32, scope: Scope) -> Verdict {
        let cgroup = self.cgroup.borrow();
        let target = kill::Target {
            pid: self.pid,
            reaped: self.is_over(),
            cgroup: cgroup.as_ref(),
            resources: &self.resources,
        };
        kill::send(target, signal, scope)
    }

    /// Changes the terminal's size.
    pub(crate) fn resize(&self, size: TtySize) -> Verdict {
        if !self.tty {
            return refuse(Refusal::NotATerminal, 0, "the session has no terminal");
        }
        if size.rows == 0 || size.cols == 0 {
            return refuse(Refusal::Invalid, 0, "a terminal has at least one row and one column");
        }
        match &*self.terminal.borrow() {
            Some(terminal) => match start::set_size(terminal.get_ref(), size) {
                Ok(()) => Verdict::default(),
                Err(errno) => refuse(Refusal::System, errno, "the terminal refused the size"),
            },
            None => refuse(Refusal::NoSuchProcess, 0, "the session has ended"),
        }
    }

    /// The session in a list.
    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state.borrow();
        SessionInfo {
            session: self.id,
            pid: u32::try_from(self.pid).unwrap_or(0),
            argv: self.argv.iter().map(|argument| argument.clone().into()).collect(),
            tty: self.tty,
            exited: state.exited.as_ref().map(|(exited, _)| exited.clone()),
            age_ns: nanos(self.began.elapsed()),
            total: state.replay.end(),
            followers: u32::try_from(state.followers.len()).unwrap_or(u32::MAX),
        }
    }

    /// Bytes of output that are kept.
    pub(crate) fn kept(&self) -> usize {
        self.state.borrow().replay.len()
    }

    /// Drops the output that is kept, if nobody is reading it.
    pub(crate) fn forget_output(&self) {
        let mut state = self.state.borrow_mut();
        if state.followers.is_empty() {
            state.replay.forget();
        }
    }

    /// Drops the cgroup if nothing is left in it. True when there is none any more.
    pub(crate) fn release_cgroup(&self) -> bool {
        let mut cgroup = self.cgroup.borrow_mut();
        if cgroup.as_ref().is_some_and(Cgroup::remove_if_empty) {
            *cgroup = None;
        }
        cgroup.is_none()
    }

    /// Whether no process is left in the cgroup, which is there all the same.
    pub(crate) fn cgroup_is_emptying(&self) -> bool {
        let cgroup = self.cgroup.borrow();
        cgroup.as_ref().is_some_and(|cgroup| cgroup.members().is_ok_and(|list| list.is_empty()))
    }

    /// The program runs: tells so, and sends the signals that waited for it.
    fn begun(&self) {
        let mut state = self.state.borrow_mut();
        state.running = true;
        let pid = u32::try_from(self.pid).unwrap_or(0);
        for follower in &state.followers {
            follower.send(match follower.origin {
                Origin::Exec => Message::Started(Started { pid }),
                Origin::Attach => self.attached(&state, 0, 0),
            });
        }
        let held = std::mem::take(&mut state.held_signals);
        drop(state);
        for (signal, scope) in held {
            // The one who sent it was told that it would be; if the process is gone, so is the aim.
            let _ = self.signal(signal, scope);
        }
    }

    /// The program could not be run: tells so, and that was all.
    pub(crate) fn never_ran(&self, failure: &msb_wire::Failure) {
        for follower in self.state.borrow_mut().followers.drain(..) {
            follower.send(Message::Failed(failure.clone()));
            follower.done();
        }
    }

    /// How many bytes may be read from the process now: 0 while a follower is behind.
    fn allowance(&self) -> usize {
        let state = self.state.borrow();
        let end = state.replay.end();
        state.followers.iter().map(|follower| follower.room(end)).min().unwrap_or(MAX_DATA)
    }

    /// Hands on what was read. Every follower has room for it: see `allowance`.
    fn deliver(&self, stream: msb_wire::OutputStream, data: &bytes::Bytes) {
        let mut state = self.state.borrow_mut();
        state.replay.push(stream, data);
        for follower in &mut state.followers {
            follower.send_data(stream, data.clone());
        }
    }

    /// Sends every follower what it lacks, as far as its credit goes.
    fn tell(&self) {
        let mut state = self.state.borrow_mut();
        let State { replay, exited, end, followers, .. } = &mut *state;
        followers.retain_mut(|follower| {
            follower.catch_up(replay, exited.as_ref(), end.as_ref()) == Told::Part
        });
    }

    /// Takes the first error of standard input, and tells it once.
    fn stdin_failed(&self, errno: i32) {
        let mut state = self.state.borrow_mut();
        let State { stdin, stdin_error, followers, .. } = &mut *state;
        for (connection, channel, len) in stdin.give_up() {
            if let Some(follower) = followers.iter_mut().find(|f| f.is(connection, channel)) {
                follower.give_back_stdin(len);
            }
        }
        if stdin_error.replace(errno).is_none() {
            for follower in followers.iter() {
                follower.send(Message::StdinError(StdinError { errno }));
            }
        }
    }

    fn set_exited(&self, reaped: &Reaped, at: Instant) {
        let mut state = self.state.borrow_mut();
        let signal = reaped.signal.and_then(|signal| u8::try_from(signal).ok());
        let exited = Exited {
            code: reaped.code.unwrap_or(-1),
            signal,
            core_dumped: reaped.core_dumped,
            // If it ended by itself in the last moment, that is what happened.
            timed_out: self.timed_out.get() && signal == Some(9),
            user_ns: nanos(reaped.user),
            system_ns: nanos(reaped.system),
            max_rss: reaped.max_rss,
            wall_ns: nanos(at.saturating_duration_since(self.began)),
        };
        let position = state.replay.end();
        state.exited = Some((exited, position));
    }

    fn set_end(&self, writer_left: bool) {
        let mut state = self.state.borrow_mut();
        let total = state.replay.end();
        state.end = Some(End { writer_left, total });
        state.stdin.finish();
        self.terminal.replace(None);
    }
}

/// Arguments as lists and announcements show them: cut.
pub(crate) fn shown(exec: &Exec) -> Vec<Vec<u8>> {
    let mut length = 0;
    let arguments = exec.argv.iter().map(|argument| argument.to_vec());
    let short = arguments.take_while(|argument| {
        length += argument.len() + 1;
        length <= ARGV_SHOWN
    });
    short.collect()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A refusal with its reason.
pub(crate) fn refuse(refusal: Refusal, errno: i32, message: &str) -> Verdict {
    Verdict { refusal: Some(refusal), errno, message: message.to_owned() }
}
