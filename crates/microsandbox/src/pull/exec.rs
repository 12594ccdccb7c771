//! A command whose events are pulled by the caller.

use crate::completion::Pending;
use crate::error::MicrosandboxResult;
use crate::event::{Ending, ExecStdinError};
use crate::options::ExecOptions;
use crate::reattach::ReattachFrom;
use crate::record::{ExecRecord, Gathered, Settings};
use crate::sandbox::{Program, Sandbox};
use crate::sink::ExecSink;
use bytes::Bytes;
use msb_client::{
    self as client, Batch, Connection, Credit, ExecCore, ExecRequest, Joined, StreamEnd, lock,
};
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{OutputStream, Scope};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Number of events that a collecting call takes at once.
const BATCH: usize = 64;

/// A validated request to start a command.
#[derive(Debug)]
pub struct Request {
    exec: ExecRequest,
    settings: Settings,
}

impl Request {
    /// Combines a program, its options and the sandbox's defaults.
    pub fn new(
        sandbox: &Sandbox,
        program: Program,
        options: ExecOptions,
    ) -> MicrosandboxResult<Request> {
        let (exec, settings) = sandbox.request_for(program, options)?;
        Ok(Request { exec, settings })
    }
}

/// A connection to a running sandbox.
#[derive(Debug)]
pub struct Link(Arc<Connection>);

impl Link {
    /// Returns the sandbox's open connection, if there is one.
    pub fn live(sandbox: &Sandbox) -> Option<Link> {
        sandbox.live_connection().map(Link)
    }

    /// Connects to a sandbox, unless it has an open connection.
    pub async fn connect(sandbox: Sandbox) -> MicrosandboxResult<Link> {
        sandbox.connect().await.map(Link)
    }

    /// Starts a command. Never blocks.
    pub fn start(&self, request: Request) -> MicrosandboxResult<Exec> {
        let core = ExecCore::start(&self.0, request.exec)?;
        Ok(Exec::new(core, ExecRecord::new(request.settings)))
    }
}

/// The result of receiving one event.
#[derive(Debug)]
pub enum Next {
    /// An event, which the caller now owns.
    Event(Event),
    /// No event yet.
    Nothing,
    /// No further events.
    End(StreamEnd),
}

/// An event of a command.
#[derive(Debug)]
pub enum Event {
    /// The command is running; its process id in the guest.
    Started(u32),
    /// Bytes from standard output. Dropping the credit allows the command to send more.
    Stdout(Bytes, Credit),
    /// Bytes from standard error, and their credit.
    Stderr(Bytes, Credit),
    /// The command no longer reads its input.
    StdinError(ExecStdinError),
    /// The command ended.
    Ended(Ending),
}

impl From<client::Received> for Event {
    fn from(client::Received { event, credit }: client::Received) -> Event {
        match event {
            client::Event::Started { pid } => Event::Started(pid),
            client::Event::Output(OutputStream::Stdout, data) => Event::Stdout(data, credit),
            client::Event::Output(OutputStream::Stderr, data) => Event::Stderr(data, credit),
            client::Event::StdinError(error) => Event::StdinError(error.into()),
            client::Event::Exited(exited) => Event::Ended(Ending::Exited((&exited).into())),
            client::Event::Failed(failure) => Event::Ended(Ending::Failed(failure.into())),
            client::Event::Lost(lost) => Event::Ended(Ending::Lost(lost)),
        }
    }
}

/// A command: its events, and the means to control it. Every method may be called from any thread;
/// those that take events run one at a time, and a concurrent call fails with [`ErrorKind::Busy`].
/// Dropping this never kills the command.
///
/// [`ErrorKind::Busy`]: crate::ErrorKind::Busy
#[derive(Debug)]
pub struct Exec {
    pub(crate) core: ExecCore,
    /// Locked only briefly, by the call that takes events.
    record: Mutex<ExecRecord>,
}

impl Exec {
    pub(crate) fn new(core: ExecCore, record: ExecRecord) -> Exec {
        Exec { core, record: Mutex::new(record) }
    }

    /// Follows a session by its id; see [`Sandbox::reattach`].
    pub async fn reattach(
        sandbox: &Sandbox,
        session_id: &str,
        from: ReattachFrom,
    ) -> MicrosandboxResult<Exec> {
        let (core, joined) = sandbox.join(session_id, from.position()).await?;
        Ok(Exec::joined(core, &joined))
    }

    pub(crate) fn joined(core: ExecCore, joined: &Joined) -> Exec {
        Exec::new(core, ExecRecord::joined(joined.from, joined.missed))
    }

    pub(crate) fn record<R>(&self, f: impl FnOnce(&mut ExecRecord) -> R) -> R {
        f(&mut lock(&self.record))
    }

