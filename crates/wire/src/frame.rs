//! Decoding and encoding of frames.

use crate::check;
use crate::codec::{cbor, data, number, put_cbor, raw};
use crate::error::{Peer, WireError};
use crate::fs;
use crate::kind::{Kind, Level, Sender};
use crate::limits::AGENT_CHANNELS;
use crate::message::Message;
use bytes::{Buf, BufMut, BytesMut};

/// Length of the header before each payload, in bytes.
pub const HEADER_LEN: usize = 12;

/// One frame: a message and the channel that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The channel; 0 for the connection itself.
    pub channel: u32,
    /// The message.
    pub message: Message,
}

/// Decodes the frames of one peer.
#[derive(Debug)]
pub struct Decoder {
    peer: Peer,
    got_hello: bool,
}

impl Decoder {
    /// Creates a decoder for the frames that `peer` sends. The first must be its `Hello`.
    pub const fn new(peer: Peer) -> Self {
        Decoder { peer, got_hello: false }
    }

    /// Removes the next complete frame from `buffer`; `None` when more bytes are needed.
    ///
    /// A long payload is not copied: it shares the buffer's memory. After an error the caller must
    /// close the connection; the content of the buffer is then unspecified.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(mut header) = buffer.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let len = header.get_u32_le() as usize;
        let kind = header.get_u8();
        let (flags, reserved) = (header.get_u8(), header.get_u16_le());
        let channel = header.get_u32_le();
        let kind = Kind::from_byte(kind).ok_or(WireError::UnknownKind(kind))?;
        if flags != 0 || reserved != 0 {
            return Err(WireError::ReservedBits(kind));
        }
        self.check(kind, channel)?;
        let max = kind.max_len(self.got_hello);
        if len > max {
            return Err(WireError::TooLong { kind, len, max });
        }
        if buffer.len() < HEADER_LEN + len {
            buffer.reserve(HEADER_LEN + len - buffer.len());
            return Ok(None);
        }
        buffer.advance(HEADER_LEN);
        let message = parse(kind, buffer.split_to(len))?;
        let message = match self.peer {
            Peer::Host => message,
            Peer::Agent => check::from_agent(kind, message)?,
        };
        self.got_hello = true;
        Ok(Some(Frame { channel, message }))
    }

    fn check(&self, kind: Kind, channel: u32) -> Result<(), WireError> {
        let wrong = |why| Err(WireError::OutOfState { kind, peer: self.peer, why });
        match (kind.sender(), self.peer) {
            (Sender::Host, Peer::Agent) | (Sender::Agent, Peer::Host) => {
                return wrong("never sent by this peer");
            }
            _ => {}
        }
        if (kind.level() == Level::Connection) != (channel == 0) {
            return wrong("not on this channel");
        }
        if kind == Kind::Opened && channel < AGENT_CHANNELS {
            return wrong("on a channel that only the host opens");
        }
        // An agent that has no room for a connection answers with an error instead of a hello.
        match (self.got_hello, kind) {
            (false, Kind::Hello | Kind::Error) => Ok(()),
            (false, _) => wrong("before the handshake"),
            (true, Kind::Hello) => wrong("a second time"),
            (true, _) => Ok(()),
        }
    }
}

fn parse(kind: Kind, payload: BytesMut) -> Result<Message, WireError> {
    Ok(match kind {
        Kind::Stdin => Message::Stdin(data(payload)),
        Kind::Stdout => Message::Stdout(data(payload)),
        Kind::Stderr => Message::Stderr(data(payload)),
        Kind::Credit => Message::Credit(number(kind, &payload)?),
        Kind::Ping => Message::Ping(number(kind, &payload)?),
        Kind::Pong => Message::Pong(number(kind, &payload)?),
        Kind::Bye => Message::Bye,
        Kind::List => Message::List,
        Kind::StdinEof => Message::StdinEof,
        Kind::Close => Message::Close,
        Kind::Error => Message::Error(String::from_utf8_lossy(&payload).into_owned()),
        Kind::Hello => Message::Hello(cbor(kind, &payload)?),
        Kind::Shutdown => Message::Shutdown(cbor(kind, &payload)?),
        Kind::Exec => Message::Exec(cbor(kind, &payload)?),
        Kind::Attach => Message::Attach(cbor(kind, &payload)?),
        Kind::Signal => Message::Signal(cbor(kind, &payload)?),
        Kind::Resize => Message::Resize(cbor(kind, &payload)?),
        Kind::Started => Message::Started(cbor(kind, &payload)?),
        Kind::Attached => Message::Attached(cbor(kind, &payload)?),
        Kind::StdinError => Message::StdinError(cbor(kind, &payload)?),
        Kind::Exited => Message::Exited(cbor(kind, &payload)?),
        Kind::Failed => Message::Failed(cbor(kind, &payload)?),
        Kind::End => Message::End(cbor(kind, &payload)?),
        Kind::Sessions => Message::Sessions(cbor(kind, &payload)?),
        Kind::Verdict => Message::Verdict(cbor(kind, &payload)?),
        Kind::FollowAll => Message::FollowAll(cbor(kind, &payload)?),
        Kind::Opened => Message::Opened(cbor(kind, &payload)?),
        Kind::FsRequest
        | Kind::FsData
        | Kind::FsEof
        | Kind::FsOpened
        | Kind::FsReply
        | Kind::FsFailed => Message::Fs(fs::parse(kind, payload)?),
    })
}

