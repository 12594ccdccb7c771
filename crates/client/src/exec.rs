//! The state of one command behind its handle.

use crate::completion::{Pending, completion};
use crate::connection::Connection;
use crate::deadlines::Times;
use crate::error::Error;
use crate::input::Input;
use crate::link::{Channel, Credit, Joined, Route};
use crate::queue::{Batch, Event, Queue, Refused, StreamEnd, Taken};
use crate::sink::SinkCore;
use bytes::Bytes;
use msb_wire::limits::{DRAIN_MILLIS, OUTPUT_WINDOW, TEXT};
use msb_wire::{Attach, Failure, FailureKind, Message, Scope, SessionId, Stage, StdinMode};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Linux's `errno` for "argument list too long".
const E2BIG: i32 = 7;

/// A command to start.
#[derive(Debug)]
pub struct ExecRequest {
    /// The request. Its `stdin` is set from the field `stdin`.
    pub exec: msb_wire::Exec,
    /// The source of its standard input.
    pub stdin: StdinSource,
}

/// The source of standard input.
#[derive(Debug, Clone, Default)]
pub enum StdinSource {
    /// `/dev/null`.
    #[default]
    Null,
    /// A sink.
    Pipe,
    /// These bytes, then end of file.
    Bytes(Bytes),
}

/// A received event and its credit. Dropping the credit returns it to the command.
#[derive(Debug)]
pub struct Received {
    /// The event.
    pub event: Event,
    /// Its credit.
    pub credit: Credit,
}

/// The result of reading the queue.
#[derive(Debug)]
pub enum Next {
    /// An event, which was removed from the queue.
    Event(Received),
    /// No event yet.
    Nothing,
    /// No further events.
    End(StreamEnd),
}

/// See the module. Every method may be called from any thread; only those documented to wait block.
/// Dropping this closes it.
#[derive(Debug)]
pub struct ExecCore {
    connection: Arc<Connection>,
    channel: Arc<Channel>,
    tty: bool,
    closed: AtomicBool,
}

impl ExecCore {
    /// Starts a command. Returns at once; a failure to start is an event.
    pub fn start(connection: &Arc<Connection>, request: ExecRequest) -> Result<ExecCore, Error> {
        let ExecRequest { mut exec, stdin } = request;
        let (session, tty, window) = (exec.session, exec.tty.is_some(), exec.window);
        let pipe = !matches!(stdin, StdinSource::Null);
        exec.stdin = if pipe { StdinMode::Pipe } else { StdinMode::Null };
        let program = exec.argv.first().map(|program| program.to_vec()).unwrap_or_default();
        let times = Times {
            timeout: exec.timeout_ns.map(Duration::from_nanos),
            drain: (!exec.wait_for_eof).then(|| {
                let usual = Duration::from_millis(DRAIN_MILLIS);
                exec.drain_ns.map_or(usual, Duration::from_nanos)
            }),
        };
        let make = |id| {
            let (link, queue, input) =
                (Arc::clone(&connection.link), Queue::new(window), Input::new(pipe));
            Arc::new(Channel::new(id, session, link, queue, input, times))
        };
        let opened = connection.link.open(Message::Exec(exec), |id| {
            let channel = make(id);
            (Route::Exec(Arc::clone(&channel)), channel)
        })?;
        let channel = match opened {
            Some(channel) => channel,
            None => {
                let channel = make(0);
                channel.on_message(Message::Failed(too_long(program))).map_err(Error::Internal)?;
                channel
            }
        };
        tracing::debug!(session = %session, channel = channel.id, "exec requested");
        if let StdinSource::Bytes(data) = stdin
            && let Some(sink) = SinkCore::take(connection, &channel)
        {
            drop(connection.link.runtime.spawn(sink.feed(data)));
        }
        Ok(ExecCore::new(Arc::clone(connection), channel, tty))
    }

    /// Follows a session from a position, or from now on. `exec` describes the command for the
    /// handle; the pending result reports whether the session exists.
    pub fn join(
        connection: &Arc<Connection>,
        session: SessionId,
        from: Option<u64>,
    ) -> Result<(ExecCore, Pending<Joined>), Error> {
        let (promise, pending) = completion();
        let attach = Attach { session, from, window: OUTPUT_WINDOW };
        let opened = connection.link.open(Message::Attach(attach), |id| {
            let (link, queue) = (Arc::clone(&connection.link), Queue::joining(OUTPUT_WINDOW));
            let (input, times) = (Input::new(false), Times::default());
            let channel = Arc::new(Channel::new(id, session, link, queue, input, times));
            (Route::Join(Arc::clone(&channel), promise.into()), channel)
        })?;
        let channel =
            opened.ok_or_else(|| Error::internal("a request was longer than its kind may be"))?;
        tracing::debug!(session = %session, channel = channel.id, "attach requested");
        Ok((ExecCore::new(Arc::clone(connection), channel, false), pending))
    }

