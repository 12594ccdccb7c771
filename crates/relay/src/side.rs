//! The two sides: the host's, in the runner, and the guest's, in the agent.

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

/// Bytes that are read from the port at once.
const READ: usize = 256 * 1024;
/// Bytes that are written to the port at once, beyond the last frame.
const WRITE: usize = 256 * 1024;
/// Connections that wait to be taken by the agent (a count; each is a pair of descriptors). One more
/// is closed at once, as by a socket that listens no longer.
const ACCEPTED: usize = 1024;
/// Connections that the host carries at once (a count; each is a descriptor). A guest that never ends
/// them would have the runner keep them for ever; one more is closed at once.
const CARRIED: usize = 512;
/// How long clients may take for what came last, once the machine has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
/// How long a farewell may take. With a host that is gone the machine is gone, too; one that is
/// alive answers when it gets a turn.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);

/// How the relay ended on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest said good-bye, and then the port ended.
    Bye,
    /// The port ended.
    Closed,
}

/// Why the relay cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The port failed.
    #[error("the port: {0}")]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error("the other side sent {0}")]
    Frame(#[from] FrameError),
    /// What came is out of turn.
    #[error("{0}")]
    Protocol(&'static str),
}

/// Carries the connections that come in on `listener` until the port ends.
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
        Some(_) => return Err(RelayError::Protocol("the guest did not announce itself first")),
        None => return Ok(End::Closed),
    }
    send(&out, Frame::Hello(hello)).await?;
    match reader.next().await? {
        Some(Frame::Welcome(nonce)) if nonce == hello.nonce => {}
        Some(_) => return Err(RelayError::Protocol("the guest did not answer the greeting")),
        None => return Ok(End::Closed),
    }
    let (mut next_id, mut said_bye) = (0_u32, false);
    loop {
        tokio::select! {
            frame = reader.next() => match frame? {
                Some(Frame::Bye) if !said_bye => {
                    said_bye = true;
                    send(&out, Frame::ByeAck).await?;
                }
                Some(frame) => reader.take(frame)?,
                None => return Ok(if said_bye { End::Bye } else { End::Closed }),
            },
            accepted = listener.accept(), if !said_bye => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    // Out of descriptors or memory: the next caller may have more luck.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                };
                if reader.links.count() >= CARRIED {
                    continue;
                }
                next_id = next_id.wrapping_add(1);
                send(&out, Frame::Open(next_id)).await?;
                reader.links.open(next_id, stream, &out).map_err(RelayError::Protocol)?;
            }
        }
    }
}

/// The guest's end, as the agent sees it.
#[derive(Debug)]
pub struct Guest {
    /// The connections that the host opens; their end is the relay's.
    pub connections: mpsc::Receiver<UnixStream>,
    /// Says good-bye.
    pub farewell: Farewell,
}

/// The way to tell the host that the end is wanted.
#[derive(Debug)]
pub struct Farewell {
    out: mpsc::Sender<Frame>,
    reading: mpsc::Receiver<Infallible>,
    close: oneshot::Sender<()>,
    relay: JoinHandle<Result<(), RelayError>>,
}

/// Takes the port of a guest into use, which has written its [`announcement`] into it, and waits
/// for the host's greeting. Must be called inside the runtime.
///
/// [`announcement`]: crate::announcement
pub async fn guest<P: Port>(port: P) -> Result<(Guest, Hello), RelayError> {
    let mut reader = Reader::new(Arc::new(port));
    let hello = match reader.next().await? {
        Some(Frame::Hello(hello)) => hello,
        _ => return Err(RelayError::Protocol("the host did not greet first")),
    };
    let (out, frames) = mpsc::channel(OUT);
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let (close, closed) = oneshot::channel();
    let reading = reader.reading.take();
    let reading = reading.ok_or(RelayError::Protocol("the relay was started twice"))?;
    let own = out.clone();
    let relay = tokio::spawn(async move {
        let port = Arc::clone(&reader.port);
        tokio::select! {
            result = write(&*port, frames) => result,
            result = serve_guest(&mut reader, hello.nonce, own, &accepted, closed) => result,
        }
    });
    let farewell = Farewell { out, reading, close, relay };
    Ok((Guest { connections, farewell }, hello))
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
                // From here on the end of the last task that reads can be seen.
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
                // When nobody takes it any more, its end tells the client.
                let _ = accepted.try_send(theirs);
            }
            Some(Frame::ByeAck) | None => return Ok(()),
            Some(frame) => reader.take(frame)?,
        }
    }
}

impl Farewell {
    /// Waits until everything that the connections still have to say is on its way, and takes
    /// leave of the host. All of them have to be closed on the agent's side.
    pub async fn say(self) {
        let Farewell { out, mut reading, close, relay } = self;
        let wanted = close.send(());
        let everything = async {
            if wanted.is_ok() {
                let _: Option<Infallible> = reading.recv().await;
            }
            if out.send(Frame::Bye).await.is_ok() {
                let _ = relay.await;
            }
        };
        // A host that does not answer is gone, or about to end the machine itself.
        let _ = timeout(FAREWELL_LIMIT, everything).await;
    }
}

async fn send(out: &mpsc::Sender<Frame>, frame: Frame) -> Result<(), RelayError> {
    out.send(frame).await.map_err(|_| RelayError::Protocol("the port's writer has ended"))
}

/// Writes frames until nobody sends any more.
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
                // The other end is gone. What it said before is still to be read, and that it is
                // gone is found out there.
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

    /// The next frame; `None` at the end. Cancel-safe.
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
                // What a socket says when its other end went with unread bytes in it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What both sides do with a frame.
    fn take(&self, frame: Frame) -> Result<(), RelayError> {
        let verdict = match frame {
            Frame::Data(id, data) => self.links.data(id, data),
            Frame::Credit(id, bytes) => self.links.credit(id, bytes),
            Frame::End(id) => self.links.end(id),
            _ => Err("the other side sent a frame out of turn"),
        };
        verdict.map_err(RelayError::Protocol)
    }
}

#[cfg(test)]
mod tests;
