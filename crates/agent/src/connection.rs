//! One connection from the host: its frames in, its frames out, its channels.

use crate::registry::Registry;
use crate::session::Session;
use crate::sys;
use bytes::{Bytes, BytesMut};
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{
    AGENT_CHANNELS, CHANNELS, CONNECTION_OUT, CONNECTION_OUT_MAX, FOLLOW_ALL_OUT, GREETING,
    MAX_DATA,
};
use msb_wire::{
    Agreed, Decoder, FEATURE_FOLLOW_ALL, FollowAll, Frame, Hello, Kind, Message, Opened, Peer,
    Verdict, WireError, agree,
};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::sleep;

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Distinguishes connections of this agent.
    pub(crate) id: u64,
    stream: Stream,
    outbox: RefCell<Outbox>,
    filled: Notify,
    flushed: Notify,
    channels: RefCell<HashMap<u32, Rc<Session>>>,
    highest: Cell<u32>,
    agreed: Cell<Option<Agreed>>,
    /// How it follows all sessions, if it asked to.
    following: Cell<Option<Following>>,
    closing: Cell<bool>,
}

/// How a connection follows all sessions.
#[derive(Debug, Clone, Copy)]
struct Following {
    window: u64,
    /// The channel of the next session.
    next: u32,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed by the host")]
    Closed,
    #[error("no greeting came within {} s", GREETING.as_secs())]
    Silent,
}

impl Connection {
    pub(crate) fn new(id: u64, stream: Stream) -> Rc<Connection> {
        Rc::new(Connection {
            id,
            stream,
            outbox: RefCell::new(Outbox::new()),
            filled: Notify::new(),
            flushed: Notify::new(),
            channels: RefCell::new(HashMap::new()),
            highest: Cell::new(0),
            agreed: Cell::new(None),
            following: Cell::new(None),
            closing: Cell::new(false),
        })
    }

    /// Serves the connection until it ends; sessions that it started go on.
    pub(crate) async fn run(self: Rc<Self>, registry: Rc<Registry>) {
        let writer = tokio::task::spawn_local(Rc::clone(&self).write());
        let ending = self.read(&registry).await;
        if let Err(ending @ (Ending::Wire(_) | Ending::Silent)) = ending {
            self.send(0, Message::Error(ending.to_string()));
            self.flush_now().await;
        }
        writer.abort();
        registry.unwatch(self.id);
        self.abandon();
    }

    /// Nobody follows anything on this connection any more.
    pub(crate) fn abandon(&self) {
        let channels = std::mem::take(&mut *self.channels.borrow_mut());
        for (channel, session) in channels {
            session.unfollow(self.id, channel);
        }
    }

