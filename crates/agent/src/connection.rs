//! One connection from the host: its input, its output queue, and the channels on it.
//!
//! Does not own: what the frames mean (`dispatch`) or which session answers on a channel
//! (`client`).

use bytes::{Bytes, BytesMut};
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{CONNECTION_OUT, CONNECTION_OUT_MAX, MAX_DATA};
use msb_wire::{Frame, Kind, Message};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use tokio::sync::Notify;

/// A connection from the host.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    stream: Stream,
    outbox: RefCell<Outbox>,
    queued: Notify,
    flushed: Notify,
    is_closing: Cell<bool>,
    /// Channels whose last frame is queued, until the client removes them.
    finished: RefCell<Vec<u32>>,
}

impl Connection {
    /// Creates a connection. `id` is unique in this agent.
    pub(crate) fn new(id: u64, stream: Stream) -> Rc<Connection> {
        Rc::new(Connection {
            id,
            stream,
            outbox: RefCell::new(Outbox::new()),
            queued: Notify::new(),
            flushed: Notify::new(),
            is_closing: Cell::new(false),
            finished: RefCell::default(),
        })
    }

    /// Returns the id of one of its channels.
    pub(crate) fn channel_id(&self, number: u32) -> ChannelId {
        ChannelId { connection: self.id, number }
    }

    /// Returns the channels that have finished since the last call.
    pub(crate) fn take_finished(&self) -> Vec<u32> {
        std::mem::take(&mut self.finished.borrow_mut())
    }

    /// Queues a frame; the writer sends it when the current task pauses.
    pub(crate) fn send(&self, channel: u32, message: Message) {
        // No message of an agent exceeds its bound: lists are bounded in number and length.
        let _ = self.outbox.borrow_mut().push(&Frame { channel, message });
        self.queued.notify_one();
    }

    /// Returns whether so much is pending that sessions must not read more output.
    pub(crate) fn is_congested(&self) -> bool {
        self.outbox.borrow().len() >= CONNECTION_OUT
    }

    /// Returns the number of pending bytes.
    pub(crate) fn pending(&self) -> usize {
        self.outbox.borrow().len()
    }

    /// Returns whether so much is pending that no more requests may be accepted.
    fn is_backlogged(&self) -> bool {
        self.pending() > CONNECTION_OUT_MAX && !self.is_closing.get()
    }

    /// Waits while the connection is backlogged, so that a client that does not read gets no more
    /// answers.
    pub(crate) async fn wait_for_room(&self) {
        while self.is_backlogged() {
            self.flushed.notified().await;
        }
    }

    /// Waits for input and appends it to a buffer; 0 is the end. Cancel-safe.
    pub(crate) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            buffer.reserve(2 * MAX_DATA);
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    /// Waits until the stream accepts pending output, and writes it. Returns whether that ended a
    /// congestion. Nothing is written after an error.
    pub(crate) async fn write(&self) -> io::Result<bool> {
        let result = self.write_pending().await;
        self.is_closing.set(result.is_err());
        if !self.is_backlogged() {
            self.flushed.notify_waiters();
        }
        result
    }

    async fn write_pending(&self) -> io::Result<bool> {
        if self.pending() == 0 {
            self.queued.notified().await;
        } else {
            self.stream.writable().await?;
        }
        let was_congested = self.is_congested();
        self.outbox.borrow_mut().flush(&self.stream)?;
        Ok(was_congested && !self.is_congested())
    }

    /// Ends the stream, also for other owners of the connection.
    pub(crate) fn close(&self) {
        self.stream.shutdown();
    }

    /// Waits until all pending output is written, or the stream fails.
    pub(crate) async fn flush(&self) {
        while !self.is_closing.get() && self.pending() > 0 {
            let flushed = self.outbox.borrow_mut().flush(&self.stream);
            match flushed {
                Ok(true) => return,
                Ok(false) if self.stream.writable().await.is_ok() => {}
                _ => return,
            }
        }
    }
}

/// The identity of a channel among all connections of this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelId {
    pub(crate) connection: u64,
    pub(crate) number: u32,
}

/// One channel, as the session that answers on it uses it.
#[derive(Debug)]
pub(crate) struct Channel {
    connection: Rc<Connection>,
    number: u32,
}

impl Channel {
    pub(crate) fn new(connection: &Rc<Connection>, number: u32) -> Channel {
        Channel { connection: Rc::clone(connection), number }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.connection.channel_id(self.number)
    }

    /// Queues a frame on the channel.
    pub(crate) fn send(&self, message: Message) {
        self.connection.send(self.number, message);
    }

    /// Queues a data frame on the channel.
    pub(crate) fn send_data(&self, kind: Kind, data: Bytes) {
        self.connection.outbox.borrow_mut().push_data(kind, self.number, data);
        self.connection.queued.notify_one();
    }

    /// Queues the last frame of the channel.
    pub(crate) fn finish(&self, message: Message) {
        self.send(message);
        self.connection.finished.borrow_mut().push(self.number);
    }

    /// Returns whether the connection is congested.
    pub(crate) fn is_congested(&self) -> bool {
        self.connection.is_congested()
    }
}
