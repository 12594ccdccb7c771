//! A connection to the agent of one sandbox, shared by everything that runs in it.

use crate::client::channel::Channel;
use crate::client::completion::{Pending, Promise, completion};
use crate::client::deadlines::{Limits, Times};
use crate::client::exec::{ExecCore, ExecRequest, StdinSource};
use crate::client::link::{Joined, Link, Route, gone, receive, violation};
use crate::client::queue::Queue;
use crate::client::sink::{Input, SinkCore};
use crate::error::{Error, ErrorKind, Origin};
use crate::event::ExecLost;
use crate::runtime;
use bytes::BytesMut;
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{DRAIN_MILLIS, ERROR_TEXT, GREETING, OUTPUT_WINDOW, SIGNAL_MAX, TEXT};
use msb_wire::{
    Attach, Decoder, Failure, FailureKind, Frame, Hello, Message, Peer, ResizeRequest, Scope,
    SessionId, SessionInfo, SignalRequest, Stage, StdinMode, TtySize, agree, one_line,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// Linux's number of "argument list too long".
const E2BIG: i32 = 7;

/// See the module. The last one to drop it ends it.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Arc<Link>,
}

impl Connection {
    /// Takes over a socket that leads to an agent, and greets it.
    pub(crate) fn establish(
        socket: UnixStream,
        limits: Limits,
    ) -> Result<Pending<Arc<Connection>>, Error> {
        let runtime = runtime::get()?;
        let stream = runtime
            .enter(|| Stream::from_unix(socket))
            .map_err(|error| Error::io("cannot use the connection to the sandbox", error))?;
        let (promise, pending) = completion();
        runtime.spawn(live(stream, limits, promise));
        Ok(pending)
    }

    /// Why the connection is no more, if it is no more.
    pub(crate) fn lost(&self) -> Option<ExecLost> {
        self.link.lost()
    }

