//! The main thread's end of one channel.

use crate::connection::Channel;
use bytes::Bytes;
use msb_wire::limits::{FS_WINDOW, MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN};
use msb_wire::{
    FsMessage, FsOpened, Kind, Message, Peer, ReceiveCredit, SendCredit, WireError, cost,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use tokio::sync::Notify;

/// A channel of an operation: data in both directions, under credit.
#[derive(Debug)]
pub(super) struct Stream {
    channel: Channel,
    receives: bool,
    send: RefCell<SendCredit>,
    receive: RefCell<ReceiveCredit>,
    queue: RefCell<VecDeque<Bytes>>,
    is_complete: Cell<bool>,
    /// Signalled when there is data, its end, credit, or room in the connection.
    changed: Notify,
}

impl Stream {
    pub(super) fn new(channel: Channel, receives: bool, window: u64) -> Stream {
        let window = window.clamp(OUTPUT_WINDOW_MIN, OUTPUT_WINDOW_MAX);
        Stream {
            channel,
            receives,
            send: RefCell::new(SendCredit::new(window)),
            receive: RefCell::new(ReceiveCredit::new(FS_WINDOW)),
            queue: RefCell::default(),
            is_complete: Cell::new(false),
            changed: Notify::new(),
        }
    }

    /// Takes data of the host.
    pub(super) fn receive(&self, data: Bytes) -> Result<(), WireError> {
        self.check(Kind::FsData)?;
        self.receive.borrow_mut().receive(data.len())?;
        self.queue.borrow_mut().push_back(data);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the end of the host's data.
    pub(super) fn complete(&self) -> Result<(), WireError> {
        self.check(Kind::FsEof)?;
        self.is_complete.set(true);
        self.changed.notify_one();
        Ok(())
    }

    fn check(&self, kind: Kind) -> Result<(), WireError> {
        let wrong = |why| Err(WireError::OutOfState { kind, peer: Peer::Host, why });
        match (self.receives, self.is_complete.get()) {
            (false, _) => wrong("for an operation without input"),
            (_, true) => wrong("after the end of the data"),
            (true, false) => Ok(()),
        }
    }

    /// Takes credit of the host.
    pub(super) fn grant(&self, limit: u64) {
        self.send.borrow_mut().raise(limit);
        self.changed.notify_one();
    }

    /// Looks again whether the connection has room.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits for data of the host; `None` is its end.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            if let Some(data) = self.queue.borrow_mut().pop_front() {
                return Some(data);
            }
            if self.is_complete.get() {
                return None;
            }
            self.changed.notified().await;
        }
    }

    /// Gives the credit for `length` bytes back.
    pub(super) fn release(&self, length: usize) {
        let limit = self.receive.borrow_mut().release(cost(length));
        if let Some(limit) = limit {
            self.channel.send(Message::Credit(limit));
        }
    }

    pub(super) fn send_opened(&self, opened: FsOpened) {
        self.channel.send(Message::Fs(FsMessage::Opened(opened)));
    }

    /// Waits until the host may be sent data, and returns how much at once.
    pub(super) async fn room(&self) -> usize {
        loop {
            let room = self.send.borrow().room();
            if room > 0 && !self.channel.is_congested() {
                return room;
            }
            self.changed.notified().await;
        }
    }

    /// Sends at most [`MAX_DATA`] bytes as one frame, when there is credit for it.
    pub(super) async fn send(&self, data: Bytes) {
        debug_assert!(data.len() <= MAX_DATA, "a frame that is too long");
        loop {
            if !self.channel.is_congested() && self.send.borrow_mut().spend(data.len()) {
                return self.channel.send_data(Kind::FsData, data);
            }
            self.changed.notified().await;
        }
    }

    /// Sends the last message.
    pub(super) fn finish(&self, message: FsMessage) {
        self.channel.finish(Message::Fs(message));
    }
}
