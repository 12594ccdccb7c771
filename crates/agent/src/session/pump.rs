//! Moves a session's bytes, from its start to its end.

use super::Session;
use super::machine::{Actions, Input, Machine};
use super::start::{Ends, PendingChild, fd};
use crate::registry::Registry;
use crate::sys;
use bytes::Bytes;
use msb_wire::limits::{COPY_BELOW, DRAIN_MILLIS, MAX_DATA};
use msb_wire::{Exec, OutputStream};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, sleep_until};

const EPIPE: i32 = 32;
/// What a terminal can hold when its session ends (N_TTY_BUF_SIZE and the flip buffers), and more.
const TERMINAL_REST: u64 = 256 * 1024;
/// Size of the pipe of a program that has put out this much.
const WIDE_PIPE: usize = 256 * 1024;
const WIDE_FROM: usize = 512 * 1024;
/// Further ahead than any timeout that a clock can take.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// Runs a session to its end. The result is whether the program ever ran.
pub(crate) async fn run(
    session: Rc<Session>,
    child: PendingChild,
    times: Times,
    registry: Rc<Registry>,
) -> Result<(), msb_wire::Failure> {
    let Times { mut deadline, drain } = times;
    let ends = {
        let mut started = pin!(child.wait_exec());
        // A program or directory on a file system that does not answer is never executed.
        let overdue = sleep_until(deadline.unwrap_or_else(Instant::now));
        tokio::select! {
            ends = &mut started => ends?,
            () = overdue, if deadline.is_some() => {
                deadline = None;
                session.timed_out.set(true);
                session.kill_before_exec();
                started.await?
            }
        }
    };
    session.begun();
    if session.timed_out.get() {
        // It was executed in the last moment, and may have started others.
        session.kill_everything();
    }
    let mut pump = Pump {
        machine: Machine::new(session.tty),
        session,
        registry,
        ends,
        deadline,
        drain,
        drain_until: None,
    };
    pump.run().await;
    Ok(())
}

/// How long a session may take. Of the request no more is kept: it can be megabytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Set before the fork, so that a program that hangs in its own start is caught as well.
    deadline: Option<Instant>,
    /// How long output is awaited after the exit; `None` until its end.
    drain: Option<Duration>,
}

impl Times {
    pub(crate) fn new(exec: &Exec) -> Times {
        let default = Duration::from_millis(DRAIN_MILLIS);
        Times {
            deadline: exec.timeout_ns.map(|ns| Instant::now() + Duration::from_nanos(ns).min(FAR)),
            drain: (!exec.wait_for_eof)
                .then(|| exec.drain_ns.map_or(default, Duration::from_nanos)),
        }
    }
}

struct Pump {
    machine: Machine,
    session: Rc<Session>,
    registry: Rc<Registry>,
    ends: Ends,
    deadline: Option<Instant>,
    drain: Option<Duration>,
    drain_until: Option<Instant>,
}