    /// Starts a command. Returns at once; whatever comes of it comes as events.
    pub(crate) fn exec(self: &Arc<Self>, request: ExecRequest) -> Result<ExecCore, Error> {
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
                (Arc::clone(&self.link), Queue::new(window), Input::new(pipe));
            Arc::new(Channel::new(id, session, link, queue, input, times))
        };
        let opened = self.link.open(Message::Exec(exec), |id| {
            let channel = make(id);
            (Route::Exec(Arc::clone(&channel)), channel)
        })?;
        let channel = match opened {
            Some(channel) => channel,
            None => {
                let channel = make(0);
                channel.on_message(Message::Failed(too_long(program))).map_err(Error::internal)?;
                channel
            }
        };
        tracing::debug!(session = %session, channel = channel.id, "exec requested");
        if let StdinSource::Bytes(data) = stdin
            && let Some(sink) = SinkCore::take(self, &channel)
        {
            runtime::get()?.spawn(sink.feed(data));
        }
        Ok(ExecCore::new(Arc::clone(self), channel, tty))
    }

    /// Follows a session from a position, or from now on. The command comes as its handle will hold
    /// it; the answer tells whether there is such a session.
    pub(crate) fn attach(
        self: &Arc<Self>,
        session: SessionId,
        from: Option<u64>,
    ) -> Result<(ExecCore, Pending<Joined>), Error> {
        let (promise, pending) = completion();
        let attach = Attach { session, from, window: OUTPUT_WINDOW };
        let opened = self.link.open(Message::Attach(attach), |id| {
            let (link, queue) = (Arc::clone(&self.link), Queue::joining(OUTPUT_WINDOW));
            let (input, times) = (Input::new(false), Times::default());
            let channel = Arc::new(Channel::new(id, session, link, queue, input, times));
            (Route::Join(Arc::clone(&channel), promise), channel)
        })?;
        let channel =
            opened.ok_or_else(|| Error::internal("a request was longer than its kind may be"))?;
        tracing::debug!(session = %session, channel = channel.id, "attach requested");
        Ok((ExecCore::new(Arc::clone(self), channel, false), pending))
    }

    /// Sends a signal to a session.
    pub(crate) fn signal(
        &self,
        session: SessionId,
        signal: i32,
        scope: Scope,
    ) -> Result<Pending<()>, Error> {
        if !(1..=i32::from(SIGNAL_MAX)).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is not the number of a signal")));
        }
        self.request(Message::Signal(SignalRequest { session, signal, scope }))
    }

    /// Changes the size of a session's terminal.
    pub(crate) fn resize(
        &self,
        session: SessionId,
        rows: u16,
        cols: u16,
    ) -> Result<Pending<()>, Error> {
        let size = checked_size(rows, cols)?;
        self.request(Message::Resize(ResizeRequest { session, size }))
    }

    /// Asks for the sessions.
    pub(crate) fn sessions(&self) -> Result<Pending<Vec<SessionInfo>>, Error> {
        let (promise, pending) = completion();
        self.link.open(Message::List, |_| (Route::Sessions(promise), ()))?;
        Ok(pending)
    }

    /// Asks for something about a session. With the connection, what is known of it is lost.
    fn request(&self, message: Message) -> Result<Pending<()>, Error> {
        if let Some(lost) = self.lost() {
            return Err(lost.to_error());
        }
        let (promise, pending) = completion();
        self.link.open(message, |_| (Route::Verdict(promise), ()))?;
        Ok(pending)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

/// A terminal's size that makes sense.
pub(crate) fn checked_size(rows: u16, cols: u16) -> Result<TtySize, Error> {
    if rows == 0 || cols == 0 {
        return Err(Error::invalid(format!("a terminal of {rows} rows and {cols} columns")));
    }
    Ok(TtySize { rows, cols })
}

/// The life of a connection on the I/O thread.
pub(super) async fn live(stream: Stream, limits: Limits, promise: Promise<Arc<Connection>>) {
    let late = || ExecLost::broken("the agent did not greet in time");
    let greeted = tokio::time::timeout(GREETING, greet(&stream)).await;
    match greeted.unwrap_or_else(|_| Err(late())) {
        Ok((decoder, buffer)) => {
            let link = Arc::new(Link::new(stream, limits));
            promise.complete(Ok(Arc::new(Connection { link: Arc::clone(&link) })));
            link.run(decoder, buffer).await;
        }
        Err(lost) => {
            // One that hangs up before it has greeted is on its way out: nothing was begun with it.
            let kind = match lost.sandbox_gone {
                true => ErrorKind::SandboxNotRunning,
                false => ErrorKind::Protocol,
            };
            let error = Error::new(kind, lost.origin, lost.to_string());
            promise.complete(Err(error.with_os_error(lost.os_error)));
        }
    }
}

async fn greet(stream: &Stream) -> Result<(Decoder, BytesMut), ExecLost> {
    let ours = Hello::ours(None);
    let mut outbox = Outbox::new();
    if !outbox.push(&Frame { channel: 0, message: Message::Hello(ours.clone()) }) {
        return Err(ExecLost::broken("the greeting is too long"));
    }
    let failed = |error: std::io::Error| gone("cannot greet the agent", &error);
    while !outbox.flush(stream).map_err(failed)? {
        stream.writable().await.map_err(failed)?;
    }
    let (mut decoder, mut buffer) = (Decoder::new(Peer::Agent), BytesMut::new());
    loop {
        match decoder.next(&mut buffer).map_err(|error| violation(&error))? {
            None => {}
            Some(Frame { message: Message::Hello(theirs), .. }) => {
                agree(&ours, &theirs).map_err(|error| ExecLost::broken(error.to_string()))?;
                return Ok((decoder, buffer));
            }
            Some(Frame { message: Message::Error(why), .. }) => {
                let why = one_line(&why, ERROR_TEXT);
                return Err(ExecLost::broken(format!("the agent turned it away: {why}")));
            }
            Some(_) => return Err(ExecLost::broken("the agent did not greet")),
        }
        if receive(stream, &mut buffer).await.map_err(failed)? == 0 {
            return Err(ExecLost::gone("it ended before the greeting", None));
        }
    }
}

/// What the kernel would say to arguments that do not even fit into a frame.
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

/// The error of reading twice at once.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Busy, Origin::Caller, "another call reads from this handle already")
}
