//! A command as its caller holds it.

use crate::client::{Connection, Event, ExecCore, Joined, Next, Pending, Received, StreamEnd};
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::event::{Ending, ExecEvent};
use crate::output::{ExecOutput, ExitStatus};
use crate::runtime;
use crate::sink::ExecSink;
use bytes::Bytes;
use msb_wire::{OutputStream, Scope, SessionId};
use std::sync::Arc;
use std::time::Duration;

/// Linux's number of SIGKILL.
pub(crate) const SIGKILL: i32 = 9;

/// A command that was started, its events, and the means to act on it.
///
/// Dropping the handle never kills the command: it runs on, and nobody listens.
#[derive(Debug)]
pub struct ExecHandle {
    core: ExecCore,
    settings: Settings,
    gathered: Gathered,
    ending: Option<Ending>,
    end: Option<StreamEnd>,
    kill_on_drop: bool,
    position: u64,
    missed: u64,
}

/// From where the output of a session is wanted.
///
/// Positions count the bytes of both outputs together, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReattachFrom {
    /// From the first byte on.
    Start,
    /// Only what is still to come.
    Now,
    /// From this position on, as [`ExecHandle::position`] tells it; one that the output has not
    /// reached yet is the same as `Now`.
    Position(u64),
}

impl ReattachFrom {
    pub(crate) fn position(self) -> Option<u64> {
        match self {
            ReattachFrom::Start => Some(0),
            ReattachFrom::Now => None,
            ReattachFrom::Position(position) => Some(position),
        }
    }
}

/// What collecting needs to know about the command's options.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_output: Option<u64>,
    pub(crate) wait_for_eof: bool,
}

/// What was collected so far. It outlives a call that is given up.
#[derive(Debug, Default)]
struct Gathered {
    stdout: Stream,
    stderr: Stream,
}

#[derive(Debug, Default)]
struct Stream {
    data: Vec<u8>,
    total: u64,
}

impl Stream {
    fn add(&mut self, data: &[u8], max: Option<u64>) {
        self.total += data.len() as u64;
        let room = max.map_or(u64::MAX, |max| max.saturating_sub(self.data.len() as u64));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.data.extend_from_slice(data.get(..room).unwrap_or(data));
    }
}

impl ExecHandle {
    pub(crate) fn new(core: ExecCore, settings: Settings) -> Self {
        let gathered = Gathered::default();
        ExecHandle {
            core,
            settings,
            gathered,
            ending: None,
            end: None,
            kill_on_drop: false,
            position: 0,
            missed: 0,
        }
    }

    /// For a session that was joined.
    pub(crate) fn joined(core: ExecCore, joined: &Joined) -> Self {
        let mut handle = ExecHandle::new(core, Settings::default());
        (handle.position, handle.missed) = (joined.from, joined.missed);
        handle
    }

    /// For a command that nobody could reach any more: it ends with this handle.
    pub(crate) fn kill_on_drop(mut self) -> Self {
        self.kill_on_drop = true;
        self
    }

    /// Waits for the next event. `None` when there is nothing more, and for ever after.
    ///
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<ExecEvent> {
        let Received { event, credit } = self.next().await?;
        // Taking an event is using it up: its room goes back to the command.
        drop(credit);
        Some(match event {
            Event::Started { pid } => ExecEvent::Started { pid },
            Event::Output(OutputStream::Stdout, data) => ExecEvent::Stdout(data),
            Event::Output(OutputStream::Stderr, data) => ExecEvent::Stderr(data),
            Event::StdinError(error) => ExecEvent::StdinError(error.into()),
            Event::Exited(exited) => ExecEvent::Exited { code: exited.code },
            Event::Failed(failure) => ExecEvent::Failed(failure.into()),
            Event::Lost(lost) => ExecEvent::Lost(lost),
        })
    }

    /// Waits until the command has exited, and throws away output that comes until then. What
    /// other processes still write can be received afterwards.
    pub async fn wait(&mut self) -> MicrosandboxResult<ExitStatus> {
        while self.ending.is_none() && self.next().await.is_some() {}
        self.status()
    }

