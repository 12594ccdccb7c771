//! A connection to the agent of one sandbox, shared by all its sessions.

use crate::SIGKILL;
use crate::completion::{Pending, Promise, completion};
use crate::deadlines::Limits;
use crate::error::Error;
use crate::frames::greet;
use crate::link::{Link, Route};
use crate::lost::ExecLost;
use msb_transport::Stream;
use msb_wire::limits::SIGNAL_MAX;
use msb_wire::{
    Agreed, FEATURE_FS, Message, ResizeRequest, Scope, SessionId, SessionInfo, Shutdown,
    SignalRequest, TtySize,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// See the module. Dropping the last reference closes the connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) link: Arc<Link>,
    agreed: Agreed,
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

    /// Returns whether the agent knows operations on files.
    pub fn has_files(&self) -> bool {
        self.agreed.has(FEATURE_FS)
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

    /// Asks the agent for a sign of life.
    pub fn ping(&self) -> Result<Pending<()>, Error> {
        let (promise, pending) = completion();
        self.link.ping(promise.into())?;
        Ok(pending)
    }

    /// Asks the agent to end every process within `grace`, by a signal that is not SIGTERM if there
    /// is one, and itself.
    pub fn shut_down(&self, grace: Duration, signal: Option<i32>) -> Result<(), Error> {
        let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        self.link.send(0, Message::Shutdown(Shutdown { grace_ns, signal }))
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
        Ok((incoming, agreed)) => {
            let link = Arc::new(Link::new(stream, runtime, limits));
            promise.complete(Ok(Arc::new(Connection { link: Arc::clone(&link), agreed })));
            link.run(incoming).await;
        }
        Err(lost) => promise.complete(Err(Error::Handshake(lost))),
    }
}
