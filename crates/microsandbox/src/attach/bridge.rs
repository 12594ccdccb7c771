//! The thread that copies between the terminal and a session.

use crate::attach::keys::Typed;
use crate::attach::terminal::Terminal;
use crate::attach::{Claim, DetachKeys};
use crate::completion::{Pending, completion};
use crate::error::{Error, MicrosandboxResult};
use crate::output::ExitStatus;
use crate::runtime;
use bytes::Bytes;
use msb_client::{Credit, Event, ExecCore, Next, SinkCore};
use msb_wire::TtySize;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the size of the terminal is checked.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum of typed bytes that are buffered before they are sent.
const TYPED_MAX: usize = 4096;
/// Maximum of bytes per write: what a pipe that polls writable accepts without blocking.
const WRITE_MAX: usize = 4096;
/// The code of a detached session.
const DETACHED: i32 = -1;
/// A shell adds this to the number of a signal that killed a command.
const SIGNAL_BASE: i32 = 128;

/// The result of an attach.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachOutcome {
    /// The session's id, for reattaching.
    pub session_id: String,
    /// The command's exit status; `None` if it was detached and continues to run.
    pub status: Option<ExitStatus>,
}

impl AttachOutcome {
    /// Returns the code that a shell would: the exit code, or 128 plus the number of the signal
    /// that killed the command; -1 if it was detached.
    pub fn code(&self) -> i32 {
        self.status.map_or(DETACHED, |status| match status.signal {
            Some(signal) => SIGNAL_BASE + signal,
            None => status.code,
        })
    }
}

/// The session to attach to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) core: ExecCore,
    pub(crate) keys: DetachKeys,
    /// The size of the session's terminal; `None` for an existing session, whose terminal had the
    /// size of another one.
    pub(crate) size: Option<TtySize>,
    /// How many bytes of the output another terminal has displayed. They are not displayed again,
    /// but mode changes in them are applied to this terminal.
    pub(crate) shown: u64,
}

/// Attaches the terminal to a session until the session ends or is detached. Dropping the future
/// detaches at once.
pub(crate) async fn attach(claim: Claim, session: Session) -> MicrosandboxResult<AttachOutcome> {
    let session_id = session.core.session().to_string();
    let failed = |error| Error::io("cannot make an event descriptor", error);
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
    let (promise, pending) = completion();
    let stopped = Arc::clone(&stop);
    let thread = runtime::spawn_joinable("msb-attach", move || {
        // The terminal is restored before the promise completes, also after a panic.
        promise.complete(claim.raw().and_then(|terminal| {
            let Session { core, keys, size, shown } = session;
            let sink = core.take_sink().map(SinkCore::leaving_input_open);
            let typed = Typed::default();
            let (screen, input, leaving, size_checked) = (None, Vec::new(), false, None);
            let mut bridge = Bridge {
                core,
                sink,
                terminal,
                keys,
                typed,
                size,
                size_checked,
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

/// The running thread, from the side of its waiter.
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
        // Cannot fail: the counter is written once.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Its promise has reported a panic.
            let _ = thread.join();
        }
    }
}

struct Bridge {
    core: ExecCore,
    /// The session's input, while the command reads it.
    sink: Option<SinkCore>,
    terminal: Terminal,
    keys: DetachKeys,
    typed: Typed,
    size: Option<TtySize>,
    /// When the terminal's size was last checked.
    size_checked: Option<Instant>,
    /// How many bytes of output are still to be skipped.
    shown: u64,
    /// Output that is not yet written, and its credit.
    screen: Option<(Bytes, Credit)>,
    /// Typed bytes that are not yet sent.
    input: Vec<u8>,
    /// Detach as soon as all typed bytes are sent.
    leaving: bool,
}

/// What can continue after a wait.
#[derive(Debug, Default)]
struct Readiness {
    stop: bool,
    write: bool,
    read: bool,
}

impl Bridge {
    /// Runs until the end. Returns the command's exit status; `None` if it was detached.
    fn run(&mut self, stop: &OwnedFd) -> MicrosandboxResult<Option<ExitStatus>> {
        loop {
            self.send_size();
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

    /// Waits until something can continue, or the size has to be checked.
    fn wait(&self, stop: &OwnedFd) -> MicrosandboxResult<Readiness> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        // One piece of output at a time: the rest stays in the session's queue.
        let (source, flags) = match self.screen {
            Some(_) => (self.terminal.output(), PollFlags::OUT),
            None => (self.core.fd()?, PollFlags::IN),
        };
        fds.push(PollFd::from_borrowed_fd(source, flags));
        // The terminal is not read while earlier input cannot be sent.
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

    /// Sends the terminal's size to the session if it has changed.
    ///
    /// After a reattach the screen is empty, but the program redraws it only if the size changes.
    /// So the session first gets a size with one row less, and the actual size at the next check.
    fn send_size(&mut self) {
        if self.size_checked.is_some_and(|size_checked| size_checked.elapsed() < SIZE_INTERVAL) {
            return;
        }
        self.size_checked = Some(Instant::now());
        let Some(mut size) = self.terminal.size() else { return };
        if self.size.is_none() && size.rows > 1 {
            size.rows -= 1;
        }
        if self.size != Some(size) {
            self.size = Some(size);
            // A session that has ended needs no size; its end is an event.
            drop(self.core.resize::<Error>(size.rows, size.cols));
        }
    }

    /// Takes the next event if the last one was processed. Returns the exit status at the end.
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

    /// Returns the part of the output that is to be displayed.
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

    /// Reads typed bytes, and none that follow the detach keys.
    fn read(&mut self) -> MicrosandboxResult<()> {
        let mut buffer = [0; 64];
        while self.input.len() < TYPED_MAX {
            let at_most = self.keys.at_most(self.typed).min(buffer.len());
            let room = buffer.get_mut(..at_most).unwrap_or_default();
            let count = match rustix::io::read(self.terminal.input(), room) {
                Ok(0) => {
                    // No key ends the input of a raw terminal: it was hung up.
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

    /// Detaches if the terminal was hung up.
    fn hung_up(&mut self, error: Errno, what: &str) -> MicrosandboxResult<()> {
        if error != Errno::IO {
            return Err(Error::io(what, error));
        }
        self.leaving = true;
        Ok(())
    }

    /// Sends typed bytes, as far as there is room.
    fn pass_on(&mut self) -> MicrosandboxResult<()> {
        while let (Some(sink), false) = (&self.sink, self.input.is_empty()) {
            match sink.try_write(&self.input) {
                Some(Ok(written)) => drop(self.input.drain(..written.min(self.input.len()))),
                None => return Ok(()),
                // The end of the session or of its connection is an event.
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
