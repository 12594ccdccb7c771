//! One command, as its handle holds it.

use crate::client::channel::{Channel, Credit};
use crate::client::completion::Pending;
use crate::client::connection::{Connection, busy};
use crate::client::link::Joined;
use crate::client::queue::{Batch, Next, Queue, Received, Refused, StreamEnd, Taken};
use crate::client::sink::SinkCore;
use crate::error::{Error, ErrorKind, Origin};
use bytes::Bytes;
use msb_wire::{Scope, SessionId};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A command to start.
#[derive(Debug)]
pub(crate) struct ExecRequest {
    /// What to run. Its `stdin` is set by the field beside it.
    pub(crate) exec: msb_wire::Exec,
    pub(crate) stdin: StdinSource,
}

/// Where standard input comes from.
#[derive(Debug, Clone, Default)]
pub(crate) enum StdinSource {
    /// `/dev/null`.
    #[default]
    Null,
    /// A sink.
    Pipe,
    /// These bytes, then its end.
    Bytes(Bytes),
}

/// See the module. Everything can be called from any thread; nothing but the calls that say so
/// waits. Dropping it is closing it.
#[derive(Debug)]
pub(crate) struct ExecCore {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
    tty: bool,
    closed: AtomicBool,
}

impl ExecCore {
    pub(super) fn new(connection: Arc<Connection>, channel: Arc<Channel>, tty: bool) -> Self {
        ExecCore { connection, channel, tty, closed: AtomicBool::new(false) }
    }

    /// Takes in what was learned by joining the session.
    pub(crate) fn note(&mut self, joined: &Joined) {
        self.tty = joined.tty;
    }

    pub(crate) fn session(&self) -> SessionId {
        self.channel.session
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whether the command has a terminal.
    pub(crate) fn tty(&self) -> bool {
        self.tty
    }

    /// Takes the next event if there is one. Busy while another call waits for one.
    pub(crate) fn try_next(&self) -> Result<Next, Error> {
        let look = |queue: &mut Queue| queue.may_read().map(|()| queue.take());
        Ok(self.next_of(self.channel.queue.with(look).map_err(refused)?))
    }

    /// As [`ExecCore::try_next`], for a task that waits. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Result<Next, Error> {
        let _turn = self.turn()?;
        let look = |queue: &mut Queue| queue.look_in_turn(Queue::take);
        Ok(self.next_of(Some(self.channel.queue.until(look).await.map_err(refused)?)))
    }

    /// The right to take events, for one call that sleeps as often as it likes. Busy while another
    /// has it.
    pub(crate) fn turn(&self) -> Result<Turn<'_>, Error> {
        self.channel.queue.with(Queue::begin_wait).map_err(refused)?;
        Ok(Turn(self))
    }

    fn received(&self, (event, cost): Taken) -> Received {
        Received { event, credit: Credit::new(&self.channel, cost) }
    }

    fn next_of(&self, taken: Option<Result<Taken, StreamEnd>>) -> Next {
        match taken {
            None => Next::Nothing,
            Some(Err(end)) => Next::End(end),
            Some(Ok(taken)) => Next::Event(self.received(taken)),
        }
    }

    /// Polls readable while [`ExecCore::try_next`] would find something.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        let fd = self.channel.queue.fd();
        fd.map_err(|error| Error::io("cannot make an event descriptor", error))
    }

    /// Sends a signal to what the command started.
    pub(crate) fn signal(&self, signal: i32, scope: Scope) -> Result<Pending<()>, Error> {
        self.connection.signal(self.session(), signal, scope)
    }

    /// Changes the size of the command's terminal.
    pub(crate) fn resize(&self, rows: u16, cols: u16) -> Result<Pending<()>, Error> {
        if !self.tty {
            let context = "the command has no terminal";
            return Err(Error::new(ErrorKind::NotATerminal, Origin::Caller, context));
        }
        self.connection.resize(self.session(), rows, cols)
    }

    /// The writing end of the command's input; `None` when there is none or it was taken before.
    pub(crate) fn take_sink(&self) -> Option<SinkCore> {
        SinkCore::take(&self.connection, &self.channel)
    }

    /// No longer listens. Whoever waits is told so; the command runs on. Again does nothing.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (events, grant) = self.channel.queue.with(Queue::close);
        drop(events);
        if let Some(limit) = grant {
            self.channel.link.grant(self.channel.id, limit);
        }
        self.channel.let_go();
    }
}

impl Drop for ExecCore {
    fn drop(&mut self) {
        self.close();
    }
}

/// The right to take events; others are told that the handle is busy.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a ExecCore);

impl Turn<'_> {
    /// Sleeps until there is an event; [`Next::Nothing`] when the time is over. Closed as soon as
    /// another thread closes the handle.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Result<Next, Error> {
        let look = |queue: &mut Queue| queue.look_in_turn(Queue::take);
        let taken = self.0.channel.queue.sleep(deadline, look).transpose().map_err(refused)?;
        Ok(self.0.next_of(taken))
    }

    /// As [`Turn::next`], and takes up to `max` events that are there, appending them to `events`.
    /// The result is about the first of them.
    pub(crate) fn batch(
        &self,
        deadline: Option<Instant>,
        max: usize,
        events: &mut Vec<Received>,
    ) -> Result<Batch, Error> {
        let look = |queue: &mut Queue| queue.look_in_turn(|queue| queue.take_many(max));
        let taken = self.0.channel.queue.sleep(deadline, look).transpose().map_err(refused)?;
        Ok(match taken {
            None => Batch::Nothing,
            Some(Err(end)) => Batch::End(end),
            Some(Ok(taken)) => {
                events.extend(taken.into_iter().map(|taken| self.0.received(taken)));
                Batch::Events
            }
        })
    }
}

impl Turn<'_> {
    /// Ends a look although there may be more: the descriptor says so once more.
    pub(crate) fn leave_unfinished(self) {
        let core = self.0;
        drop(self);
        core.channel.queue.remind();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.channel.queue.with(Queue::end_wait);
    }
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Busy => busy(),
        Refused::Closed => Error::new(ErrorKind::Closed, Origin::Caller, "the handle was closed"),
    }
}