    async fn read(self: &Rc<Self>, registry: &Rc<Registry>) -> Result<(), Ending> {
        let ours = Hello::ours(Some(registry.boot_id));
        self.send(0, Message::Hello(ours.clone()));
        let mut decoder = Decoder::new(Peer::Host);
        let mut buffer = BytesMut::new();
        let mut silence = pin!(sleep(GREETING));
        loop {
            tokio::select! {
                ready = self.stream.readable() => ready?,
                () = &mut silence, if self.agreed.get().is_none() => return Err(Ending::Silent),
            }
            buffer.reserve(2 * MAX_DATA);
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Err(Ending::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            while let Some(frame) = decoder.next(&mut buffer)? {
                match frame.message {
                    Message::Hello(theirs) => {
                        self.agreed.set(Some(agree(&ours, &theirs)?));
                        sys::die_with_parent();
                    }
                    Message::Exec(exec) => {
                        self.open(frame.channel, Kind::Exec)?;
                        // The next frame may already be about this session. Other connections
                        // and all sessions go on meanwhile.
                        registry.exec(self, frame.channel, exec).await;
                        // One read can hold a thousand commands, each of which costs a fork:
                        // others have a turn in between.
                        tokio::task::yield_now().await;
                    }
                    message => {
                        let highest = self.highest.get();
                        if let Message::Attach(request) = &message {
                            registry.arrival(request.session).await;
                        }
                        self.handle(registry, frame.channel, message)?;
                        // A request, since it took a channel.
                        if self.highest.get() != highest {
                            tokio::task::yield_now().await;
                        }
                    }
                }
                self.room().await;
            }
        }
    }

    pub(crate) fn handle(
        self: &Rc<Self>,
        registry: &Rc<Registry>,
        channel: u32,
        message: Message,
    ) -> Result<(), WireError> {
        match message {
            Message::Ping(number) => self.send(0, Message::Pong(number)),
            Message::Error(_) => {}
            Message::Shutdown(request) => registry.shut_down(&request),
            Message::Attach(attach) => {
                self.open(channel, Kind::Attach)?;
                registry.attach(self, channel, &attach);
            }
            Message::FollowAll(request) => {
                self.open(channel, Kind::FollowAll)?;
                self.follow_all(&request)?;
                registry.watch(self);
                // Only with this does the host know that no session starts unseen any more.
                self.send(channel, Message::Verdict(Verdict::default()));
            }
            Message::List => {
                self.open(channel, Kind::List)?;
                self.send(channel, Message::Sessions(registry.list()));
            }
            Message::Signal(request) => {
                self.open(channel, Kind::Signal)?;
                self.send(channel, Message::Verdict(registry.signal(&request)));
            }
            Message::Resize(request) => {
                self.open(channel, Kind::Resize)?;
                self.send(channel, Message::Verdict(registry.resize(&request)));
            }
            Message::Stdin(data) => {
                if let Some(session) = self.session(channel, Kind::Stdin)? {
                    session.stdin(self.id, channel, data)?;
                }
            }
            Message::StdinEof => {
                if let Some(session) = self.session(channel, Kind::StdinEof)? {
                    session.stdin_eof();
                }
            }
            Message::Credit(limit) => {
                if let Some(session) = self.session(channel, Kind::Credit)? {
                    session.credit(self.id, channel, limit);
                }
            }
            Message::Close => {
                if let Some(session) = self.session(channel, Kind::Close)? {
                    self.channel_done(channel);
                    session.unfollow(self.id, channel);
                }
            }
            // `read` takes the rest, and the decoder lets nothing else through from a host.
            _ => {}
        }
        Ok(())
    }

    /// A channel's number is used once; numbers ascend.
    fn open(&self, channel: u32, kind: Kind) -> Result<(), WireError> {
        let wrong = |why| Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        if channel <= self.highest.get() {
            return wrong("on a channel that was used before");
        }
        if channel >= AGENT_CHANNELS && self.following.get().is_some() {
            return wrong("on a channel that only the agent opens");
        }
        if self.channels.borrow().len() >= CHANNELS {
            return wrong("with too many channels open");
        }
        self.highest.set(channel);
        Ok(())
    }

    fn follow_all(&self, request: &FollowAll) -> Result<(), WireError> {
        let kind = Kind::FollowAll;
        let wrong = |why| Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        if !self.agreed.get().is_some_and(|agreed| agreed.has(FEATURE_FOLLOW_ALL)) {
            return wrong("without the feature that it belongs to");
        }
        if self.following.get().is_some() {
            return wrong("a second time");
        }
        if self.highest.get() >= AGENT_CHANNELS {
            return wrong("with the agent's channels in use");
        }
        self.following.set(Some(Following { window: request.window, next: AGENT_CHANNELS }));
        Ok(())
    }

    /// Whether one more session can be announced to a connection that follows all.
    pub(crate) fn may_announce(&self) -> bool {
        let numbers_left = self.following.get().is_some_and(|following| following.next != u32::MAX);
        let channels_left = self.channels.borrow().len() < CHANNELS;
        numbers_left && channels_left && self.outbox.borrow().len() < FOLLOW_ALL_OUT
    }

    /// Announces a session, if this connection follows all: on which channel, and with what credit.
    pub(crate) fn announce(&self, opened: Opened) -> Option<(u32, u64)> {
        let Following { window, next } = self.following.get()?;
        self.following.set(Some(Following { window, next: next.checked_add(1)? }));
        self.send(next, Message::Opened(opened));
        Some((next, window))
    }

    /// The session of a channel; `None` when it is over, which the host may not know yet.
    fn session(&self, channel: u32, kind: Kind) -> Result<Option<Rc<Session>>, WireError> {
        let own = self.following.get().map_or(AGENT_CHANNELS, |following| following.next);
        let is_own = (AGENT_CHANNELS..own).contains(&channel);
        if channel > self.highest.get() && !is_own {
            let why = "on a channel that was never opened";
            return Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        }
        Ok(self.channels.borrow().get(&channel).cloned())
    }

    /// Ties a channel to a session.
    pub(crate) fn channel_opened(&self, channel: u32, session: &Rc<Session>) {
        self.channels.borrow_mut().insert(channel, Rc::clone(session));
    }

    /// Unties a channel: it was closed, or everything on it was told.
    pub(crate) fn channel_done(&self, channel: u32) {
        self.channels.borrow_mut().remove(&channel);
    }

    /// Queues a frame; it goes out when the current task pauses.
    pub(crate) fn send(&self, channel: u32, message: Message) {
        // Nothing that an agent sends can be too long: lists are bounded in number and length.
        let _ = self.outbox.borrow_mut().push(&Frame { channel, message });
        self.filled.notify_one();
    }

    /// Queues a data frame.
    pub(crate) fn send_data(&self, kind: Kind, channel: u32, data: Bytes) {
        self.outbox.borrow_mut().push_data(kind, channel, data);
        self.filled.notify_one();
    }

    /// Whether so much waits that pipes should not be read for it.
    pub(crate) fn is_congested(&self) -> bool {
        self.outbox.borrow().len() >= CONNECTION_OUT
    }

    /// Whether so much waits that no more requests should be answered.
    fn is_backlogged(&self) -> bool {
        self.outbox.borrow().len() > CONNECTION_OUT_MAX && !self.closing.get()
    }

    /// Waits until answers have gone out, so that they do not pile up for one who does not read.
    async fn room(&self) {
        while self.is_backlogged() {
            self.flushed.notified().await;
        }
    }

    /// Waits until everything has gone out, or it no longer can.
    pub(crate) async fn flush_now(&self) {
        while !self.closing.get() && !self.outbox.borrow().is_empty() {
            let flushed = self.outbox.borrow_mut().flush(&self.stream);
            match flushed {
                Ok(true) => return,
                Ok(false) if self.stream.writable().await.is_ok() => {}
                _ => return,
            }
        }
    }

    async fn write(self: Rc<Self>) {
        loop {
            self.filled.notified().await;
            loop {
                let congested = self.is_congested();
                let result = self.outbox.borrow_mut().flush(&self.stream);
                if congested && !self.is_congested() {
                    self.decongested();
                }
                if !self.is_backlogged() {
                    self.flushed.notify_waiters();
                }
                match result {
                    Ok(true) => break,
                    Ok(false) if self.stream.writable().await.is_ok() => {}
                    // The reader finds out too, and ends the connection.
                    _ => {
                        self.closing.set(true);
                        self.flushed.notify_waiters();
                        return;
                    }
                }
            }
        }
    }

    fn decongested(&self) {
        let sessions: Vec<Rc<Session>> = self.channels.borrow().values().cloned().collect();
        for session in sessions {
            session.poke();
        }
    }
}

/// The steps of the two tasks one by one.
#[cfg(any(test, feature = "fuzzing"))]
impl Connection {
    /// Marks a channel as opened by the host; false when it may not be.
    pub(crate) fn used(&self, channel: u32) -> bool {
        self.open(channel, Kind::Exec).is_ok()
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.outbox.borrow().is_empty()
    }

    pub(crate) fn release_congestion(&self) {
        self.decongested();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn i_a_caller_that_never_speaks_is_told_so_and_let_go() {
        let everything = async {
            let (ours, theirs) = msb_transport::memory::pair().unwrap();
            let connection = Connection::new(1, ours);
            connection.run(Registry::new([0; 16], Default::default())).await;
            let (mut buffer, mut decoder) = (BytesMut::new(), Decoder::new(Peer::Agent));
            loop {
                theirs.readable().await.unwrap();
                match theirs.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            }
            let greeting = decoder.next(&mut buffer).unwrap().unwrap().message;
            assert!(matches!(greeting, Message::Hello(_)));
            let reason = decoder.next(&mut buffer).unwrap().unwrap().message;
            assert_eq!(reason, Message::Error("no greeting came within 30 s".into()));
        };
        tokio::task::LocalSet::new().run_until(everything).await;
    }
}
