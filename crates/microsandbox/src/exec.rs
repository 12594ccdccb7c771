//! The handle of a command.

use crate::completion::Pending;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::event::{Ending, ExecEvent};
use crate::output::{ExecOutput, ExitStatus};
use crate::pull::{Event, Exec};
use crate::record::ExecRecord;
use crate::runtime;
use crate::sink::ExecSink;
use msb_client::{Connection, ExecCore, Next, Received, SIGKILL};
use msb_wire::{Scope, SessionId};
use std::sync::Arc;

/// The handle of a started command: its events, and the means to control it.
///
/// Dropping the handle never kills the command, which continues to run without a reader.
#[derive(Debug)]
pub struct ExecHandle {
    exec: Exec,
    kill_on_drop: bool,
}

impl ExecHandle {
    pub(crate) fn new(exec: Exec) -> Self {
        ExecHandle { exec, kill_on_drop: false }
    }

    /// Kills the command when this handle is dropped, for one that no other handle can reach.
    pub(crate) fn kill_on_drop(mut self) -> Self {
        self.kill_on_drop = true;
        self
    }

    /// Waits for the next event. Returns `None` at the end of the stream, and on every later call.
    ///
    /// Cancel-safe: dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<ExecEvent> {
        let received = self.next().await?;
        self.exec.record(|record| record.note(&received.event));
        // The event is consumed here, so its credit is returned.
        Some(match Event::from(received) {
            Event::Started(pid) => ExecEvent::Started { pid },
            Event::Stdout(data, _) => ExecEvent::Stdout(data),
            Event::Stderr(data, _) => ExecEvent::Stderr(data),
            Event::StdinError(error) => ExecEvent::StdinError(error),
            Event::Ended(Ending::Exited(status)) => ExecEvent::Exited { code: status.code },
            Event::Ended(Ending::Failed(failed)) => ExecEvent::Failed(failed),
            Event::Ended(Ending::Lost(lost)) => ExecEvent::Lost(lost),
        })
    }

    /// Waits until the command has exited, and discards its output until then. Output that other
    /// processes write afterwards can still be received.
    pub async fn wait(&mut self) -> MicrosandboxResult<ExitStatus> {
        while self.exec.record(|record| record.ending().is_none())
            && let Some(received) = self.next().await
        {
            self.exec.record(|record| record.note(&received.event));
        }
        self.checked(|record| record.status())
    }

    /// Waits for the end of the stream and collects the remaining output.
    ///
    /// Cancel-safe: if the future is dropped, the next call continues with what was collected.
    pub async fn collect(&mut self) -> MicrosandboxResult<ExecOutput> {
        while let Some(received) = self.next().await {
            self.exec.record(|record| record.gather(&received.event));
        }
        self.checked(ExecRecord::output)
    }

    /// Returns the session's id: 32 hexadecimal digits, never reused.
    pub fn id(&self) -> String {
        self.exec.id()
    }

    /// Returns the position in the output: the number of bytes up to the last one that this handle
    /// returned, collected or discarded. [`Sandbox::reattach`](crate::Sandbox::reattach) can
    /// continue there.
    pub fn position(&self) -> u64 {
        self.exec.position()
    }

    /// Returns how many requested bytes of output are no longer buffered; the output of this handle
    /// begins after them. Always 0 for a handle that started its command.
    pub fn missed(&self) -> u64 {
        self.exec.missed()
    }

    /// Returns a handle for signals and terminal sizes, which can be cloned and used concurrently.
    pub fn control(&self) -> ExecControl {
        ExecControl::new(&self.exec.core)
    }

    /// Takes the writing end of standard input. Returns `None` if there is none, or it was taken
    /// before.
    pub fn take_stdin(&mut self) -> Option<ExecSink> {
        self.exec.take_stdin()
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.exec.signal(signal, Scope::Group)?.await
    }

    /// Kills all processes that the command started.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.exec.signal(SIGKILL, Scope::Everything)?.await
    }

    /// Resizes the command's terminal; an error without one.
    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        self.exec.resize(rows, cols)?.await
    }

    async fn next(&mut self) -> Option<Received> {
        // A forked child receives no events, and a lock may be held forever.
        if self.exec.record(|record| record.end().is_some()) || runtime::check_fork().is_err() {
            return None;
        }
        match self.exec.core.next().await {
            Ok(Next::Event(received)) => Some(received),
            Ok(Next::End(end)) => {
                self.exec.record(|record| record.ended(end));
                None
            }
            // Unreachable: the wait has no deadline, and no other reader has this core.
            Ok(Next::Nothing) | Err(_) => None,
        }
    }

    /// Reads the record; fails in a forked child, which receives no events.
    fn checked<R>(
        &self,
        read: impl FnOnce(&mut ExecRecord) -> MicrosandboxResult<R>,
    ) -> MicrosandboxResult<R> {
        if self.exec.record(|record| record.ending().is_none()) {
            runtime::check_fork()?;
        }
        self.exec.record(read)
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        let alive = self.exec.record(|record| match record.ending() {
            None => true,
            // With `wait_for_eof`, background processes are part of the call.
            Some(Ending::Exited(_)) => record.settings().wait_for_eof && record.end().is_none(),
            Some(_) => false,
        });
        if self.kill_on_drop && alive {
            // No caller is left to receive the error.
            let _: Result<Pending<()>, Error> = self.exec.signal(SIGKILL, Scope::Everything);
        }
    }
}

/// A handle for signals and terminal sizes, separate from the events.
#[derive(Debug, Clone)]
pub struct ExecControl {
    connection: Arc<Connection>,
    session: SessionId,
    tty: bool,
}

impl ExecControl {
    pub(crate) fn new(core: &ExecCore) -> Self {
        let (session, tty) = (core.session(), core.tty());
        ExecControl { connection: Arc::clone(core.connection()), session, tty }
    }

    /// The session's id.
    pub fn id(&self) -> String {
        self.session.to_string()
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.connection.signal(self.session, signal, Scope::Group)?.await
    }

    /// Kills all processes that the command started.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.connection.signal(self.session, SIGKILL, Scope::Everything)?.await
    }

    /// Resizes the command's terminal; an error without one.
    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        if !self.tty {
            let context = "the command has no terminal";
            return Err(Error::new(ErrorKind::NotATerminal, Origin::Caller, context));
        }
        self.connection.resize(self.session, rows, cols)?.await
    }
}
