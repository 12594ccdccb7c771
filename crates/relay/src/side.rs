//! The two sides: the host in the runner, the guest in the agent.

use crate::frame::{Frame, FrameError, Hello, NONCE, decode};
use crate::link::{Links, OUT};
use crate::port::Port;
use bytes::BytesMut;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest read from the port, in bytes.
const READ: usize = 256 * 1024;
/// Bytes after which no further frame is added to a write to the port.
const WRITE: usize = 256 * 1024;
/// Connections that wait until the agent accepts them (a count; each has two descriptors). One more
/// is closed at once, as by a socket that stopped listening.
const ACCEPTED: usize = 1024;
/// Open connections of the host (a count; each has a descriptor). One more is closed at once: a
/// guest that never ends connections would otherwise fill the runner.
const MAX_OPEN: usize = 512;
/// How long clients may take to read the last data after the machine has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How long the host may take to acknowledge a shutdown. A busy host is slow; without a host there
/// is no machine.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// How the relay ended on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest announced its shutdown, then the port ended.
    Bye,
    /// The port ended without that: a crash.
    Closed,
}

/// Why the relay failed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The port failed.
    #[error("port failed: {0}")]
    Io(io::Error),
    /// The peer sent an invalid frame.
    #[error("peer sent {0}")]
    Frame(FrameError),
    /// The peer violated the protocol.
    #[error("{0}")]
    Protocol(&'static str),
}

impl From<io::Error> for RelayError {
    fn from(error: io::Error) -> Self {
        RelayError::Io(error)
    }
}

impl From<FrameError> for RelayError {
    fn from(error: FrameError) -> Self {
        RelayError::Frame(error)
    }
}

/// Forwards connections accepted on `listener` until the port ends.
pub async fn host<P: Port>(
    port: P,
    listener: UnixListener,
    hello: Hello,
) -> Result<End, RelayError> {
    let mut reader = Reader::new(Arc::new(port));
    let (out, frames) = mpsc::channel(OUT);
    let port = Arc::clone(&reader.port);
    let result = tokio::select! {
        result = write(&*port, frames) => result.map(|()| End::Closed),
        result = serve_host(&mut reader, &listener, hello, out) => result,
    };
    let _ = timeout(DRAIN_LIMIT, reader.links.drain()).await;
    result
}

async fn serve_host<P: Port>(
    reader: &mut Reader<P>,
    listener: &UnixListener,
    hello: Hello,
    out: mpsc::Sender<Frame>,
) -> Result<End, RelayError> {
    match reader.next().await? {
        Some(Frame::Up) => {}
        Some(_) => return Err(RelayError::Protocol("guest did not announce itself first")),
        None => return Ok(End::Closed),
    }
    send(&out, Frame::Hello(hello)).await?;
    match reader.next().await? {
        Some(Frame::Welcome(nonce)) if nonce == hello.nonce => {}
        Some(_) => return Err(RelayError::Protocol("guest did not answer the hello")),
        None => return Ok(End::Closed),
    }
    let (mut next_id, mut is_shutting_down) = (0_u32, false);
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(Frame::Bye) if !is_shutting_down => {
                    is_shutting_down = true;
                    send(&out, Frame::ByeAck).await?;
                }
                Some(frame) => reader.dispatch(frame)?,
                None => return Ok(if is_shutting_down { End::Bye } else { End::Closed }),
            },
            accepted = listener.accept(), if !is_shutting_down => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    // Out of descriptors or memory: retry later.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
                if reader.links.count() >= MAX_OPEN {
                    continue;
                }
                next_id = next_id.wrapping_add(1);
                send(&out, Frame::Open(next_id)).await?;
                reader.links.open(next_id, stream, &out).map_err(RelayError::Protocol)?;
            }
        }
    }
}

/// The guest's side, as the agent uses it.
#[derive(Debug)]
pub struct Guest {
    /// The connections that the host opens; ends with the relay.
    pub connections: mpsc::Receiver<UnixStream>,
    /// Announces the shutdown to the host.
    pub shutdown: Shutdown,
}

/// Announces an orderly shutdown to the host.
#[derive(Debug)]
pub struct Shutdown {
    out: mpsc::Sender<Frame>,
    reading: mpsc::Receiver<Infallible>,
    close: oneshot::Sender<()>,
    relay: JoinHandle<Result<(), RelayError>>,
}

