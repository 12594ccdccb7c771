//! Frames of an agent, one after the other, and the handshake that comes first.

use crate::lost::ExecLost;
use bytes::BytesMut;
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{ERROR_TEXT, MAX_DATA};
use msb_wire::{Agreed, Decoder, Frame, Hello, Message, Peer, WireError, agree, one_line};
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;

/// Capacity of a new receive buffer, in bytes.
const READ_BUFFER: usize = 256 * 1024;
/// Reads after which the reader yields to the other tasks, for an agent that never pauses.
const TURN: u32 = 32;

/// The received part of a stream.
#[derive(Debug)]
pub(crate) struct Incoming {
    decoder: Decoder,
    buffer: BytesMut,
    reads: u32,
}

impl Incoming {
    fn new() -> Self {
        Incoming { decoder: Decoder::new(Peer::Agent), buffer: BytesMut::new(), reads: 0 }
    }

    /// Waits for the next frame. Cancel-safe.
    pub(crate) async fn receive(&mut self, stream: &Stream) -> Result<Frame, ExecLost> {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => return Err(violation(&error)),
            }
            self.reads = self.reads.wrapping_add(1);
            if self.reads.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
            match read(stream, &mut self.buffer).await {
                Ok(0) => {
                    let place =
                        if self.buffer.is_empty() { "" } else { " in the middle of a frame" };
                    return Err(ExecLost::gone(format!("it ended{place}"), None));
                }
                Ok(_) => {}
                Err(error) => return Err(gone("cannot read from it", &error)),
            }
        }
    }
}

/// A connection that its owner reads and writes one frame at a time, without channels.
#[derive(Debug)]
pub struct Frames {
    stream: Stream,
    incoming: Incoming,
}

impl Frames {
    /// Exchanges greetings over a socket that is connected to an agent. Call it inside the runtime.
    pub async fn greet(socket: UnixStream) -> Result<(Frames, Agreed), ExecLost> {
        let stream = Stream::from_unix(socket).map_err(|error| gone("cannot use it", &error))?;
        let (incoming, agreed) = greet(&stream).await?;
        Ok((Frames { stream, incoming }, agreed))
    }

    /// Sends a message, unless the agent has closed the connection: the next frame says so.
    pub async fn send(&self, channel: u32, message: Message) -> Result<(), ExecLost> {
        send(&self.stream, channel, message).await
    }

    /// Waits for the next frame. Cancel-safe.
    pub async fn receive(&mut self) -> Result<Frame, ExecLost> {
        self.incoming.receive(&self.stream).await
    }
}

/// Exchanges greetings.
pub(crate) async fn greet(stream: &Stream) -> Result<(Incoming, Agreed), ExecLost> {
    let ours = Hello::ours(None);
    send(stream, 0, Message::Hello(ours.clone())).await?;
    let mut incoming = Incoming::new();
    match incoming.receive(stream).await {
        Ok(Frame { message: Message::Hello(theirs), .. }) => {
            let agreed = agree(&ours, &theirs);
            Ok((incoming, agreed.map_err(|error| ExecLost::broken(error.to_string()))?))
        }
        Ok(Frame { message: Message::Error(why), .. }) => {
            let why = one_line(&why, ERROR_TEXT);
            Err(ExecLost::broken(format!("the agent refused the connection: {why}")))
        }
        Ok(_) => Err(ExecLost::broken("the agent did not greet")),
        Err(lost) if lost.sandbox_gone && lost.os_error.is_none() => {
            Err(ExecLost::gone("it ended before the greeting", None))
        }
        Err(lost) => Err(lost),
    }
}

/// Sends a message, unless the agent has closed the connection.
async fn send(stream: &Stream, channel: u32, message: Message) -> Result<(), ExecLost> {
    let mut outbox = Outbox::new();
    if !outbox.push(&Frame { channel, message }) {
        return Err(ExecLost::broken("a message was longer than its kind may be"));
    }
    match flush(stream, &mut outbox).await {
        // The agent has exited; its last frames are still to be read.
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            Ok(())
        }
        flushed => flushed.map_err(|error| gone("cannot write to it", &error)),
    }
}

async fn flush(stream: &Stream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.flush(stream)? {
        stream.writable().await?;
    }
    Ok(())
}

/// Waits for bytes and appends them; `Ok(0)` is end of file.
async fn read(stream: &Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        // A fresh buffer for every read would pin much memory for few bytes.
        if buffer.capacity() - buffer.len() < MAX_DATA {
            buffer.reserve(READ_BUFFER);
        }
        match stream.try_read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(crate) fn gone(what: &str, error: &io::Error) -> ExecLost {
    ExecLost::gone(format!("{what}: {error}"), error.raw_os_error())
}

fn violation(error: &WireError) -> ExecLost {
    ExecLost::broken(format!("the agent broke the protocol: {error}"))
}
