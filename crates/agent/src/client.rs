//! The state of one client: its channels with their sessions, and whether it follows all sessions.

use crate::connection::{Channel, ChannelId, Connection};
use crate::fs::{Handles, Operation};
use crate::session::Session;
use msb_wire::limits::{AGENT_CHANNELS, CHANNELS, FOLLOW_ALL_OUT, FS_OPERATIONS};
use msb_wire::{Agreed, FEATURE_FOLLOW_ALL, FollowAll, Kind, Message, Opened, Peer, WireError};
use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;

/// A client: the peer of one connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: Rc<Connection>,
    channels: RefCell<HashMap<u32, Rc<Session>>>,
    operations: RefCell<HashMap<u32, Operation>>,
    pub(crate) handles: Rc<Handles>,
    /// The highest channel that the host has opened.
    highest: Cell<u32>,
    agreed: Cell<Option<Agreed>>,
    following: Cell<Option<Following>>,
}

/// How a client follows all sessions.
#[derive(Debug, Clone, Copy)]
struct Following {
    window: u64,
    /// The channel of the next session.
    next: u32,
}

impl Client {
    pub(crate) fn new(connection: Rc<Connection>) -> Rc<Client> {
        Rc::new(Client {
            connection,
            channels: RefCell::default(),
            operations: RefCell::default(),
            handles: Rc::default(),
            highest: Cell::new(0),
            agreed: Cell::new(None),
            following: Cell::new(None),
        })
    }

    /// Queues a frame.
    pub(crate) fn send(&self, channel: u32, message: Message) {
        self.connection.send(channel, message);
    }

    /// Returns a channel of this client for a session.
    pub(crate) fn channel(&self, number: u32) -> Channel {
        Channel::new(&self.connection, number)
    }

    /// Returns the id of one of its channels.
    pub(crate) fn channel_id(&self, number: u32) -> ChannelId {
        self.connection.channel_id(number)
    }

    /// Records the result of the handshake.
    pub(crate) fn set_agreed(&self, agreed: Agreed) {
        self.agreed.set(Some(agreed));
    }

    /// Returns whether the handshake is complete.
    pub(crate) fn has_agreed(&self) -> bool {
        self.agreed.get().is_some()
    }

    /// Returns the highest channel that the host has opened.
    pub(crate) fn highest(&self) -> u32 {
        self.highest.get()
    }

    /// Opens a channel for the host. Each number is used once; numbers ascend.
    pub(crate) fn open(&self, channel: u32, kind: Kind) -> Result<(), WireError> {
        let wrong = |why| Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        if channel <= self.highest.get() {
            return wrong("on a channel that was used before");
        }
        if channel >= AGENT_CHANNELS && self.following.get().is_some() {
            return wrong("on a channel that only the agent opens");
        }
        if self.open_channels() >= CHANNELS {
            return wrong("with too many channels open");
        }
        self.highest.set(channel);
        Ok(())
    }

    /// Starts to follow all sessions.
    pub(crate) fn follow_all(&self, request: &FollowAll) -> Result<(), WireError> {
        let kind = Kind::FollowAll;
        let wrong = |why| Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        if !self.agreed.get().is_some_and(|agreed| agreed.has(FEATURE_FOLLOW_ALL)) {
            return wrong("without its feature");
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

    /// Returns whether a client that follows all sessions has room for one more.
    pub(crate) fn can_announce(&self) -> bool {
        let has_numbers = self.following.get().is_some_and(|following| following.next != u32::MAX);
        let has_channels = self.open_channels() < CHANNELS;
        has_numbers && has_channels && self.connection.pending() < FOLLOW_ALL_OUT
    }

    /// Announces a session to a client that follows all. Returns its channel and window.
    pub(crate) fn announce(&self, opened: Opened) -> Option<(u32, u64)> {
        let Following { window, next } = self.following.get()?;
        self.following.set(Some(Following { window, next: next.checked_add(1)? }));
        self.send(next, Message::Opened(opened));
        Some((next, window))
    }

    /// Returns the session of a channel; `None` if the channel has finished, which the host may not
    /// know yet.
    pub(crate) fn session(
        &self,
        channel: u32,
        kind: Kind,
    ) -> Result<Option<Rc<Session>>, WireError> {
        let next = self.following.get().map_or(AGENT_CHANNELS, |following| following.next);
        let is_announced = (AGENT_CHANNELS..next).contains(&channel);
        if channel > self.highest.get() && !is_announced {
            let why = "on a channel that was never opened";
            return Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        }
        Ok(self.channels().get(&channel).cloned())
    }

    fn open_channels(&self) -> usize {
        self.channels().len() + self.operations.borrow().len()
    }

    /// Begins an operation on files, unless too many are under way. Returns whether it has begun.
    pub(crate) fn begin(&self, channel: u32, start: impl FnOnce() -> Operation) -> bool {
        self.drop_finished();
        let has_room = self.operations.borrow().len() < FS_OPERATIONS;
        if has_room {
            let operation = start();
            self.operations.borrow_mut().insert(channel, operation);
        }
        has_room
    }

    /// Calls a function with the operation of a channel, if it is under way.
    pub(crate) fn with_operation<T>(
        &self,
        channel: u32,
        f: impl FnOnce(&Operation) -> T,
    ) -> Option<T> {
        self.operations.borrow().get(&channel).map(f)
    }

    /// Binds a channel to a session.
    pub(crate) fn bind(&self, channel: u32, session: &Rc<Session>) {
        self.channels().insert(channel, Rc::clone(session));
    }

    /// Removes a channel that the host has closed.
    pub(crate) fn unbind(&self, channel: u32) {
        self.channels().remove(&channel);
        self.operations.borrow_mut().remove(&channel);
    }

    /// Wakes the sessions of all channels, after a congestion.
    pub(crate) fn wake_sessions(&self) {
        let sessions: Vec<Rc<Session>> = self.channels().values().cloned().collect();
        for session in sessions {
            session.wake();
        }
        self.operations.borrow().values().for_each(Operation::wake);
    }

    /// Drops the sessions of finished channels.
    pub(crate) fn drop_finished(&self) {
        drop(self.channels());
    }

    /// Stops following every session and gives up every operation, at the end of the connection.
    pub(crate) fn unfollow_all(&self) {
        let channels = std::mem::take(&mut *self.channels());
        for (channel, session) in channels {
            session.unfollow(self.channel_id(channel));
        }
        self.operations.borrow_mut().clear();
        self.handles.close_all();
    }

    /// Returns the channels that have not finished.
    fn channels(&self) -> RefMut<'_, HashMap<u32, Rc<Session>>> {
        let mut channels = self.channels.borrow_mut();
        for finished in self.connection.take_finished() {
            channels.remove(&finished);
            self.operations.borrow_mut().remove(&finished);
        }
        channels
    }
}