enum Wakeup<'a> {
    Changed,
    Readable(OutputStream, AsyncFdReadyGuard<'a, OwnedFd>),
    Writable(AsyncFdReadyGuard<'a, OwnedFd>),
    Time,
    Broken(OutputStream),
}

impl Pump {
    async fn run(&mut self) {
        self.close_finished_stdin();
        loop {
            self.settle();
            self.session.tell();
            if self.machine.ended() {
                break;
            }
            self.step().await;
        }
        self.leave_behind();
    }

    /// Waits for one thing and does it.
    async fn step(&mut self) {
        let may_read = self.session.allowance() > 0;
        let wants = |stream| may_read && self.machine.wants(stream);
        let [out, err] = &self.ends.outputs;
        let writing = self.session.state.borrow().stdin.front().is_some();
        let time = match (self.deadline, self.drain_until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let wakeup = tokio::select! {
            () = self.session.wake.notified() => Wakeup::Changed,
            wakeup = readable(OutputStream::Stdout, out), if wants(OutputStream::Stdout) => wakeup,
            wakeup = readable(OutputStream::Stderr, err), if wants(OutputStream::Stderr) => wakeup,
            wakeup = writable(&self.ends.stdin), if writing => wakeup,
            () = sleep_until(time.unwrap_or_else(Instant::now)), if time.is_some() => Wakeup::Time,
        };
        match wakeup {
            Wakeup::Changed => {}
            Wakeup::Time => return self.time_passed(),
            Wakeup::Readable(stream, mut guard) => {
                let at_most = self.machine.may_read(stream, self.session.allowance());
                let input = read(&self.session, &self.registry, stream, guard.get_inner(), at_most);
                if matches!(input, Some(Input::Empty(_))) {
                    guard.clear_ready();
                }
                return self.take(input);
            }
            Wakeup::Writable(mut guard) => {
                if let Err(Errno::AGAIN) = write(&self.session, guard.get_inner()) {
                    guard.clear_ready();
                }
            }
            Wakeup::Broken(stream) => return self.take(Some(Input::Over(stream))),
        }
        self.close_finished_stdin();
    }

    /// When the process has ended: what stands in the pipes now is its own, and goes first.
    fn settle(&mut self) {
        let Some((reaped, at)) = self.session.state.borrow_mut().reaped.take() else {
            return self.read_owed();
        };
        // Kept, since whoever asks has to know that the process is gone.
        self.session.state.borrow_mut().reaped = Some((reaped, at));
        if self.session.state.borrow().exited.is_none() && !self.machine.exit_told() {
            let terminal = self.session.tty;
            let waiting = |end: &Option<Rc<AsyncFd<OwnedFd>>>| match end {
                Some(_) if terminal => TERMINAL_REST,
                Some(end) => sys::bytes_waiting(fd(end)),
                None => 0,
            };
            let [out, err] = &self.ends.outputs;
            let waiting = [waiting(out), waiting(err)];
            self.deadline = None;
            self.take(Some(Input::Exited { waiting }));
        }
        self.read_owed();
    }

    /// Reads what is owed without waiting for readiness: it is there, or it is not coming.
    fn read_owed(&mut self) {
        if self.machine.exit_told() || self.session.state.borrow().reaped.is_none() {
            return;
        }
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            loop {
                let at_most = self.machine.may_read(stream, self.session.allowance());
                let Some(end) = self.end_of(stream) else { break };
                if !self.machine.wants(stream) || at_most == 0 || self.machine.exit_told() {
                    break;
                }
                let input = read(&self.session, &self.registry, stream, end.get_ref(), at_most);
                self.take(input);
            }
        }
    }

    /// Takes what stands in the pipes, and their ends: an agent that had to wait for a processor may
    /// learn of all that at the same moment as of the time that has passed.
    fn look_once_more(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let Some(end) = self.end_of(stream) else { continue };
            let terminal = self.session.tty;
            let mut left = if terminal { TERMINAL_REST } else { sys::bytes_waiting(fd(&end)) };
            let mut empty = left == 0;
            while left > 0 && !empty && self.machine.wants(stream) {
                let at_most = usize::try_from(left).unwrap_or(usize::MAX);
                let at_most = self.session.allowance().min(at_most);
                if at_most == 0 {
                    break;
                }
                let input = read(&self.session, &self.registry, stream, end.get_ref(), at_most);
                match input {
                    Some(Input::Read(_, count)) => left = left.saturating_sub(count),
                    Some(Input::Empty(_)) => empty = true,
                    _ => {}
                }
                self.take(input);
            }
            let drained = empty || (!terminal && sys::bytes_waiting(fd(&end)) == 0);
            if drained && self.machine.wants(stream) && sys::is_hung_up(fd(&end)) {
                self.take(Some(Input::Over(stream)));
            }
        }
    }

    fn end_of(&self, stream: OutputStream) -> Option<Rc<AsyncFd<OwnedFd>>> {
        let [out, err] = &self.ends.outputs;
        match stream {
            OutputStream::Stdout => out.clone(),
            OutputStream::Stderr => err.clone(),
        }
    }

    fn take(&mut self, input: Option<Input>) {
        let Some(input) = input else { return };
        if let Input::Over(stream) = input {
            let [out, err] = &mut self.ends.outputs;
            match stream {
                OutputStream::Stdout => *out = None,
                OutputStream::Stderr => *err = None,
            }
        }
        let (machine, Actions { exited, end }) = self.machine.on(input);
        self.machine = machine;
        if exited {
            let reaped = self.session.state.borrow().reaped;
            if let Some((reaped, at)) = reaped {
                self.session.set_exited(&reaped, at);
            }
            self.drain_until = self.drain.map(|drain| Instant::now() + drain.min(FAR));
        }
        if let Some(writer_left) = end {
            self.session.set_end(writer_left);
        }
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if self.drain_until.is_some_and(|until| until <= now) {
            self.look_once_more();
            self.take(Some(Input::DrainTimeOver));
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.session.timed_out.set(true);
            self.session.kill_everything();
        }
    }

    fn close_finished_stdin(&mut self) {
        if !self.session.state.borrow().stdin.is_finished() {
            return;
        }
        let Some(stdin) = &self.ends.stdin else { return };
        if self.session.tty {
            // A terminal has no end of file but the character that stands for it. It goes through
            // the queue: a terminal that is full for the moment may still have a reader.
            let eof = rustix::termios::tcgetattr(stdin.get_ref()).map_or(4, |settings| {
                settings.special_codes[rustix::termios::SpecialCodeIndex::VEOF]
            });
            if self.session.state.borrow_mut().stdin.push_end(eof) {
                return;
            }
        }
        self.ends.stdin = None;
    }

    /// What other processes still write goes nowhere, but it neither blocks nor kills them.
    fn leave_behind(&mut self) {
        for end in &mut self.ends.outputs {
            if let Some(end) = end.take() {
                tokio::task::spawn_local(discard(end, Rc::clone(&self.registry)));
            }
        }
        self.ends.stdin = None;
    }
}

