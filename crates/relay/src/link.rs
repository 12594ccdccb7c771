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

/// How much is taken from the port before the other side is told of it, unless it is all.
const REPORT: usize = WINDOW / 4;
/// Frames that wait for the port (a count); one has at most [`MAX_PAYLOAD`] bytes.
pub(crate) const OUT: usize = 8;

/// What became of a frame that a connection was to have.
pub(crate) type Verdict = Result<(), &'static str>;

/// Every connection of one side.
#[derive(Debug)]
pub(crate) struct Links {
    open: Mutex<HashMap<u32, Link>>,
    /// The tasks that read from local sockets, and those that write to them.
    senders: Mutex<JoinSet<()>>,
    receivers: Mutex<JoinSet<()>>,
    /// Held by each task that reads from a local socket, and by this value until it is known that
    /// no more of them will come.
    reading: Mutex<Option<mpsc::Sender<Infallible>>>,
}

#[derive(Debug)]
struct Link {
    credit: Arc<Credit>,
    /// Where data goes; `None` when there is no more to come. Bounded by `room`.
    inbound: Option<mpsc::UnboundedSender<Bytes>>,
    /// What the other side may still send, in bytes.
    room: Arc<Credit>,
    /// Whether this side has said that it sends no more.
    done_sending: bool,
}

/// Locks for a moment; nothing is awaited under it, and nothing in it can panic halfway.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// None yet. The receiver ends when no more will come and no local socket is read any more.
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

    /// No more connections will come that anybody waits for.
    pub(crate) fn stop_counting(&self) {
        locked(&self.reading).take();
    }

    /// Begins to carry a connection. Must be called inside the runtime.
    pub(crate) fn open(
        self: &Arc<Self>,
        id: u32,
        stream: UnixStream,
        out: &mpsc::Sender<Frame>,
    ) -> Verdict {
        let (read, write) = stream.into_split();
        let (credit, room) = (Arc::new(Credit::new(WINDOW)), Arc::new(Credit::new(WINDOW)));
        // Bounded in bytes by `room`; a frame has at least one, so in number as well.
        let (inbound, arriving) = mpsc::unbounded_channel();
        let link = Link {
            credit: Arc::clone(&credit),
            inbound: Some(inbound),
            room: Arc::clone(&room),
            done_sending: false,
        };
        if locked(&self.open).insert(id, link).is_some() {
            return Err("a connection was opened twice");
        }
        for tasks in [&self.senders, &self.receivers] {
            while locked(tasks).try_join_next().is_some() {}
        }
        let (links, out_too) = (Arc::clone(self), out.clone());
        let reading = locked(&self.reading).clone();
        locked(&self.senders).spawn(async move {
            send(id, read, &credit, &out_too).await;
            // Only with this does the connection count as ended, on either side.
            let _ = out_too.send(Frame::End(id)).await;
            links.half_done(id, |link| link.done_sending = true);
            drop(reading);
        });
        locked(&self.receivers).spawn(receive(id, write, arriving, room, out.clone()));
        Ok(())
    }

    /// Returns how many connections are not at their end in both directions.
    pub(crate) fn count(&self) -> usize {
        locked(&self.open).len()
    }

    /// Hands on what came for a connection.
    pub(crate) fn data(&self, id: u32, data: Bytes) -> Verdict {
        let open = locked(&self.open);
        let link = open.get(&id).ok_or("data came for a connection that is not open")?;
        let inbound = link.inbound.as_ref().ok_or("data came behind a connection's end")?;
        if link.room.left() < data.len() {
            return Err("more data came than there was credit for");
        }
        link.room.spend(data.len());
        // A task that has ended takes nothing, and the bytes have nobody to go to.
        let _ = inbound.send(data);
        Ok(())
    }

    /// Notes how much the other side has taken.
    pub(crate) fn credit(&self, id: u32, bytes: u32) -> Verdict {
        match locked(&self.open).get(&id) {
            Some(link) if !link.credit.add(bytes as usize, WINDOW) => {
                Err("more credit came than there can be")
            }
            // It may have crossed the connection's end.
            _ => Ok(()),
        }
    }

    /// Notes that nothing more comes for a connection.
    pub(crate) fn end(&self, id: u32) -> Verdict {
        match locked(&self.open).get(&id) {
            Some(Link { inbound: Some(_), .. }) => {}
            _ => return Err("a connection ended twice"),
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

    /// Ends every connection: nothing more is sent, what has come is handed on.
    pub(crate) async fn drain(&self) {
        locked(&self.senders).abort_all();
        locked(&self.open).clear();
        let mut tasks = std::mem::take(&mut *locked(&self.receivers));
        while tasks.join_next().await.is_some() {}
    }
}

/// Carries a local socket's bytes to the port until the socket ends.
async fn send(id: u32, from: OwnedReadHalf, credit: &Credit, out: &mpsc::Sender<Frame>) {
    let mut buffer = BytesMut::new();
    loop {
        let most = credit.available().await.min(MAX_PAYLOAD);
        if from.readable().await.is_err() {
            return;
        }
        buffer.reserve(MAX_PAYLOAD);
        match from.try_read_buf(&mut (&mut buffer).limit(most)) {
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

/// Carries what came over the port to a local socket, and says how much it took.
async fn receive(
    id: u32,
    mut to: OwnedWriteHalf,
    mut arriving: mpsc::UnboundedReceiver<Bytes>,
    room: Arc<Credit>,
    out: mpsc::Sender<Frame>,
) {
    let (mut taken, mut gone) = (0, false);
    while let Some(data) = arriving.recv().await {
        // A socket whose other end is closed takes nothing, and then nobody misses the bytes; the
        // other side learns of it by the end that the other task sends.
        gone = gone || to.write_all(&data).await.is_err();
        taken += data.len();
        if taken >= REPORT || arriving.is_empty() {
            room.add(taken, WINDOW);
            let report = Frame::Credit(id, u32::try_from(taken).unwrap_or(u32::MAX));
            taken = 0;
            if out.send(report).await.is_err() {
                return;
            }
        }
    }
    // Fails when the other end is closed, which is as good.
    let _ = to.shutdown().await;
}
