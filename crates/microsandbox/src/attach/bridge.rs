//! The thread that carries bytes between the terminal and a session.

use crate::attach::keys::Typed;
use crate::attach::terminal::Terminal;
use crate::attach::{Claim, DetachKeys};
use crate::client::{Credit, Event, ExecCore, Next, Pending, SinkCore, completion};
use crate::error::{Error, MicrosandboxResult};
use crate::output::ExitStatus;
use crate::runtime;
use bytes::Bytes;
use msb_wire::TtySize;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the size of the terminal is looked at.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);
/// Most bytes that are taken from the terminal before they are passed on.
const TYPED_MAX: usize = 4096;
/// Most bytes that are written at once: what a pipe that polls writable takes without blocking.
const WRITE_MAX: usize = 4096;
/// What stands for an exit code when the session lives on.
const DETACHED: i32 = -1;
/// What a shell adds to the number of a signal that killed a command.
const SIGNAL_BASE: i32 = 128;

/// How an attach ended, and which session it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachOutcome {
    /// The session's id, for reattaching.
    pub session_id: String,
    /// How the command ended; `None` when it was left running.
    pub status: Option<ExitStatus>,
}

impl AttachOutcome {
    /// What a shell would show: the exit code, or 128 and the number of the signal that killed it;
    /// -1 when it was left running.
    pub fn code(&self) -> i32 {
        self.status.map_or(DETACHED, |status| match status.signal {
            Some(signal) => SIGNAL_BASE + signal,
            None => status.code,
        })
    }
}

/// What the terminal is to be tied to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) core: ExecCore,
    pub(crate) keys: DetachKeys,
    /// The size that the session's terminal has; `None` for one that was there before, to which
    /// some other terminal was tied.
    pub(crate) size: Option<TtySize>,
    /// How many bytes of the output were shown before, elsewhere. They are not shown again, and what
    /// they changed on that terminal is changed on this one.
    pub(crate) shown: u64,
}

/// Ties the terminal to a session until it ends or the keys part them. When the future is dropped
/// they part at once.
pub(crate) async fn attach(claim: Claim, session: Session) -> MicrosandboxResult<AttachOutcome> {
    let session_id = session.core.session().to_string();
    let failed = |error| Error::io("cannot make an event descriptor", error);
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
    let (promise, pending) = completion();
    let stopped = Arc::clone(&stop);
    let thread = runtime::spawn_joinable("msb-attach", move || {
        // The terminal is itself again, also after a panic, before the promise tells of the end.
        promise.complete(claim.raw().and_then(|terminal| {
            let Session { core, keys, size, shown } = session;
            let sink = core.take_sink().map(SinkCore::leaving_input_open);
            let typed = Typed::default();
            let (screen, input, leaving, looked) = (None, Vec::new(), false, None);
            let mut bridge = Bridge {
                core,
                sink,
                terminal,
                keys,
                typed,
                size,
                looked,
                shown,
                screen,
                input,
                leaving,
            };
            let status = bridge.run(&stopped)?;
            if status.is_some_and(|status| status.signal.is_none()) {
                bridge.terminal.keep_screen();
            }
            Ok(status)
        }));
    })?;
    let status = Attached { stop, thread: Some(thread), pending }.ended().await?;
    Ok(AttachOutcome { session_id, status })
}

/// The thread at work, as the one who waits for it has it.
struct Attached {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    pending: Pending<Option<ExitStatus>>,
}

impl Attached {
    async fn ended(mut self) -> MicrosandboxResult<Option<ExitStatus>> {
        (&mut self.pending).await
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Cannot fail: it is written once.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // That it panicked was told by its promise.
            let _ = thread.join();
        }
    }
}

struct Bridge {
    core: ExecCore,
    /// The session's input, as long as it is read.
    sink: Option<SinkCore>,
    terminal: Terminal,
    keys: DetachKeys,
    typed: Typed,
    size: Option<TtySize>,
    /// When the terminal's size was last looked at.
    looked: Option<Instant>,
    /// How much of the output that comes first is not to be shown.
    shown: u64,
    /// Output that is not written yet, and its credit.
    screen: Option<(Bytes, Credit)>,
    /// What was typed and is not passed on yet.
    input: Vec<u8>,
    /// They part as soon as all that was typed is passed on.
    leaving: bool,
}

/// What can go on after a wait.
#[derive(Debug, Default)]
struct Readiness {
    stop: bool,
    write: bool,
    read: bool,
}

impl Bridge {
    /// How the command ended; `None` when it was left running.
    fn run(&mut self, stop: &OwnedFd) -> MicrosandboxResult<Option<ExitStatus>> {
        loop {
            self.tell_size();
            self.pass_on()?;
            if let Some(status) = self.next_event()? {
                return Ok(Some(status));
            }
            if self.leaving && self.input.is_empty() {
                return Ok(None);
            }
            let ready = self.wait(stop)?;
            if ready.stop {
                return Ok(None);
            }
            if ready.write {
                self.write()?;
            }
            if ready.read {
                self.read()?;
            }
        }
    }

