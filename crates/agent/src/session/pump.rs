//! Moves the bytes of a session, from its start to its end.

use super::output_state::{Actions, Input, OutputState};
use super::start::PendingChild;
use super::state::Session;
use super::streams::AgentEnds;
use crate::resources::Resources;
use crate::sys;
use bytes::Bytes;
use msb_wire::limits::{COPY_BELOW, DRAIN_MILLIS, MAX_DATA};
use msb_wire::{Exec, Failure, OutputStream};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::time::{Instant, sleep_until};

const EPIPE: i32 = 32;
const OUTPUTS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];
/// More than a terminal holds when its session ends (N_TTY_BUF_SIZE and the flip buffers), in
/// bytes.
const TERMINAL_PENDING: u64 = 256 * 1024;
/// Size of the pipe of a program with much output, in bytes.
const LARGE_PIPE: usize = 256 * 1024;
/// Output after which a program gets a large pipe, in bytes.
const LARGE_PIPE_AFTER: usize = 512 * 1024;
/// Longest time limit: adding it to a clock does not overflow.
const MAX_TIME: Duration = Duration::from_secs(86_400 * 365 * 30);

/// Runs a session to its end. Fails if the program never ran.
pub(crate) async fn run(
    session: Rc<Session>,
    child: PendingChild,
    times: Times,
) -> Result<(), Failure> {
    let Times { mut deadline, drain } = times;
    let ends = {
        let mut started = pin!(child.wait_exec());
        // A program or directory on an unresponsive file system blocks the exec.
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
    session.set_running();
    if session.timed_out.get() {
        // The exec came before the kill, and the program may have children.
        session.kill_everything();
    }
    Pump::new(session, ends, deadline, drain).run().await;
    Ok(())
}

/// The time limits of a session. The pump keeps no more of the request, which can be megabytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Counts from before the fork, to include a program that hangs in its start.
    deadline: Option<Instant>,
    /// How long to read output after the exit; `None` until its end.
    drain: Option<Duration>,
}

impl Times {
    pub(crate) fn new(exec: &Exec) -> Times {
        let default = Duration::from_millis(DRAIN_MILLIS);
        let limit = |ns| Instant::now() + Duration::from_nanos(ns).min(MAX_TIME);
        Times {
            deadline: exec.timeout_ns.map(limit),
            drain: (!exec.wait_for_eof)
                .then(|| exec.drain_ns.map_or(default, Duration::from_nanos)),
        }
    }
}

struct Pump {
    state: OutputState,
    session: Rc<Session>,
    ends: AgentEnds,
    deadline: Option<Instant>,
    drain: Option<Duration>,
    drain_until: Option<Instant>,
    has_large_pipe: bool,
}

