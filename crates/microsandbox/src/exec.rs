//! A command as its caller holds it.

use crate::client::{Connection, ExecCore, Next, Pending, Received, SIGKILL};
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::event::{Ending, ExecEvent};
use crate::output::{ExecOutput, ExitStatus};
use crate::pull::{Event, Exec};
use crate::record::ExecRecord;
use crate::runtime;
use crate::sink::ExecSink;
use msb_wire::{Scope, SessionId};
use std::sync::Arc;

/// A command that was started, its events, and the means to act on it.
///
/// Dropping the handle never kills the command: it runs on, and nobody listens.
#[derive(Debug)]
pub struct ExecHandle {
    exec: Exec,
    kill_on_drop: bool,
}

impl ExecHandle {
    pub(crate) fn new(exec: Exec) -> Self {
        ExecHandle { exec, kill_on_drop: false }
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
        let received = self.next().await?;
        self.exec.record(|record| record.note(&received.event));
        // Taking an event is using it up: its credit is dropped here.
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

    /// Waits until the command has exited, and throws away output that comes until then. What
    /// other processes still write can be received afterwards.
    pub async fn wait(&mut self) -> MicrosandboxResult<ExitStatus> {
        while self.exec.record(|record| record.ending().is_none())
            && let Some(received) = self.next().await
        {
            self.exec.record(|record| record.note(&received.event));
        }
        self.checked(|record| record.status())
    }

    /// Waits for the end of the events and collects what is left of the output.
    ///
    /// When the future is dropped, what was collected stays here for the next call.
    pub async fn collect(&mut self) -> MicrosandboxResult<ExecOutput> {
        while let Some(received) = self.next().await {
            self.exec.record(|record| record.gather(&received.event));
        }
        self.checked(ExecRecord::output)
    }

    /// The session's id: 32 hexadecimal digits, never used again.
    pub fn id(&self) -> String {
        self.exec.id()
    }

    /// Where in the output this handle is: behind the last byte that it has handed out, collected or
    /// thrown away. [`Sandbox::reattach`](crate::Sandbox::reattach) goes on there.
    pub fn position(&self) -> u64 {
        self.exec.position()
    }

    /// How many bytes of output were asked for and are no longer kept; those that follow begin
    /// behind them. Always 0 for a handle that started its command.
    pub fn missed(&self) -> u64 {
        self.exec.missed()
    }

    /// A handle for signals and sizes that can be cloned and used beside this one.
    pub fn control(&self) -> ExecControl {
        ExecControl::new(&self.exec.core)
    }

    /// Takes the writing end of standard input. `None` when there is none, or it was taken before.
    pub fn take_stdin(&mut self) -> Option<ExecSink> {
        self.exec.take_stdin()
    }

    /// Sends a signal to the command's process group.
    pub async fn signal(&self, signal: i32) -> MicrosandboxResult<()> {
        self.exec.signal(signal, Scope::Group)?.await
    }

    /// Kills everything that the command started.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.exec.signal(SIGKILL, Scope::Everything)?.await
    }

    /// Changes the size of the command's terminal; an error without one.
    pub async fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<()> {
        self.exec.resize(rows, cols)?.await
    }

    async fn next(&mut self) -> Option<Received> {
        // In a forked child nothing would ever come, and a lock may be held for ever.
        if self.exec.record(|record| record.end().is_some()) || runtime::check_fork().is_err() {
            return None;
        }
        match self.exec.core.next().await {
            Ok(Next::Event(received)) => Some(received),
            Ok(Next::End(end)) => {
                self.exec.record(|record| record.ended(end));
                None
            }
            // Neither can be: the wait has no deadline, and nobody else has this handle's core.
            Ok(Next::Nothing) | Err(_) => None,
        }
    }

    /// Reads the record; an error in a forked child, which receives no events.
    fn checked<R>(
        &self,
        look: impl FnOnce(&mut ExecRecord) -> MicrosandboxResult<R>,
    ) -> MicrosandboxResult<R> {
        if self.exec.record(|record| record.ending().is_none()) {
            runtime::check_fork()?;
        }
        self.exec.record(look)
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        let alive = self.exec.record(|record| match record.ending() {
            None => true,
            // It said that it waits for all of them.
            Some(Ending::Exited(_)) => record.settings().wait_for_eof && record.end().is_none(),
            Some(_) => false,
        });
        if self.kill_on_drop && alive {
            // No caller is left to receive the error.
            let _: Result<Pending<()>, Error> = self.exec.signal(SIGKILL, Scope::Everything);
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