/// Returns the header of a data frame, for a caller that writes header and payload separately.
/// `len` is at most [`MAX_DATA`](crate::limits::MAX_DATA).
pub fn data_header(kind: Kind, channel: u32, len: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let mut rest = header.as_mut_slice();
    rest.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    rest.put_u8(kind as u8);
    rest.put_bytes(0, 3);
    rest.put_u32_le(channel);
    header
}

/// Appends a frame to `out`. Returns `false` and appends nothing when the payload is longer than
/// its kind allows: only an `Exec` with more arguments than any kernel accepts, or an `FsRequest`
/// with a path longer than any kernel accepts, is that long.
#[must_use]
pub fn encode(frame: &Frame, out: &mut BytesMut) -> bool {
    let start = out.len();
    let (channel, message) = (frame.channel, &frame.message);
    out.put_bytes(0, HEADER_LEN);
    let kind = put_payload(message, out);
    let len = out.len() - start - HEADER_LEN;
    if len > kind.max_len(true) {
        out.truncate(start);
        return false;
    }
    if let Some(header) = out.get_mut(start..start + HEADER_LEN) {
        header.copy_from_slice(&data_header(kind, channel, len));
    }
    true
}

fn put_payload(message: &Message, out: &mut BytesMut) -> Kind {
    match message {
        Message::Stdin(bytes) => raw(Kind::Stdin, bytes, out),
        Message::Stdout(bytes) => raw(Kind::Stdout, bytes, out),
        Message::Stderr(bytes) => raw(Kind::Stderr, bytes, out),
        Message::Credit(n) => raw(Kind::Credit, &n.to_le_bytes(), out),
        Message::Ping(n) => raw(Kind::Ping, &n.to_le_bytes(), out),
        Message::Pong(n) => raw(Kind::Pong, &n.to_le_bytes(), out),
        Message::Bye => Kind::Bye,
        Message::List => Kind::List,
        Message::StdinEof => Kind::StdinEof,
        Message::Close => Kind::Close,
        Message::Error(text) => raw(Kind::Error, text.as_bytes(), out),
        Message::Hello(m) => put_cbor(Kind::Hello, m, out),
        Message::Shutdown(m) => put_cbor(Kind::Shutdown, m, out),
        Message::Exec(m) => put_cbor(Kind::Exec, m, out),
        Message::Attach(m) => put_cbor(Kind::Attach, m, out),
        Message::Signal(m) => put_cbor(Kind::Signal, m, out),
        Message::Resize(m) => put_cbor(Kind::Resize, m, out),
        Message::Started(m) => put_cbor(Kind::Started, m, out),
        Message::Attached(m) => put_cbor(Kind::Attached, m, out),
        Message::StdinError(m) => put_cbor(Kind::StdinError, m, out),
        Message::Exited(m) => put_cbor(Kind::Exited, m, out),
        Message::Failed(m) => put_cbor(Kind::Failed, m, out),
        Message::End(m) => put_cbor(Kind::End, m, out),
        Message::Sessions(m) => put_cbor(Kind::Sessions, m, out),
        Message::Verdict(m) => put_cbor(Kind::Verdict, m, out),
        Message::FollowAll(m) => put_cbor(Kind::FollowAll, m, out),
        Message::Opened(m) => put_cbor(Kind::Opened, m, out),
        Message::Fs(m) => fs::put(m, out),
    }
}