    /// Returns the session's id: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        self.core.session().to_string()
    }

    /// Returns the position in the output; see [`ExecHandle::position`](crate::ExecHandle::position).
    pub fn position(&self) -> u64 {
        self.record(|record| record.position())
    }

    /// Returns how many bytes are no longer buffered; see
    /// [`ExecHandle::missed`](crate::ExecHandle::missed).
    pub fn missed(&self) -> u64 {
        self.record(|record| record.missed())
    }

    /// Takes the writing end of standard input. Returns `None` if there is none, or it was taken
    /// before.
    pub fn take_stdin(&self) -> Option<ExecSink> {
        self.core.take_sink().map(ExecSink::new)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32, scope: Scope) -> MicrosandboxResult<Pending<()>> {
        Ok(self.core.signal(signal, scope)?)
    }

    /// Resizes the command's terminal; fails without one.
    pub fn resize(&self, rows: u16, cols: u16) -> MicrosandboxResult<Pending<()>> {
        Ok(self.core.resize(rows, cols)?)
    }

    /// Returns a descriptor that polls readable while there is an event or the end.
    pub fn fd(&self) -> MicrosandboxResult<BorrowedFd<'_>> {
        Ok(self.core.fd()?)
    }

    /// Stops following. A waiting call returns at once; the command continues to run.
    pub fn close(&self) {
        self.core.close();
    }

    /// Takes the next event; waits until the deadline.
    pub fn recv(&self, deadline: Option<Instant>) -> MicrosandboxResult<Next> {
        // Held until the event is recorded.
        let turn = self.core.turn()?;
        Ok(match turn.next(deadline)? {
            client::Next::Event(received) => {
                self.record(|record| record.note(&received.event));
                Next::Event(received.into())
            }
            client::Next::Nothing => Next::Nothing,
            client::Next::End(end) => {
                self.record(|record| record.ended(end));
                Next::End(end)
            }
        })
    }

    /// Takes up to `max` available events; waits until the deadline for the first.
    pub fn recv_many(
        &self,
        deadline: Option<Instant>,
        max: usize,
        mut each: impl FnMut(Event),
    ) -> MicrosandboxResult<Batch> {
        let mut taken = Vec::new();
        let turn = self.core.turn()?;
        let batch = turn.batch(deadline, max, &mut taken)?;
        self.record(|record| {
            taken.iter().for_each(|received| record.note(&received.event));
            if let Batch::End(end) = batch {
                record.ended(end);
            }
        });
        drop(turn);
        taken.into_iter().for_each(|received| each(received.into()));
        Ok(batch)
    }

    /// Waits until the command has ended, and discards its output until then; `None` if the
    /// deadline passes first.
    pub fn wait(&self, deadline: Option<Instant>) -> MicrosandboxResult<Option<Ending>> {
        let (turn, mut patience) = (self.core.turn()?, Patience::until(deadline));
        loop {
            if let Some(ending) = self.record(|record| record.ending().cloned()) {
                return Ok(Some(ending));
            }
            match turn.next(deadline)? {
                client::Next::Event(received) => {
                    let (ended, position) = self.record(|record| {
                        record.note(&received.event);
                        (record.ending().is_some(), record.position())
                    });
                    if !ended && patience.is_over(position) {
                        turn.leave_unfinished();
                        return Ok(None);
                    }
                }
                client::Next::Nothing => return Ok(None),
                client::Next::End(end) => self.record(|record| {
                    record.ended(end);
                    record.known_ending().map(drop)
                })?,
            }
        }
    }

    /// Collects the output that was not taken before, up to the end of the stream; `None` if the
    /// deadline passes first. The next call then continues with what was collected.
    pub fn collect(
        &self,
        deadline: Option<Instant>,
    ) -> MicrosandboxResult<Option<(Ending, Gathered, StreamEnd)>> {
        let (turn, mut patience) = (self.core.turn()?, Patience::until(deadline));
        let mut taken = Vec::new();
        loop {
            match turn.batch(deadline, BATCH, &mut taken)? {
                Batch::Events => {
                    let position = self.record(|record| {
                        taken.iter().for_each(|received| record.gather(&received.event));
                        record.position()
                    });
                    taken.clear();
                    if patience.is_over(position) {
                        turn.leave_unfinished();
                        return Ok(None);
                    }
                }
                Batch::Nothing => return Ok(None),
                Batch::End(end) => {
                    return self.record(|record| {
                        record.ended(end);
                        let ending = record.known_ending()?.clone();
                        Ok(Some((ending, record.take_gathered(), end)))
                    });
                }
            }
        }
    }
}

/// How long a call that takes many events continues.
///
/// A command that never pauses always has another event, so the deadline must end the call while
/// there are more. Output that was available at the deadline is still taken, at most a window of
/// it: a call with a deadline in the past takes everything that is available.
#[derive(Debug)]
struct Patience {
    deadline: Option<Instant>,
    /// The position up to which output can have been available at the deadline.
    last: Option<u64>,
}

impl Patience {
    fn until(deadline: Option<Instant>) -> Patience {
        Patience { deadline, last: None }
    }

    /// Returns whether the call must end, having taken the output up to `position`.
    fn is_over(&mut self, position: u64) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            && position >= *self.last.get_or_insert(position.saturating_add(OUTPUT_WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn patience_ends_a_window_behind_the_deadline() {
        let mut endless = Patience::until(None);
        assert!(!endless.is_over(0) && !endless.is_over(u64::MAX));
        let mut patience = Patience::until(Some(Instant::now()));
        assert!(!patience.is_over(5) && !patience.is_over(5 + OUTPUT_WINDOW - 1));
        assert!(patience.is_over(5 + OUTPUT_WINDOW));
        let mut early = Patience::until(Some(Instant::now() + Duration::from_secs(3600)));
        assert!(!early.is_over(0) && !early.is_over(2 * OUTPUT_WINDOW));
    }
}