    fn new(connection: Arc<Connection>, channel: Arc<Channel>, tty: bool) -> Self {
        ExecCore { connection, channel, tty, closed: AtomicBool::new(false) }
    }

    /// Records the agent's answer to the join.
    pub fn note(&mut self, joined: &Joined) {
        self.tty = joined.tty;
    }

    /// Returns the session's id.
    pub fn session(&self) -> SessionId {
        self.channel.session
    }

    /// Returns the connection of the command.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns whether the command has a terminal.
    pub fn tty(&self) -> bool {
        self.tty
    }

    /// Takes the next event if there is one. Fails with `Busy` while another call waits for one.
    pub fn try_next(&self) -> Result<Next, Error> {
        let take = |queue: &mut Queue| queue.may_read().map(|()| queue.take());
        Ok(self.next_of(self.channel.queue.with(take).map_err(refused)?))
    }

    /// Waits for the next event. Cancel-safe: dropping the future loses no event.
    pub async fn next(&self) -> Result<Next, Error> {
        let _turn = self.turn()?;
        let take = |queue: &mut Queue| queue.take_in_turn(Queue::take);
        Ok(self.next_of(Some(self.channel.queue.until(take).await.map_err(refused)?)))
    }

    /// Reserves reading for one call, which may block repeatedly. Fails with `Busy` while another
    /// call holds the turn.
    pub fn turn(&self) -> Result<Turn<'_>, Error> {
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

    /// Returns a descriptor that polls readable while there is an event or the end.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.channel.queue.fd().map_err(Error::io("cannot make an event descriptor"))
    }

    /// Sends a signal to the processes of the command.
    pub fn signal<E>(&self, signal: i32, scope: Scope) -> Result<Pending<(), E>, Error>
    where
        E: From<Error> + Send + 'static,
    {
        self.connection.signal(self.session(), signal, scope)
    }

    /// Resizes the command's terminal.
    pub fn resize<E>(&self, rows: u16, cols: u16) -> Result<Pending<(), E>, Error>
    where
        E: From<Error> + Send + 'static,
    {
        if !self.tty {
            return Err(Error::NotATerminal);
        }
        self.connection.resize(self.session(), rows, cols)
    }

    /// Takes the writing end of the command's input; `None` if there is none or it was taken
    /// before.
    pub fn take_sink(&self) -> Option<SinkCore> {
        SinkCore::take(&self.connection, &self.channel)
    }

    /// Stops following. A waiting call returns an error; the command continues to run. Idempotent.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (events, grant) = self.channel.queue.with(Queue::close);
        drop(events);
        if let Some(limit) = grant {
            self.channel.link.grant(self.channel.id, limit);
        }
        self.channel.remove_holder();
    }
}

impl Drop for ExecCore {
    fn drop(&mut self) {
        self.close();
    }
}

/// The exclusive right to take events; a second caller gets [`Error::Busy`].
#[derive(Debug)]
pub struct Turn<'a>(&'a ExecCore);

impl Turn<'_> {
    /// Blocks until there is an event; [`Next::Nothing`] when the deadline passes. Fails with
    /// `Closed` as soon as another thread closes the handle.
    pub fn next(&self, deadline: Option<Instant>) -> Result<Next, Error> {
        let take = |queue: &mut Queue| queue.take_in_turn(Queue::take);
        let taken = self.0.channel.queue.sleep(deadline, take).transpose().map_err(refused)?;
        Ok(self.0.next_of(taken))
    }

    /// Waits as [`Turn::next`] for the first event, then appends up to `max` available events to
    /// `events`. The result describes the first.
    pub fn batch(
        &self,
        deadline: Option<Instant>,
        max: usize,
        events: &mut Vec<Received>,
    ) -> Result<Batch, Error> {
        let take = |queue: &mut Queue| queue.take_in_turn(|queue| queue.take_many(max));
        let taken = self.0.channel.queue.sleep(deadline, take).transpose().map_err(refused)?;
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
    /// Ends the turn while there may be more events, and signals the descriptor again.
    pub fn leave_unfinished(self) {
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
        Refused::Busy => Error::Busy,
        Refused::Closed => Error::Closed,
    }
}

/// Returns the failure that the kernel reports for arguments of this size, which do not fit into a
/// frame.
fn too_long(mut path: Vec<u8>) -> Failure {
    path.truncate(TEXT);
    Failure {
        kind: FailureKind::BadArgs,
        stage: Stage::Execve,
        errno: E2BIG,
        path,
        message: "the arguments and the environment are too long".to_owned(),
    }
}