async fn readable(stream: OutputStream, end: &Option<Rc<AsyncFd<OwnedFd>>>) -> Wakeup<'_> {
    match end {
        Some(end) => match end.readable().await {
            Ok(guard) => Wakeup::Readable(stream, guard),
            Err(_) => Wakeup::Broken(stream),
        },
        None => std::future::pending().await,
    }
}

async fn writable(end: &Option<Rc<AsyncFd<OwnedFd>>>) -> Wakeup<'_> {
    match end {
        Some(end) => match end.writable().await {
            Ok(guard) => Wakeup::Writable(guard),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// A program that puts out much gets a larger pipe: fewer turns for the same bytes. Only then, for
/// the kernel grants each user a limited number of pages for pipes (pipe(7)).
fn widen(session: &Session, end: &OwnedFd) {
    if !session.tty && !session.wide.replace(true) {
        // Refused where the user's pages are used up; the pipe stays as it is.
        let _ = rustix::pipe::fcntl_setpipe_size(end, WIDE_PIPE);
    }
}

/// Reads once and delivers; says what that means for the machine.
fn read(
    session: &Session,
    registry: &Registry,
    stream: OutputStream,
    end: &OwnedFd,
    at_most: usize,
) -> Option<Input> {
    // The allowance may have been used up by others since it was looked at, and a read of no bytes
    // would look like the end of the output.
    if at_most == 0 {
        return None;
    }
    match registry.with_scratch(|scratch| read_some(end, at_most.min(MAX_DATA), scratch)) {
        Ok(data) if data.is_empty() => Some(Input::Over(stream)),
        Ok(data) => {
            session.deliver(stream, &data);
            if session.kept() >= WIDE_FROM {
                widen(session, end);
            }
            Some(Input::Read(stream, data.len() as u64))
        }
        Err(Errno::AGAIN) => Some(Input::Empty(stream)),
        Err(Errno::INTR) => None,
        // A terminal whose other side was closed says EIO; there is no more to come either way.
        Err(_) => Some(Input::Over(stream)),
    }
}

/// A long read keeps the buffer that it was read into, a short one is copied out of it.
fn read_some(end: &OwnedFd, at_most: usize, scratch: &mut Vec<u8>) -> Result<Bytes, Errno> {
    scratch.clear();
    scratch.reserve_exact(MAX_DATA);
    let count = if at_most < MAX_DATA {
        scratch.resize(at_most, 0);
        let count = rustix::io::read(end, scratch.as_mut_slice())?;
        scratch.truncate(count);
        count
    } else {
        rustix::io::read(end, spare_capacity(scratch))?
    };
    if count < COPY_BELOW {
        return Ok(Bytes::copy_from_slice(scratch));
    }
    Ok(Bytes::from(std::mem::take(scratch)))
}

fn write(session: &Session, end: &OwnedFd) -> Result<(), Errno> {
    let Some(piece) = session.state.borrow().stdin.front() else {
        return Ok(());
    };
    match rustix::io::write(end, &piece) {
        Ok(count) => {
            let mut state = session.state.borrow_mut();
            if let Some((connection, channel, len)) = state.stdin.written(count) {
                let feeder = state.followers.iter_mut().find(|f| f.is(connection, channel));
                if let Some(feeder) = feeder {
                    feeder.give_back_stdin(len);
                }
            }
            Ok(())
        }
        Err(error @ (Errno::AGAIN | Errno::INTR)) => Err(error),
        // Nobody is left who could want the end.
        Err(_) if session.state.borrow().stdin.only_end_left() => {
            session.state.borrow_mut().stdin.give_up();
            Ok(())
        }
        Err(error) => {
            let errno = if error == Errno::IO { EPIPE } else { error.raw_os_error() };
            session.stdin_failed(errno);
            Ok(())
        }
    }
}

async fn discard(end: Rc<AsyncFd<OwnedFd>>, registry: Rc<Registry>) {
    while let Ok(mut guard) = end.readable().await {
        let result = registry.with_scratch(|scratch| {
            scratch.resize(MAX_DATA, 0);
            rustix::io::read(guard.get_inner(), scratch.as_mut_slice())
        });
        match result {
            Ok(0) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => guard.clear_ready(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::session::fuzzing::{exec, reaped};
    use rustix::pipe::{PipeFlags, pipe_with};

    /// A pump whose process has ended, with what it left in its pipes and whether each is open.
    fn drained(left: [(&[u8], bool); 2]) -> (Pump, Vec<OwnedFd>) {
        let mut open = Vec::new();
        let outputs = left.map(|(bytes, stays)| {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
            // As if written by others, after the exit.
            rustix::io::write(&theirs, bytes).unwrap();
            open.extend(stays.then_some(theirs));
            Some(Rc::new(sys::watch(ours).unwrap()))
        });
        let session =
            Rc::new(Session::new(&exec(0, 0), 1, None, Rc::default(), std::time::Instant::now()));
        session.begun();
        session.state.borrow_mut().reaped = Some((reaped(), std::time::Instant::now()));
        let mut pump = Pump {
            machine: Machine::new(false),
            session,
            registry: Registry::new([0; 16], crate::resources::Resources::default()),
            ends: Ends { outputs, stdin: None },
            deadline: None,
            drain: Some(Duration::ZERO),
            drain_until: None,
        };
        pump.take(Some(Input::Exited { waiting: [0, 0] }));
        (pump, open)
    }

    #[tokio::test]
    async fn b4_a_drain_time_that_is_noticed_late_cuts_nothing_and_blames_nobody() {
        let table = [
            ([(&b""[..], false), (&b""[..], false)], 0, false),
            ([(&b"late"[..], false), (&b"later"[..], false)], 9, false),
            ([(&b"late"[..], false), (&b""[..], true)], 4, true),
            ([(&b"late"[..], true), (&b""[..], false)], 4, true),
        ];
        for (left, total, writer_left) in table {
            let (mut pump, open) = drained(left);
            pump.time_passed();
            let end = pump.session.state.borrow().end.clone();
            assert_eq!(end, Some(msb_wire::End { writer_left, total }), "{left:?}");
            drop(open);
        }
    }
}
