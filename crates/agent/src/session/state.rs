//! The state of a session, shared by its pump and the clients that use it.

use super::follower::{Delivery, Follower, Origin};
use super::kill;
use super::replay::Replay;
use super::stdin::StdinQueue;
use super::streams::set_size;
use crate::cgroup::Cgroup;
use crate::connection::{Channel, ChannelId};
use crate::resources::Resources;
use crate::sys::{self, Reaped};
use bytes::Bytes;
use msb_wire::limits::{ARGV_SHOWN, MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN};
use msb_wire::{
    Attached, End, Exec, Exited, Failure, Message, OutputStream, Refusal, Scope, SendCredit,
    SessionId, SessionInfo, Started, StdinError, TtySize, Verdict, WireError,
};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

const SIGKILL: i32 = 9;
/// Signals that may wait until the program is executed (a count).
const PENDING_SIGNALS: usize = 64;

/// One run of a command.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) pid: i32,
    pub(super) tty: bool,
    argv: Vec<Vec<u8>>,
    started_at: Instant,
    /// Signalled when something changes that the pump waits for.
    pub(super) notify: Notify,
    /// The terminal's master side, while it is open.
    pub(super) terminal: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    cgroup: RefCell<Option<Cgroup>>,
    pub(super) resources: Rc<Resources>,
    pub(super) timed_out: Cell<bool>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    is_running: bool,
    reaped: Option<(Reaped, Instant)>,
    pending_signals: Vec<(i32, Scope)>,
    stdin: StdinQueue,
    stdin_error: Option<i32>,
    replay: Replay,
    /// How the process exited, and the position at which its own output ends.
    exited: Option<(Exited, u64)>,
    end: Option<End>,
    followers: Vec<Follower>,
}

impl State {
    fn follower(&mut self, channel: ChannelId) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.id() == channel)
    }
}

impl Session {
    pub(crate) fn new(
        exec: &Exec,
        pid: i32,
        cgroup: Option<Cgroup>,
        resources: Rc<Resources>,
        started_at: Instant,
    ) -> Session {
        let argv = shown_argv(exec);
        Session {
            id: exec.session,
            pid,
            tty: exec.tty.is_some(),
            argv,
            started_at,
            notify: Notify::new(),
            terminal: RefCell::new(None),
            cgroup: RefCell::new(cgroup),
            resources,
            timed_out: Cell::new(false),
            state: RefCell::new(State {
                is_running: false,
                reaped: None,
                pending_signals: Vec::new(),
                stdin: StdinQueue::new(exec.stdin, exec.tty.is_some()),
                stdin_error: None,
                replay: Replay::new(),
                exited: None,
                end: None,
                followers: Vec::new(),
            }),
        }
    }

    /// Adds a channel that follows the session from its start.
    pub(crate) fn follow_from_start(&self, channel: Channel, window: u64) {
        let follower = Follower::new(channel, Origin::Exec, 0, output_credit(window));
        self.state.borrow_mut().followers.push(follower);
    }

    /// Adds a channel that attaches at a position, or at the current one. Before the program runs
    /// the channel gets no message: the start may still fail.
    pub(crate) fn follow(&self, channel: Channel, from: Option<u64>, window: u64) {
        let mut state = self.state.borrow_mut();
        let end = state.replay.end();
        let wanted = from.unwrap_or(end).min(end);
        let cursor = wanted.max(state.replay.start());
        let follower = Follower::new(channel, Origin::Attach, cursor, output_credit(window));
        if state.is_running {
            follower.send(self.attached(&state, cursor, cursor - wanted));
        }
        state.followers.push(follower);
        drop(state);
        self.wake();
    }

    fn attached(&self, state: &State, from: u64, missed: u64) -> Message {
        Message::Attached(Attached {
            pid: u32::try_from(self.pid).unwrap_or(0),
            from,
            missed,
            stdin_open: state.stdin.is_open(),
            tty: self.tty,
        })
    }

    /// Removes a channel that was closed or whose connection was lost.
    pub(crate) fn unfollow(&self, channel: ChannelId) {
        self.state.borrow_mut().followers.retain(|follower| follower.id() != channel);
        self.wake();
    }

