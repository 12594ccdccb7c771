//! Frames on the port.
//!
//! ```text
//!  0      1          4            8            12
//!  │ kind │ 0  0  0  │ connection │ length     │ payload …      (numbers are little-endian)
//! ```
//!
//! The guest sends UP first: a port accepts bytes only once both ends are open. The host answers
//! HELLO (a nonce and the time), the guest WELCOME (the same nonce, so that leftover bytes in the
//! port are not mistaken for this machine's). Only the host sends OPEN; both send DATA, CREDIT and
//! END on an open connection. The guest ends with BYE, which the host answers with BYE_ACK.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest number of bytes in flight for one connection and direction. A mebibyte, as much as a
/// session's credit: a round trip through an emulated machine takes milliseconds.
pub const WINDOW: usize = 1 << 20;
/// Length of the nonce, in bytes.
pub const NONCE: usize = 16;
/// Longest payload, in bytes.
pub(crate) const MAX_PAYLOAD: usize = 64 * 1024;
/// Length of the header, in bytes.
const HEADER: usize = 12;
/// Version of these frames.
const VERSION: u32 = 1;

/// The host's first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Random for each start.
    pub nonce: [u8; NONCE],
    /// Nanoseconds since 1970. The guest sets its clock to it: an emulated machine has none.
    pub now_ns: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Up,
    Hello(Hello),
    Welcome([u8; NONCE]),
    Open(u32),
    Data(u32, Bytes),
    Credit(u32, u32),
    End(u32),
    Bye,
    ByeAck,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind is unknown.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// The length does not match the kind.
    #[error("a frame of kind {0} with {1} bytes")]
    Length(u8, u32),
    /// Reserved bytes are not zero.
    #[error("a frame of kind {0} with reserved bytes set")]
    Reserved(u8),
    /// The peer has another version.
    #[error("relay version {0}, expected {VERSION}")]
    Version(u32),
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Frame::Up => 1,
            Frame::Hello(_) => 2,
            Frame::Welcome(_) => 3,
            Frame::Open(_) => 4,
            Frame::Data(..) => 5,
            Frame::Credit(..) => 6,
            Frame::End(_) => 7,
            Frame::Bye => 8,
            Frame::ByeAck => 9,
        }
    }

    fn connection(&self) -> u32 {
        match self {
            Frame::Open(id) | Frame::Data(id, _) | Frame::Credit(id, _) | Frame::End(id) => *id,
            _ => 0,
        }
    }

    /// Appends the frame.
    pub(crate) fn encode(&self, to: &mut BytesMut) {
        let length = match self {
            Frame::Hello(_) => 4 + NONCE + 8,
            Frame::Welcome(_) => 4 + NONCE,
            Frame::Data(_, data) => data.len(),
            Frame::Credit(..) => 4,
            _ => 0,
        };
        to.reserve(HEADER + length);
        to.put_u8(self.kind());
        to.put_bytes(0, 3);
        to.put_u32_le(self.connection());
        // At most `MAX_PAYLOAD`: data is read in pieces of that size.
        to.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        match self {
            Frame::Hello(hello) => {
                to.put_u32_le(VERSION);
                to.put_slice(&hello.nonce);
                to.put_u64_le(hello.now_ns);
            }
            Frame::Welcome(nonce) => {
                to.put_u32_le(VERSION);
                to.put_slice(nonce);
            }
            Frame::Data(_, data) => to.put_slice(data),
            Frame::Credit(_, bytes) => to.put_u32_le(*bytes),
            _ => {}
        }
    }
}

/// Returns what the guest writes to its port first.
pub fn announcement() -> Bytes {
    let mut bytes = BytesMut::new();
    Frame::Up.encode(&mut bytes);
    bytes.freeze()
}

/// Removes the next frame from a buffer; `None` when it is incomplete.
pub(crate) fn decode(from: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(mut header) = from.get(..HEADER) else { return Ok(None) };
    let kind = header.get_u8();
    let reserved = header.get_uint(3);
    let (connection, length) = (header.get_u32_le(), header.get_u32_le());
    let size = length as usize;
    let fits = match kind {
        1 | 4 | 7 | 8 | 9 => size == 0,
        2 => size == 4 + NONCE + 8,
        3 => size == 4 + NONCE,
        5 => (1..=MAX_PAYLOAD).contains(&size),
        6 => size == 4,
        _ => return Err(FrameError::Kind(kind)),
    };
    if !fits {
        return Err(FrameError::Length(kind, length));
    }
    let has_connection = matches!(kind, 4..=7);
    if reserved != 0 || (!has_connection && connection != 0) {
        return Err(FrameError::Reserved(kind));
    }
    if from.len() < HEADER + size {
        return Ok(None);
    }
    from.advance(HEADER);
    let mut payload = from.split_to(size).freeze();
    Ok(Some(match kind {
        1 => Frame::Up,
        2 => {
            let nonce = versioned(&mut payload)?;
            Frame::Hello(Hello { nonce, now_ns: payload.get_u64_le() })
        }
        3 => Frame::Welcome(versioned(&mut payload)?),
        4 => Frame::Open(connection),
        5 => Frame::Data(connection, payload),
        6 => Frame::Credit(connection, payload.get_u32_le()),
        7 => Frame::End(connection),
        8 => Frame::Bye,
        _ => Frame::ByeAck,
    }))
}

fn versioned(payload: &mut Bytes) -> Result<[u8; NONCE], FrameError> {
    match payload.get_u32_le() {
        VERSION => {}
        version => return Err(FrameError::Version(version)),
    }
    let mut nonce = [0; NONCE];
    payload.copy_to_slice(&mut nonce);
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let data = proptest::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from);
        prop_oneof![
            Just(Frame::Up),
            any::<([u8; NONCE], u64)>()
                .prop_map(|(nonce, now_ns)| Frame::Hello(Hello { nonce, now_ns })),
            any::<[u8; NONCE]>().prop_map(Frame::Welcome),
            any::<u32>().prop_map(Frame::Open),
            (any::<u32>(), data).prop_map(|(id, data)| Frame::Data(id, data)),
            any::<(u32, u32)>().prop_map(|(id, bytes)| Frame::Credit(id, bytes)),
            any::<u32>().prop_map(Frame::End),
            Just(Frame::Bye),
            Just(Frame::ByeAck),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            frames in proptest::collection::vec(any_frame(), 0..20),
            piece in 1_usize..40,
        ) {
            let mut bytes = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            let (mut arrived, mut seen) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                arrived.extend_from_slice(piece);
                while let Some(frame) = decode(&mut arrived).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(arrived.is_empty());
        }

        #[test]
        fn i_garbage_is_an_error_or_waits_for_more(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn i_invalid_frames_have_typed_errors() {
        let decoded = |bytes: &[u8]| decode(&mut BytesMut::from(bytes));
        assert_eq!(decoded(&[99; 12]), Err(FrameError::Kind(99)));
        let long = [&[5, 0, 0, 0, 1, 0, 0, 0][..], &0x20_0000_u32.to_le_bytes()].concat();
        assert_eq!(decoded(&long), Err(FrameError::Length(5, 0x20_0000)));
        assert_eq!(decoded(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::Reserved(1)));
        assert_eq!(decoded(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::Reserved(8)));
        let mut old = BytesMut::new();
        Frame::Welcome([0; NONCE]).encode(&mut old);
        old[12] = 7;
        assert_eq!(decode(&mut old), Err(FrameError::Version(7)));
    }
}
