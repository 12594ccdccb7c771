//! A connection to the agent of one sandbox, shared by all its sessions.

use crate::SIGKILL;
use crate::completion::{Pending, Promise, completion};
use crate::deadlines::Limits;
use crate::error::Error;
use crate::link::{Link, Route, gone, receive, violation};
use crate::lost::ExecLost;
use bytes::BytesMut;
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{ERROR_TEXT, SIGNAL_MAX};
use msb_wire::{
    Decoder, Frame, Hello, Message, Peer, ResizeRequest, Scope, SessionId, SessionInfo,
    SignalRequest, TtySize, agree, one_line,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::runtime::Handle;

/// See the module. Dropping the last reference closes the connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) link: Arc<Link>,
}

impl Connection {
    /// Wraps a socket that is connected to an agent, and exchanges greetings. The connection's
    /// tasks run on `runtime`.
    pub fn establish(
        socket: UnixStream,
        limits: Limits,
        runtime: &Handle,
    ) -> Result<Pending<Arc<Connection>>, Error> {
        let context = runtime.enter();
        let stream = Stream::from_unix(socket)
            .map_err(Error::io("cannot use the connection to the sandbox"))?;
        drop(context);
        let (promise, pending) = completion();
        drop(runtime.spawn(live(stream, runtime.clone(), limits, promise)));
        Ok(pending)
    }

    /// Returns why the connection was lost, if it was.
    pub fn lost(&self) -> Option<ExecLost> {
        self.link.lost()
    }

    /// Returns whether a new request can still be answered: neither end has closed the connection,
    /// whether or not its end was read already.
    pub fn is_open(&self) -> bool {
        self.lost().is_none() && !self.link.is_hung_up()
    }

    /// Sends a signal to a session.
    pub fn signal<E>(
        &self,
        session: SessionId,
        signal: i32,
        scope: Scope,
    ) -> Result<Pending<(), E>, Error>
    where
        E: From<Error> + Send + 'static,
    {
        if !(1..=i32::from(SIGNAL_MAX)).contains(&signal) {
            return Err(Error::Invalid(format!("{signal} is not the number of a signal")));
        }
        let killed = (signal == SIGKILL).then_some(session);
        self.request(Message::Signal(SignalRequest { session, signal, scope }), killed)
    }

    /// Resizes the terminal of a session.
    pub fn resize<E>(
        &self,
        session: SessionId,
        rows: u16,
        cols: u16,
    ) -> Result<Pending<(), E>, Error>
    where
        E: From<Error> + Send + 'static,
    {
        let size = checked_size(rows, cols)?;
        self.request(Message::Resize(ResizeRequest { session, size }), None)
    }

    /// Lists the sessions.
    pub fn sessions(&self) -> Result<Pending<Vec<SessionInfo>>, Error> {
        let (promise, pending) = completion();
        self.link.open(Message::List, |_| (Route::Sessions(promise.into()), ()))?;
        Ok(pending)
    }

    /// Asks for something about a session, which may be that it ends. With the connection, what is
    /// known of it is lost.
    fn request<E>(
        &self,
        message: Message,
        killed: Option<SessionId>,
    ) -> Result<Pending<(), E>, Error>
    where
        E: From<Error> + Send + 'static,
    {
        if let Some(lost) = self.lost() {
            return Err(Error::Lost(lost));
        }
        let (promise, pending) = completion();
        self.link.open(message, |_| (Route::Verdict(promise.into(), killed), ()))?;
        Ok(pending)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

/// Validates the size of a terminal.
pub fn checked_size(rows: u16, cols: u16) -> Result<TtySize, Error> {
    if rows == 0 || cols == 0 {
        return Err(Error::Invalid(format!("a terminal of {rows} rows and {cols} columns")));
    }
    Ok(TtySize { rows, cols })
}

/// Runs a connection on the I/O thread.
async fn live(stream: Stream, runtime: Handle, limits: Limits, promise: Promise<Arc<Connection>>) {
    let greeted = tokio::time::timeout(limits.answer, greet(&stream)).await;
    let Ok(greeted) = greeted else {
        return promise.complete(Err(Error::Lost(ExecLost::unanswered(limits.answer))));
    };
    match greeted {
        Ok((decoder, buffer)) => {
            let link = Arc::new(Link::new(stream, runtime, limits));
            promise.complete(Ok(Arc::new(Connection { link: Arc::clone(&link) })));
            link.run(decoder, buffer).await;
        }
        Err(lost) => promise.complete(Err(Error::Handshake(lost))),
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