/// Starts the guest's side on a port to which the caller wrote the [`announcement`], and waits for
/// the host's hello. Must be called inside the runtime.
///
/// [`announcement`]: crate::announcement
pub async fn guest<P: Port>(port: P) -> Result<(Guest, Hello), RelayError> {
    let mut reader = Reader::new(Arc::new(port));
    let hello = match reader.next().await? {
        Some(Frame::Hello(hello)) => hello,
        _ => return Err(RelayError::Protocol("host did not send its hello first")),
    };
    let (out, frames) = mpsc::channel(OUT);
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let (close, closed) = oneshot::channel();
    let reading = reader.reading.take();
    let reading = reading.ok_or(RelayError::Protocol("relay started twice"))?;
    let own = out.clone();
    let relay = tokio::spawn(async move {
        let port = Arc::clone(&reader.port);
        tokio::select! {
            result = write(&*port, frames) => result,
            result = serve_guest(&mut reader, hello.nonce, own, &accepted, closed) => result,
        }
    });
    let shutdown = Shutdown { out, reading, close, relay };
    Ok((Guest { connections, shutdown }, hello))
}

async fn serve_guest<P: Port>(
    reader: &mut Reader<P>,
    nonce: [u8; NONCE],
    out: mpsc::Sender<Frame>,
    accepted: &mpsc::Sender<UnixStream>,
    mut closed: oneshot::Receiver<()>,
) -> Result<(), RelayError> {
    send(&out, Frame::Welcome(nonce)).await?;
    let (mut highest, mut open) = (0, true);
    loop {
        let frame = tokio::select! {
            frame = reader.next() => frame?,
            _ = &mut closed, if open => {
                // From here on the caller can wait for the last task that reads.
                reader.links.stop_counting();
                open = false;
                continue;
            }
        };
        match frame {
            Some(Frame::Open(id)) if id > highest => {
                highest = id;
                let (ours, theirs) = UnixStream::pair()?;
                reader.links.open(id, ours, &out).map_err(RelayError::Protocol)?;
                // When the agent accepts no more, dropping it closes the client.
                let _ = accepted.try_send(theirs);
            }
            Some(Frame::ByeAck) | None => return Ok(()),
            Some(frame) => reader.dispatch(frame)?,
        }
    }
}

impl Shutdown {
    /// Waits until all data of the connections is queued, then announces the shutdown to the host.
    /// The agent must have closed its ends of all connections.
    pub async fn announce(self) {
        let Shutdown { out, mut reading, close, relay } = self;
        let notified = close.send(());
        let announce = async {
            if notified.is_ok() {
                let _: Option<Infallible> = reading.recv().await;
            }
            if out.send(Frame::Bye).await.is_ok() {
                let _ = relay.await;
            }
        };
        // A host that does not answer has exited, or ends the machine itself.
        let _ = timeout(SHUTDOWN_LIMIT, announce).await;
    }
}

async fn send(out: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), RelayError> {
    out.send(frame).await.map_err(|_| RelayError::Protocol("writer of the port has ended"))
}

/// Writes frames until all senders are dropped.
async fn write<P: Port>(port: &P, mut frames: mpsc::Receiver<Frame>) -> Result<(), RelayError> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        frame.encode(&mut buffer);
        while buffer.len() < WRITE
            && let Ok(frame) = frames.try_recv()
        {
            frame.encode(&mut buffer);
        }
        let mut rest: &[u8] = &buffer;
        while !rest.is_empty() {
            port.writable().await?;
            match port.try_write(rest) {
                Ok(length) => rest = rest.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer closed the port. The reader still reads what it sent, then its end.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error.into()),
            }
        }
        buffer.clear();
    }
    Ok(())
}

struct Reader<P> {
    port: Arc<P>,
    buffer: BytesMut,
    links: Arc<Links>,
    reading: Option<mpsc::Receiver<Infallible>>,
}

impl<P: Port> Reader<P> {
    fn new(port: Arc<P>) -> Self {
        let (links, reading) = Links::new();
        Reader { port, buffer: BytesMut::new(), links, reading: Some(reading) }
    }

    /// Returns the next frame; `None` at the end. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Frame>, RelayError> {
        loop {
            if let Some(frame) = decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.port.readable().await?;
            self.buffer.reserve(READ);
            match self.port.try_read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A socket reports this when its peer closed it with unread bytes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Handles a frame that both sides accept.
    fn dispatch(&self, frame: Frame) -> Result<(), RelayError> {
        let result = match frame {
            Frame::Data(id, data) => self.links.data(id, data),
            Frame::Credit(id, bytes) => self.links.credit(id, bytes),
            Frame::End(id) => self.links.end(id),
            _ => Err("frame out of turn"),
        };
        result.map_err(RelayError::Protocol)
    }
}

#[cfg(test)]
mod tests;