enum Wakeup<'a> {
    Notified,
    Readable(OutputStream, AsyncFdReadyGuard<'a, OwnedFd>),
    Writable(AsyncFdReadyGuard<'a, OwnedFd>),
    Timer,
    Broken(OutputStream),
}

impl Pump {
    fn new(
        session: Rc<Session>,
        ends: AgentEnds,
        deadline: Option<Instant>,
        drain: Option<Duration>,
    ) -> Pump {
        let state = OutputState::new(session.tty);
        let (drain_until, has_large_pipe) = (None, false);
        Pump { state, session, ends, deadline, drain, drain_until, has_large_pipe }
    }

    async fn run(&mut self) {
        self.close_finished_stdin();
        loop {
            self.check_exit();
            self.session.update_followers();
            if self.state.has_ended() {
                break;
            }
            self.step().await;
        }
        self.detach_writers();
    }

    /// Waits for one event and handles it.
    async fn step(&mut self) {
        let has_room = self.session.allowance() > 0;
        let wants = |stream| has_room && self.state.wants(stream);
        let [out, err] = &self.ends.outputs;
        let has_input = self.session.next_stdin().is_some();
        let time = match (self.deadline, self.drain_until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let wakeup = tokio::select! {
            () = self.session.notify.notified() => Wakeup::Notified,
            wakeup = readable(OutputStream::Stdout, out), if wants(OutputStream::Stdout) => wakeup,
            wakeup = readable(OutputStream::Stderr, err), if wants(OutputStream::Stderr) => wakeup,
            wakeup = writable(&self.ends.stdin), if has_input => wakeup,
            () = sleep_until(time.unwrap_or_else(Instant::now)), if time.is_some() => Wakeup::Timer,
        };
        match wakeup {
            Wakeup::Notified => {}
            Wakeup::Timer => return self.handle_timer(),
            Wakeup::Readable(stream, mut guard) => {
                let at_most = self.state.may_read(stream, self.session.allowance());
                let input = read(&self.session, stream, guard.get_inner(), at_most);
                if matches!(input, Some(Input::Empty(_))) {
                    guard.clear_ready();
                }
                return self.apply(input);
            }
            Wakeup::Writable(mut guard) => {
                if let Err(Errno::AGAIN) = write(&self.session, guard.get_inner()) {
                    guard.clear_ready();
                }
            }
            Wakeup::Broken(stream) => return self.apply(Some(Input::Eof(stream))),
        }
        self.close_finished_stdin();
    }

    /// Once the process has exited: reads what it wrote itself, before the exit is reported.
    fn check_exit(&mut self) {
        if self.session.reaped().is_none() || self.state.has_exited() {
            return;
        }
        if self.state.is_running() {
            self.deadline = None;
            let pending = OUTPUTS
                .map(|stream| self.ends.output(stream).map_or(0, |end| self.bytes_pending(&end)));
            self.apply(Some(Input::Exited { pending }));
        }
        for stream in OUTPUTS {
            // Without waiting for readiness: the bytes are in the pipe, or another process took
            // them.
            while self.state.wants(stream)
                && !self.state.has_exited()
                && let Some(end) = self.ends.output(stream)
            {
                let at_most = self.state.may_read(stream, self.session.allowance());
                if at_most == 0 {
                    break;
                }
                let input = read(&self.session, stream, end.get_ref(), at_most);
                self.apply(input);
            }
        }
    }

    /// Returns how many bytes an output holds; for a terminal, which does not report it, an upper
    /// bound.
    fn bytes_pending(&self, end: &AsyncFd<OwnedFd>) -> u64 {
        if self.session.tty { TERMINAL_PENDING } else { sys::bytes_pending(end.get_ref().as_fd()) }
    }

    /// Reads what the outputs hold, and their ends of file. A busy agent may run only after the
    /// drain time, with all of that ready.
    fn read_remaining(&mut self) {
        for stream in OUTPUTS {
            let Some(end) = self.ends.output(stream) else { continue };
            let mut left = self.bytes_pending(&end);
            let mut is_empty = left == 0;
            while left > 0 && !is_empty && self.state.wants(stream) {
                let at_most = usize::try_from(left).unwrap_or(usize::MAX);
                let at_most = self.session.allowance().min(at_most);
                if at_most == 0 {
                    break;
                }
                let input = read(&self.session, stream, end.get_ref(), at_most);
                match input {
                    Some(Input::Read(_, count)) => left = left.saturating_sub(count),
                    Some(Input::Empty(_)) => is_empty = true,
                    _ => {}
                }
                self.apply(input);
            }
            let fd = end.get_ref().as_fd();
            let is_drained = is_empty || (!self.session.tty && sys::bytes_pending(fd) == 0);
            if is_drained && self.state.wants(stream) && sys::is_hung_up(fd) {
                self.apply(Some(Input::Eof(stream)));
            }
        }
    }

    fn apply(&mut self, input: Option<Input>) {
        let Some(input) = input else { return };
        match input {
            Input::Eof(stream) => self.ends.close_output(stream),
            Input::Read(stream, _) => self.enlarge_pipe(stream),
            _ => {}
        }
        let (state, Actions { exited, end }) = self.state.on(input);
        self.state = state;
        if exited {
            if let Some((reaped, at)) = self.session.reaped() {
                self.session.set_exited(&reaped, at);
            }
            self.drain_until = self.drain.map(|drain| Instant::now() + drain.min(MAX_TIME));
        }
        if let Some(writer_left) = end {
            self.session.set_end(writer_left);
        }
    }

    /// Enlarges the pipe of a program with much output, for fewer reads. Not before, since the
    /// kernel limits the pages of all pipes of a user (pipe(7)).
    fn enlarge_pipe(&mut self, stream: OutputStream) {
        let has_much_output = self.session.replay_len() >= LARGE_PIPE_AFTER;
        if !has_much_output || self.session.tty || self.has_large_pipe {
            return;
        }
        self.has_large_pipe = true;
        if let Some(end) = self.ends.output(stream) {
            // Refused when the user has no pages left; the pipe then keeps its size.
            let _ = rustix::pipe::fcntl_setpipe_size(end.get_ref(), LARGE_PIPE);
        }
    }

    fn handle_timer(&mut self) {
        let now = Instant::now();
        if self.drain_until.is_some_and(|until| until <= now) {
            self.read_remaining();
            self.apply(Some(Input::DrainTimeOver));
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.session.timed_out.set(true);
            self.session.kill_everything();
        }
    }

    fn close_finished_stdin(&mut self) {
        if !self.session.with_stdin(|stdin| stdin.is_finished()) {
            return;
        }
        let Some(stdin) = &self.ends.stdin else { return };
        if self.session.tty {
            // A terminal signals end of file by a character. It is queued like input, since the
            // terminal may be full for now.
            let eof = rustix::termios::tcgetattr(stdin.get_ref()).map_or(4, |settings| {
                settings.special_codes[rustix::termios::SpecialCodeIndex::VEOF]
            });
            if self.session.with_stdin(|stdin| stdin.push_eof(eof)) {
                return;
            }
        }
        self.ends.stdin = None;
    }

    /// Discards later output of background processes, so that it neither blocks nor kills them.
    fn detach_writers(&mut self) {
        for end in &mut self.ends.outputs {
            if let Some(end) = end.take() {
                tokio::task::spawn_local(discard(end, Rc::clone(&self.session.resources)));
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

/// Reads once, delivers the data, and returns the input for the state machine.
fn read(session: &Session, stream: OutputStream, end: &OwnedFd, at_most: usize) -> Option<Input> {
    // A read of no bytes would look like end of file.
    if at_most == 0 {
        return None;
    }
    let at_most = at_most.min(MAX_DATA);
    match session.resources.with_scratch(|scratch| read_some(end, at_most, scratch)) {
        Ok(data) if data.is_empty() => Some(Input::Eof(stream)),
        Ok(data) => {
            session.deliver(stream, &data);
            Some(Input::Read(stream, data.len() as u64))
        }
        Err(Errno::AGAIN) => Some(Input::Empty(stream)),
        Err(Errno::INTR) => None,
        // EIO from a terminal whose other side was closed.
        Err(_) => Some(Input::Eof(stream)),
    }
}

/// Reads into the scratch buffer. Keeps the buffer after a long read, copies out a short one.
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
    let Some(piece) = session.next_stdin() else { return Ok(()) };
    match rustix::io::write(end, &piece) {
        Ok(count) => session.stdin_written(count),
        Err(error @ (Errno::AGAIN | Errno::INTR)) => return Err(error),
        // Without a reader the end of file needs no report.
        Err(_) if session.with_stdin(|stdin| stdin.only_eof_left()) => {
            session.with_stdin(|stdin| stdin.discard());
        }
        Err(error) => {
            let errno = if error == Errno::IO { EPIPE } else { error.raw_os_error() };
            session.stdin_failed(errno);
        }
    }
    Ok(())
}

async fn discard(end: Rc<AsyncFd<OwnedFd>>, resources: Rc<Resources>) {
    while let Ok(mut guard) = end.readable().await {
        let result = resources.with_scratch(|scratch| {
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
    use super::super::testing::{exec, reaped};
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    /// Creates a pump whose process has exited, with bytes left in its pipes. The flags select
    /// which pipes keep a writer.
    fn exited(left: [(&[u8], bool); 2]) -> (Pump, Vec<OwnedFd>) {
        let mut writers = Vec::new();
        let outputs = left.map(|(bytes, has_writer)| {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
            // As if other processes wrote it after the exit.
            rustix::io::write(&theirs, bytes).unwrap();
            writers.extend(has_writer.then_some(theirs));
            Some(Rc::new(sys::watch(ours).unwrap()))
        });
        let now = std::time::Instant::now();
        let session = Rc::new(Session::new(&exec(0, 0), 1, None, Rc::default(), now));
        session.set_running();
        session.process_exited(&reaped());
        let ends = AgentEnds { outputs, stdin: None };
        let mut pump = Pump::new(session, ends, None, Some(Duration::ZERO));
        pump.apply(Some(Input::Exited { pending: [0, 0] }));
        (pump, writers)
    }

    #[tokio::test]
    async fn b4_late_timer_loses_no_output_and_flags_no_writer() {
        let table = [
            ([(&b""[..], false), (&b""[..], false)], 0, false),
            ([(&b"late"[..], false), (&b"later"[..], false)], 9, false),
            ([(&b"late"[..], false), (&b""[..], true)], 4, true),
            ([(&b"late"[..], true), (&b""[..], false)], 4, true),
        ];
        for (left, total, writer_left) in table {
            let (mut pump, writers) = exited(left);
            pump.handle_timer();
            let end = pump.session.end();
            assert_eq!(end, Some(msb_wire::End { writer_left, total }), "{left:?}");
            drop(writers);
        }
    }
}