    /// Waits for the end of the events and collects what is left of the output.
    ///
    /// When the future is dropped, what was collected stays here for the next call.
    pub async fn collect(&mut self) -> MicrosandboxResult<ExecOutput> {
        while let Some(Received { event, credit }) = self.next().await {
            if let Event::Output(stream, data) = event {
                let gathered = match stream {
                    OutputStream::Stdout => &mut self.gathered.stdout,
                    OutputStream::Stderr => &mut self.gathered.stderr,
                };
                gathered.add(&data, self.settings.max_output);
            }
            drop(credit);
        }
        let end = self.end.unwrap_or_default();
        let status = self.status()?;
        if end.cut && self.settings.wait_for_eof {
            let context = "the connection to the sandbox was lost before the end of the output";
            return Err(Error::new(ErrorKind::StreamLost, Origin::Transport, context));
        }
        let Gathered { stdout, stderr } = std::mem::take(&mut self.gathered);
        let output = ExecOutput {
            status,
            stdout_total: stdout.total,
            stderr_total: stderr.total,
            stdout: Bytes::from(stdout.data),
            stderr: Bytes::from(stderr.data),
            writer_left: end.writer_left,
        };
        match self.settings.timeout {
            Some(timeout) if status.timed_out => {
                Err(Error::ExecTimeout { timeout, output: Box::new(output) })
            }
            _ => Ok(output),
        }
    }

    /// The session's id: 32 hexadecimal digits, never used again.
    pub fn id(&self) -> String {
        self.core.session().to_string()
    }

    /// Where in the output this handle is: behind the last byte that it has handed out, collected or
    /// thrown away. [`Sandbox::reattach`](crate::Sandbox::reattach) goes on there.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes of output were asked for and are no longer kept; those that follow begin
    /// behind them. Always 0 for a handle that started its command.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A handle for signals and sizes that can be cloned and used beside this one.
    pub fn control(&self) -> ExecControl {
        let (session, tty) = (self.core.session(), self.core.tty());
        ExecControl { connection: Arc::clone(self.core.connection()), session, tty }
    }

    /// Takes the writing end of standard input. `None` when there is none, or it was taken before.
    pub fn take_stdin(&mut self) -> Option<ExecSink> {
        self.core.take_sink().map(ExecSink::new)
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.core.signal(signal, Scope::Group)?.await
    }

    /// Kills everything that the command started.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.core.signal(SIGKILL, Scope::Everything)?.await
    }

    /// Changes the size of the command's terminal; an error without one.
    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        self.core.resize(rows, cols)?.await
    }

    async fn next(&mut self) -> Option<Received> {
        // In a forked child nothing would ever come, and a lock may be held for ever.
        if self.end.is_some() || runtime::check_fork().is_err() {
            return None;
        }
        match self.core.next().await {
            Ok(Next::Event(received)) => {
                self.note(&received.event);
                Some(received)
            }
            Ok(Next::End(end)) => {
                self.end = Some(end);
                None
            }
            // Neither can be: the wait has no deadline, and nobody else has this handle's core.
            Ok(Next::Nothing) | Err(_) => None,
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Output(_, data) => self.position += data.len() as u64,
            Event::Exited(exited) => self.ending = Some(Ending::Exited(exited.into())),
            Event::Failed(failure) => self.ending = Some(Ending::Failed(failure.clone().into())),
            Event::Lost(lost) => self.ending = Some(Ending::Lost(lost.clone())),
            _ => {}
        }
    }

    fn status(&self) -> MicrosandboxResult<ExitStatus> {
        match &self.ending {
            Some(Ending::Exited(status)) => Ok(*status),
            Some(Ending::Failed(failed)) => Err(Error::ExecFailed(failed.clone())),
            Some(Ending::Lost(lost)) => Err(lost.to_error()),
            None => {
                runtime::check_fork()?;
                Err(Error::internal("the events ended without an ending"))
            }
        }
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        let alive = match &self.ending {
            None => true,
            // It said that it waits for all of them.
            Some(Ending::Exited(_)) => self.settings.wait_for_eof && self.end.is_none(),
            Some(_) => false,
        };
        if self.kill_on_drop && alive {
            // Nobody is there to be told that it failed.
            let _: Result<Pending<()>, Error> = self.core.signal(SIGKILL, Scope::Everything);
        }
    }
}

/// A handle for signals and terminal sizes, apart from the events.
#[derive(Debug, Clone)]
pub struct ExecControl {
    connection: Arc<Connection>,
    session: SessionId,
    tty: bool,
}

impl ExecControl {
    /// The session's id.
    pub fn id(&self) -> String {
        self.session.to_string()
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.connection.signal(self.session, signal, Scope::Group)?.await
    }

    /// Kills everything that the command started.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.connection.signal(self.session, SIGKILL, Scope::Everything)?.await
    }

    /// Changes the size of the command's terminal; an error without one.
    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        if !self.tty {
            let context = "the command has no terminal";
            return Err(Error::new(ErrorKind::NotATerminal, Origin::Caller, context));
        }
        self.connection.resize(self.session, rows, cols)?.await
    }
}