    /// Waits until something can go on, or it is time to look at the size.
    fn wait(&self, stop: &OwnedFd) -> MicrosandboxResult<Readiness> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        // One piece of output at a time: what waits, waits in the session's queue.
        let (source, flags) = match self.screen {
            Some(_) => (self.terminal.output(), PollFlags::OUT),
            None => (self.core.fd()?, PollFlags::IN),
        };
        fds.push(PollFd::from_borrowed_fd(source, flags));
        // Nothing is read from the terminal while what was read before has nowhere to go.
        let reads = self.input.is_empty() && !self.leaving;
        match &self.sink {
            _ if reads => {
                fds.push(PollFd::from_borrowed_fd(self.terminal.input(), PollFlags::IN));
            }
            Some(sink) => fds.push(PollFd::from_borrowed_fd(sink.fd()?, PollFlags::IN)),
            None => {}
        }
        wait_for(&mut fds, SIZE_INTERVAL)
            .map_err(|error| Error::io("cannot wait for the terminal", error))?;
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Readiness {
            stop: ready(0),
            write: self.screen.is_some() && ready(1),
            read: reads && ready(2),
        })
    }

    /// Tells the session the terminal's size when it has changed.
    ///
    /// Who takes a session up again sees an empty screen, and the program believes that all it drew
    /// is still there: a size that does not change tells it nothing. So it is first told of a
    /// terminal one row lower, and of the true one at the next look.
    fn tell_size(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < SIZE_INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(mut size) = self.terminal.size() else { return };
        if self.size.is_none() && size.rows > 1 {
            size.rows -= 1;
        }
        if self.size != Some(size) {
            self.size = Some(size);
            // A session that has ended meanwhile has no use for it, and says so by itself.
            drop(self.core.resize(size.rows, size.cols));
        }
    }

    /// Takes the next event when there is one and the last was dealt with; the result is the end.
    fn next_event(&mut self) -> MicrosandboxResult<Option<ExitStatus>> {
        while self.screen.is_none() {
            let received = match self.core.try_next()? {
                Next::Event(received) => received,
                Next::Nothing => break,
                Next::End(_) => {
                    return Err(Error::internal("the events ended without an ending"));
                }
            };
            match received.event {
                Event::Output(_, data) => {
                    let data = self.unseen(data);
                    if !data.is_empty() {
                        self.screen = Some((data, received.credit));
                    }
                }
                Event::Exited(exited) => return Ok(Some((&exited).into())),
                Event::Failed(failure) => return Err(Error::ExecFailed(failure.into())),
                Event::Lost(lost) => return Err(Error::lost(&lost)),
                Event::StdinError(_) | Event::Started { .. } => {}
            }
        }
        Ok(None)
    }

    /// What of the output is to be shown.
    fn unseen(&mut self, mut data: Bytes) -> Bytes {
        if self.shown == 0 {
            return data;
        }
        let length = usize::try_from(self.shown).unwrap_or(usize::MAX).min(data.len());
        let before = data.split_to(length);
        self.shown -= before.len() as u64;
        self.terminal.shown(&before);
        if self.shown > 0 {
            return data;
        }
        let mut text = self.terminal.redo();
        text.extend_from_slice(&data);
        Bytes::from(text)
    }

    /// Writes a piece of the output.
    fn write(&mut self) -> MicrosandboxResult<()> {
        let Some((data, _)) = &mut self.screen else { return Ok(()) };
        let piece = data.get(..WRITE_MAX).unwrap_or(data);
        match self.terminal.write(piece) {
            Ok(written) => drop(data.split_to(written.min(data.len()))),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                self.hung_up(error, "cannot write to the terminal")?;
                self.screen = None;
            }
        }
        if self.screen.as_ref().is_some_and(|(data, _)| data.is_empty()) {
            self.screen = None;
        }
        Ok(())
    }

    /// Reads what was typed, and not one byte behind the detach keys.
    fn read(&mut self) -> MicrosandboxResult<()> {
        let mut buffer = [0; 64];
        while self.input.len() < TYPED_MAX {
            let at_most = self.keys.at_most(self.typed).min(buffer.len());
            let room = buffer.get_mut(..at_most).unwrap_or_default();
            let count = match rustix::io::read(self.terminal.input(), room) {
                Ok(0) => {
                    // No key ends a raw terminal's input: nobody is there any more.
                    self.leaving = true;
                    return Ok(());
                }
                Ok(count) => count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return self.hung_up(error, "cannot read from the terminal"),
            };
            for byte in buffer.iter().take(count) {
                self.typed = self.keys.on(self.typed, *byte, &mut self.input);
            }
            self.leaving = self.typed == Typed::Detached;
            if self.leaving || !is_readable(self.terminal.input()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A terminal that has gone leaves the session alone, as if its keys had been typed.
    fn hung_up(&mut self, error: Errno, what: &str) -> MicrosandboxResult<()> {
        if error != Errno::IO {
            return Err(Error::io(what, error));
        }
        self.leaving = true;
        Ok(())
    }

    /// Passes on what was typed, as far as there is room for it.
    fn pass_on(&mut self) -> MicrosandboxResult<()> {
        while let (Some(sink), false) = (&self.sink, self.input.is_empty()) {
            match sink.try_write(&self.input) {
                Some(Ok(written)) => drop(self.input.drain(..written.min(self.input.len()))),
                None => return Ok(()),
                // The session's end, or its connection's, tells itself as an event.
                Some(Err(error)) => {
                    tracing::debug!(%error, "session does not read its terminal any more");
                    self.sink = None;
                }
            }
        }
        if self.sink.is_none() {
            self.input.clear();
        }
        Ok(())
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(wait_for(&mut fds, Duration::ZERO), Ok(1))
}

fn wait_for(fds: &mut [PollFd<'_>], time: Duration) -> io::Result<usize> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match poll(fds, Some(&time)) {
        Err(Errno::INTR) => Ok(0),
        result => Ok(result?),
    }
}