    /// Wakes the pump after a change. Once the pump has ended, updates the followers itself.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
        if self.state.borrow().end.is_some() {
            self.update_followers();
        }
    }

    /// Raises a channel's credit for output.
    pub(crate) fn grant(&self, channel: ChannelId, limit: u64) {
        if let Some(follower) = self.state.borrow_mut().follower(channel) {
            follower.grant(limit);
        }
        self.wake();
    }

    /// Queues bytes for standard input.
    pub(crate) fn write_stdin(&self, channel: ChannelId, data: &Bytes) -> Result<(), WireError> {
        let mut state = self.state.borrow_mut();
        let Some(follower) = state.follower(channel) else { return Ok(()) };
        follower.receive_stdin(data.len())?;
        if !data.is_empty() && !state.stdin.push(channel, data) {
            release_stdin(&mut state, channel, data.len());
        }
        drop(state);
        self.notify.notify_one();
        Ok(())
    }

    /// Ends standard input once everything queued is written.
    pub(crate) fn close_stdin(&self) {
        self.state.borrow_mut().stdin.close();
        self.notify.notify_one();
    }

    /// Records that the process has exited.
    pub(crate) fn process_exited(&self, reaped: &Reaped) {
        self.state.borrow_mut().reaped = Some((*reaped, Instant::now()));
        self.notify.notify_one();
    }

    /// Returns how and when the process exited.
    pub(super) fn reaped(&self) -> Option<(Reaped, Instant)> {
        self.state.borrow().reaped
    }

    /// Signals the session's processes.
    pub(crate) fn signal(&self, signal: i32, scope: Scope) -> Verdict {
        let mut state = self.state.borrow_mut();
        if !state.is_running && state.reaped.is_none() {
            // Between fork and exec the process group does not exist yet.
            if state.pending_signals.len() >= PENDING_SIGNALS {
                return Verdict::refused(Refusal::TooMany, 0, "too many signals before the start");
            }
            state.pending_signals.push((signal, scope));
            drop(state);
            if signal == SIGKILL {
                self.kill_before_exec();
            }
            return Verdict::default();
        }
        drop(state);
        self.send_signal(signal, scope)
    }

    /// Signals the session's process alone. Before its exec it is the only one.
    pub(crate) fn signal_process(&self, signal: i32) {
        let (is_running, has_exited) = {
            let state = self.state.borrow();
            (state.is_running, state.reaped.is_some())
        };
        // Refused only if it has exited, or if the signal does not exist.
        if is_running && !has_exited {
            let _ = sys::kill_process(self.pid, signal);
        } else {
            let _ = self.signal(signal, Scope::Group);
        }
    }

    /// Kills a process that may never reach its exec. If the program starts all the same, the pump
    /// kills what it has started.
    pub(super) fn kill_before_exec(&self) {
        if self.reaped().is_none() {
            let _ = sys::kill_process(self.pid, SIGKILL);
        }
    }

    /// Kills everything that the session started.
    pub(super) fn kill_everything(&self) {
        // Refused only if no process is left.
        let _ = self.send_signal(SIGKILL, Scope::Everything);
    }

    fn send_signal(&self, signal: i32, scope: Scope) -> Verdict {
        let cgroup = self.cgroup.borrow();
        let target = kill::Target {
            pid: self.pid,
            has_exited: self.reaped().is_some(),
            cgroup: cgroup.as_ref(),
            resources: &self.resources,
        };
        kill::send(target, signal, scope)
    }

    /// Changes the terminal's size.
    pub(crate) fn resize(&self, size: TtySize) -> Verdict {
        let refused = Verdict::refused;
        if !self.tty {
            return refused(Refusal::NotATerminal, 0, "the session has no terminal");
        }
        if size.rows == 0 || size.cols == 0 {
            let why = "a terminal has at least one row and one column";
            return refused(Refusal::Invalid, 0, why);
        }
        match &*self.terminal.borrow() {
            Some(terminal) => match set_size(terminal.get_ref(), size) {
                Ok(()) => {
                    self.resources.announce_resize(self.pid);
                    Verdict::default()
                }
                Err(errno) => refused(Refusal::System, errno, "the terminal refused the size"),
            },
            None => refused(Refusal::NoSuchProcess, 0, "the session has ended"),
        }
    }

    /// Returns the session's entry in a list.
    pub(crate) fn info(&self) -> SessionInfo {
        let state = self.state.borrow();
        SessionInfo {
            session: self.id,
            pid: u32::try_from(self.pid).unwrap_or(0),
            argv: self.argv.iter().map(|argument| argument.clone().into()).collect(),
            tty: self.tty,
            exited: state.exited.as_ref().map(|(exited, _)| exited.clone()),
            age_ns: nanos(self.started_at.elapsed()),
            total: state.replay.end(),
            followers: u32::try_from(state.followers.len()).unwrap_or(u32::MAX),
        }
    }

    /// Returns how many bytes of output are kept.
    pub(crate) fn replay_len(&self) -> usize {
        self.state.borrow().replay.len()
    }

    /// Drops the kept output, unless a follower reads it.
    pub(crate) fn drop_replay(&self) {
        let mut state = self.state.borrow_mut();
        if state.followers.is_empty() {
            state.replay.clear();
        }
    }

    /// Removes the cgroup if it is empty. Returns whether it was removed.
    pub(crate) fn release_cgroup(&self) -> bool {
        let mut cgroup = self.cgroup.borrow_mut();
        if cgroup.as_ref().is_some_and(Cgroup::remove_if_empty) {
            *cgroup = None;
        }
        cgroup.is_none()
    }

    /// Returns whether the cgroup exists and has no process.
    pub(crate) fn cgroup_has_no_members(&self) -> bool {
        let cgroup = self.cgroup.borrow();
        cgroup.as_ref().is_some_and(|cgroup| cgroup.members().is_ok_and(|list| list.is_empty()))
    }

    /// Reports that the program runs, and sends the signals that waited for it.
    pub(crate) fn set_running(&self) {
        let mut state = self.state.borrow_mut();
        state.is_running = true;
        let pid = u32::try_from(self.pid).unwrap_or(0);
        for follower in &state.followers {
            follower.send(match follower.origin {
                Origin::Exec => Message::Started(Started { pid }),
                Origin::Attach => self.attached(&state, 0, 0),
            });
        }
        let pending = std::mem::take(&mut state.pending_signals);
        drop(state);
        for (signal, scope) in pending {
            // The sender has its answer already.
            let _ = self.signal(signal, scope);
        }
    }

    /// Reports that the program could not be executed.
    pub(crate) fn fail(&self, failure: &Failure) {
        for follower in self.state.borrow_mut().followers.drain(..) {
            follower.finish(Message::Failed(failure.clone()));
        }
    }

    /// Returns how many bytes may be read from the process now: 0 while a follower is behind.
    pub(crate) fn allowance(&self) -> usize {
        let state = self.state.borrow();
        let end = state.replay.end();
        state.followers.iter().map(|follower| follower.room(end)).min().unwrap_or(MAX_DATA)
    }

    /// Sends output to all followers and keeps it. Every follower has room for it: see `allowance`.
    pub(crate) fn deliver(&self, stream: OutputStream, data: &Bytes) {
        let mut state = self.state.borrow_mut();
        state.replay.push(stream, data);
        for follower in &mut state.followers {
            follower.send_data(stream, data.clone());
        }
    }

    /// Sends each follower what it lacks, as far as its credit allows.
    pub(crate) fn update_followers(&self) {
        let mut state = self.state.borrow_mut();
        let State { replay, exited, end, followers, .. } = &mut *state;
        followers.retain_mut(|follower| {
            follower.catch_up(replay, exited.as_ref(), end.as_ref()) == Delivery::Partial
        });
    }

    /// Returns the next input to write.
    pub(crate) fn next_stdin(&self) -> Option<Bytes> {
        self.state.borrow().stdin.front()
    }

    /// Records that `count` bytes of [`Session::next_stdin`] were written.
    pub(crate) fn stdin_written(&self, count: usize) {
        let mut state = self.state.borrow_mut();
        if let Some((channel, len)) = state.stdin.written(count) {
            release_stdin(&mut state, channel, len);
        }
    }

    /// Calls a function with the input queue.
    pub(super) fn with_stdin<T>(&self, f: impl FnOnce(&mut StdinQueue) -> T) -> T {
        f(&mut self.state.borrow_mut().stdin)
    }

    /// Drops pending input after an error, and reports the first error.
    pub(crate) fn stdin_failed(&self, errno: i32) {
        let mut state = self.state.borrow_mut();
        for (channel, len) in state.stdin.discard() {
            release_stdin(&mut state, channel, len);
        }
        if state.stdin_error.replace(errno).is_none() {
            for follower in &state.followers {
                follower.send(Message::StdinError(StdinError { errno }));
            }
        }
    }

    /// Sets the exit at the current position.
    pub(crate) fn set_exited(&self, reaped: &Reaped, at: Instant) {
        let mut state = self.state.borrow_mut();
        let signal = reaped.signal.and_then(|signal| u8::try_from(signal).ok());
        let exited = Exited {
            code: reaped.code.unwrap_or(-1),
            signal,
            core_dumped: reaped.core_dumped,
            // A process may exit by itself just before the kill.
            timed_out: self.timed_out.get() && signal == Some(9),
            user_ns: nanos(reaped.user),
            system_ns: nanos(reaped.system),
            max_rss: reaped.max_rss,
            wall_ns: nanos(at.saturating_duration_since(self.started_at)),
        };
        let position = state.replay.end();
        state.exited = Some((exited, position));
    }

    /// Sets the end of output.
    pub(crate) fn set_end(&self, writer_left: bool) {
        let mut state = self.state.borrow_mut();
        let total = state.replay.end();
        state.end = Some(End { writer_left, total });
        state.stdin.close();
        self.terminal.replace(None);
    }
}

/// What fuzzers and tests read.
#[cfg(any(test, feature = "fuzzing"))]
impl Session {
    pub(crate) fn position(&self) -> u64 {
        self.state.borrow().replay.end()
    }

    pub(crate) fn follower_count(&self) -> usize {
        self.state.borrow().followers.len()
    }

    #[cfg(test)]
    pub(super) fn end(&self) -> Option<End> {
        self.state.borrow().end.clone()
    }
}

fn output_credit(window: u64) -> SendCredit {
    SendCredit::new(window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX))
}

fn release_stdin(state: &mut State, channel: ChannelId, len: usize) {
    if let Some(follower) = state.follower(channel) {
        follower.release_stdin(len);
    }
}

/// Returns the arguments for lists and announcements, truncated.
pub(crate) fn shown_argv(exec: &Exec) -> Vec<Vec<u8>> {
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
