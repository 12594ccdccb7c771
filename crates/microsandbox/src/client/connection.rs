//! A connection to the agent of one sandbox, shared by all its sessions.

use super::SIGKILL;
use crate::client::completion::{Pending, Promise, completion};
use crate::client::deadlines::Limits;
use crate::client::link::{Link, Route, gone, receive, violation};
use crate::error::{Error, ErrorKind, Origin};
use crate::event::ExecLost;
use crate::runtime;
use bytes::BytesMut;
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{ERROR_TEXT, SIGNAL_MAX};
use msb_wire::{
    Decoder, Frame, Hello, Message, Peer, ResizeRequest, Scope, SessionId, SessionInfo,
    SignalRequest, TtySize, agree, one_line,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// See the module. Dropping the last reference closes the connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) link: Arc<Link>,
}

impl Connection {
    /// Wraps a socket that is connected to an agent, and exchanges greetings.
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

    /// Returns why the connection was lost, if it was.
    pub(crate) fn lost(&self) -> Option<ExecLost> {
        self.link.lost()
    }

    /// Returns whether a new request can still be answered: neither end has closed the connection,
    /// whether or not its end was read already.
    pub(crate) fn is_open(&self) -> bool {
        self.lost().is_none() && !self.link.is_hung_up()
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
        let killed = (signal == SIGKILL).then_some(session);
        self.request(Message::Signal(SignalRequest { session, signal, scope }), killed)
    }

    /// Resizes the terminal of a session.
    pub(crate) fn resize(
        &self,
        session: SessionId,
        rows: u16,
        cols: u16,
    ) -> Result<Pending<()>, Error> {
        let size = checked_size(rows, cols)?;
        self.request(Message::Resize(ResizeRequest { session, size }), None)
    }

    /// Lists the sessions.
    pub(crate) fn sessions(&self) -> Result<Pending<Vec<SessionInfo>>, Error> {
        let (promise, pending) = completion();
        self.link.open(Message::List, |_| (Route::Sessions(promise), ()))?;
        Ok(pending)
    }

    /// Asks for something about a session, which may be that it ends. With the connection, what is
    /// known of it is lost.
    fn request(&self, message: Message, killed: Option<SessionId>) -> Result<Pending<()>, Error> {
        if let Some(lost) = self.lost() {
            return Err(Error::lost(&lost));
        }
        let (promise, pending) = completion();
        self.link.open(message, |_| (Route::Verdict(promise, killed), ()))?;
        Ok(pending)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.abandon();
    }
}

/// Validates the size of a terminal.
pub(crate) fn checked_size(rows: u16, cols: u16) -> Result<TtySize, Error> {
    if rows == 0 || cols == 0 {
        return Err(Error::invalid(format!("a terminal of {rows} rows and {cols} columns")));
    }
    Ok(TtySize { rows, cols })
}

/// Runs a connection on the I/O thread.
pub(super) async fn live(stream: Stream, limits: Limits, promise: Promise<Arc<Connection>>) {
    let greeted = tokio::time::timeout(limits.answer, greet(&stream)).await;
    let Ok(greeted) = greeted else {
        return promise.complete(Err(Error::lost(&ExecLost::unanswered(limits.answer))));
    };
    match greeted {
        Ok((decoder, buffer)) => {
            let link = Arc::new(Link::new(stream, limits));
            promise.complete(Ok(Arc::new(Connection { link: Arc::clone(&link) })));
            link.run(decoder, buffer).await;
        }
        Err(lost) => {
            // An agent that hangs up before its greeting is shutting down; no request was sent.
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

/// Returns the error of a second concurrent read.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Busy, Origin::Caller, "another call reads from this handle already")
}
