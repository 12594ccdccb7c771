//! One connection: two tasks between a local socket and the port.

use crate::credit::Credit;
use crate::frame::{Frame, MAX_PAYLOAD, WINDOW};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Consumed bytes after which the peer gets credit, even if more data is pending.
const REPORT: usize = WINDOW / 4;
/// Frames that wait for the port (a count), each of at most [`MAX_PAYLOAD`] bytes.
pub(crate) const OUT: usize = 8;

/// The result of a frame; an error is a violation of the protocol.
pub(crate) type FrameResult = Result<(), &'static str>;

/// The connections of one side.
#[derive(Debug)]
pub(crate) struct Links {
    open: Mutex<HashMap<u32, Link>>,
    /// Tasks that read from local sockets, and tasks that write to them.
    senders: Mutex<JoinSet<()>>,
    receivers: Mutex<JoinSet<()>>,
    /// Held by each task that reads from a local socket, and by this value until no more of them
    /// start.
    reading: Mutex<Option<mpsc::Sender<Infallible>>>,
}

#[derive(Debug)]
struct Link {
    credit: Arc<Credit>,
    /// Queue of received data; `None` after the end. Bounded by `room`.
    inbound: Option<mpsc::UnboundedSender<Bytes>>,
    /// What the peer may still send, in bytes.
    room: Arc<Credit>,
    /// Whether this side has sent its end.
    done_sending: bool,
}

/// Locks a mutex briefly: no await and no panic happens while it is held.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Creates an empty set. The receiver ends once no reader of a local socket runs or will start.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Infallible>) {
        let (reading, read) = mpsc::channel(1);
        let links = Links {
            open: Mutex::default(),
            senders: Mutex::new(JoinSet::new()),
            receivers: Mutex::new(JoinSet::new()),
            reading: Mutex::new(Some(reading)),
        };
        (Arc::new(links), read)
    }

    /// Stops counting readers: later connections are not waited for.
    pub(crate) fn stop_counting(&self) {
        locked(&self.reading).take();
    }

    /// Starts to forward a connection. Must be called inside the runtime.
    pub(crate) fn open(
        self: &Arc<Self>,
        id: u32,
        stream: UnixStream,
        out: &mpsc::Sender<Frame>,
    ) -> FrameResult {
        let (read, write) = stream.into_split();
        let (credit, room) = (Arc::new(Credit::new(WINDOW)), Arc::new(Credit::new(WINDOW)));
        // Bounded by `room` in bytes, and so in frames: each has at least one byte.
        let (inbound, received) = mpsc::unbounded_channel();
        let link = Link {
            credit: Arc::clone(&credit),
            inbound: Some(inbound),
            room: Arc::clone(&room),
            done_sending: false,
        };
        if locked(&self.open).insert(id, link).is_some() {
            return Err("connection opened twice");
        }
        for tasks in [&self.senders, &self.receivers] {
            while locked(tasks).try_join_next().is_some() {}
        }
        let (links, out_of_sender) = (Arc::clone(self), out.clone());
        let reading = locked(&self.reading).clone();
        locked(&self.senders).spawn(async move {
            send(id, read, &credit, &out_of_sender).await;
            // Both sides consider the connection ended only after this frame.
            let _ = out_of_sender.send(Frame::End(id)).await;
            links.half_done(id, |link| link.done_sending = true);
            drop(reading);
        });
        locked(&self.receivers).spawn(receive(id, write, received, room, out.clone()));
        Ok(())
    }

    /// Returns how many connections have not ended in both directions.
    pub(crate) fn count(&self) -> usize {
        locked(&self.open).len()
    }

    /// Queues data for a connection.
    pub(crate) fn data(&self, id: u32, data: Bytes) -> FrameResult {
        let open = locked(&self.open);
        let link = open.get(&id).ok_or("data for a connection that is not open")?;
        let inbound = link.inbound.as_ref().ok_or("data after the end of a connection")?;
        if link.room.left() < data.len() {
            return Err("data exceeds credit");
        }
        link.room.spend(data.len());
        // The receiver is dropped only while the connection ends; the data then has no reader.
        let _ = inbound.send(data);
        Ok(())
    }

    /// Adds credit that the peer granted.
    pub(crate) fn credit(&self, id: u32, bytes: u32) -> FrameResult {
        match locked(&self.open).get(&id) {
            Some(link) if !link.credit.add(bytes as usize, WINDOW) => {
                Err("credit exceeds the window")
            }
            // The connection may have ended before the grant arrived.
            _ => Ok(()),
        }
    }

    /// Ends the peer's direction of a connection.
    pub(crate) fn end(&self, id: u32) -> FrameResult {
        match locked(&self.open).get(&id) {
            Some(Link { inbound: Some(_), .. }) => {}
            _ => return Err("connection ended twice"),
        }
        self.half_done(id, |link| link.inbound = None);
        Ok(())
    }

    fn half_done(&self, id: u32, change: impl FnOnce(&mut Link)) {
        let mut open = locked(&self.open);
        if let Some(link) = open.get_mut(&id) {
            change(link);
            if link.done_sending && link.inbound.is_none() {
                open.remove(&id);
            }
        }
    }

    /// Ends every connection: stops sending, and forwards what was received.
    pub(crate) async fn drain(&self) {
        locked(&self.senders).abort_all();
        locked(&self.open).clear();
        let mut tasks = std::mem::take(&mut *locked(&self.receivers));
        while tasks.join_next().await.is_some() {}
    }
}

/// Forwards a local socket's bytes to the port until the socket ends.
async fn send(id: u32, from: OwnedReadHalf, credit: &Credit, out: &mpsc::Sender<Frame>) {
    let mut buffer = BytesMut::new();
    loop {
        let limit = credit.available().await.min(MAX_PAYLOAD);
        if from.readable().await.is_err() {
            return;
        }
        buffer.reserve(MAX_PAYLOAD);
        match from.try_read_buf(&mut (&mut buffer).limit(limit)) {
            Ok(0) => return,
            Ok(length) => credit.spend(length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        if out.send(Frame::Data(id, buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}

/// Forwards received data to a local socket, and grants credit for what it accepted.
async fn receive(
    id: u32,
    mut to: OwnedWriteHalf,
    mut received: mpsc::UnboundedReceiver<Bytes>,
    room: Arc<Credit>,
    out: mpsc::Sender<Frame>,
) {
    let (mut consumed, mut closed) = (0, false);
    while let Some(data) = received.recv().await {
        // Data for a closed socket is dropped. The peer learns of it by the end that `send`
        // reports.
        closed = closed || to.write_all(&data).await.is_err();
        consumed += data.len();
        if consumed >= REPORT || received.is_empty() {
            room.add(consumed, WINDOW);
            let grant = Frame::Credit(id, u32::try_from(consumed).unwrap_or(u32::MAX));
            consumed = 0;
            if out.send(grant).await.is_err() {
                return;
            }
        }
    }
    // Fails only when the socket is already closed.
    let _ = to.shutdown().await;
}
