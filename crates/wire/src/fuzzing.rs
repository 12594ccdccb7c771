//! Entry points of the fuzzers and of the replay of their seeds. Not part of the protocol.

use crate::fs::{decode_entries, decode_events, encode_entries, encode_events};
use crate::limits::{MAX_CONTROL, MAX_HELLO};
use crate::{
    Decoder, Frame, FsMessage, HEADER_LEN, Hello, Message, Peer, WireError, agree, encode,
};
use bytes::BytesMut;

/// The frames that a decoder returned, and its error.
type Decoded = (Vec<Frame>, Option<WireError>);

/// Decodes arbitrary bytes of either peer in pieces. Checks that the pieces do not change the
/// result, that the buffer stays bounded, and that decoded frames survive encoding.
///
/// The first byte of `data` selects the peer and the length of the pieces.
pub fn codec(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let peer = if first & 1 == 0 { Peer::Host } else { Peer::Agent };
    let whole = decode(peer, bytes, bytes.len().max(1));
    let cut = decode(peer, bytes, usize::from(first >> 1) + 1);
    assert_eq!(whole, cut, "pieces change what is decoded");

    whole.0.iter().for_each(lists);
    let mut again = BytesMut::new();
    for frame in &whole.0 {
        let start = again.len();
        // Text that was not UTF-8 is longer after decoding, and may then be too long.
        let lossy = matches!(frame.message, Message::Error(_));
        let encoded = encode(frame, &mut again);
        assert!(encoded || lossy, "{frame:?} was decoded and cannot be encoded");
        let len = again.len() - start;
        if !encoded || (start == 0 && len > MAX_HELLO + HEADER_LEN) {
            return;
        }
    }
    let (frames, error) = decode(peer, &again, again.len().max(1));
    assert_eq!((frames, error), (whole.0, None), "encoding changes what is decoded");
}

/// Decodes the lists that a data frame may hold. Checks that a decoded list survives encoding.
fn lists(frame: &Frame) {
    let Message::Fs(FsMessage::Data(payload)) = &frame.message else { return };
    if let Ok(entries) = decode_entries(payload) {
        assert!(entries.len() <= payload.len(), "more entries than bytes");
        assert_eq!(decode_entries(&encode_entries(&entries)), Ok(entries));
    }
    if let Ok(events) = decode_events(payload) {
        assert!(events.len() <= payload.len(), "more events than bytes");
        assert_eq!(decode_events(&encode_events(&events)), Ok(events));
    }
}

fn decode(peer: Peer, bytes: &[u8], step: usize) -> Decoded {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(peer), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        let bound = 2 * (MAX_CONTROL + HEADER_LEN + bytes.len());
        assert!(buffer.capacity() <= bound, "a buffer of {} bytes", buffer.capacity());
    }
    (frames, None)
}

/// Negotiates two hellos, and passes arbitrary bytes to a new decoder as the first frame.
pub fn handshake(data: &[u8]) {
    let (one, rest) = hello(data);
    let (two, rest) = hello(rest);
    let (here, there) = (agree(&one, &two), agree(&two, &one));
    for (ours, theirs, agreed) in [(&one, &two, &here), (&two, &one, &there)] {
        let Ok(agreed) = agreed else { continue };
        for hello in [ours, theirs] {
            assert!((hello.min_version..=hello.max_version).contains(&agreed.version));
            assert_eq!(agreed.features & !hello.features, 0, "a feature that one peer lacks");
        }
        assert_eq!(theirs.required & !ours.features, 0, "a required feature is missing");
    }
    if let (Ok(here), Ok(there)) = (&here, &there) {
        assert_eq!(here, there, "the peers disagree");
    }
    for peer in [Peer::Host, Peer::Agent] {
        let (frames, _) = decode(peer, rest, rest.len().max(1));
        if let Some(first) = frames.first() {
            assert!(matches!(first.message, Message::Hello(_) | Message::Error(_)), "{first:?}");
        }
    }
}

/// Creates a hello of small numbers, which are likely to overlap.
fn hello(data: &[u8]) -> (Hello, &[u8]) {
    let (fields, rest) = data.split_at(data.len().min(4));
    let mut fields = fields.iter().copied().chain(std::iter::repeat(0));
    let mut next = || fields.next().unwrap_or(0);
    let hello = Hello {
        min_version: next().into(),
        max_version: next().into(),
        features: next().into(),
        required: next().into(),
        boot_id: None,
        software: String::new(),
    };
    (hello, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| run(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }

    #[test]
    fn codec_seeds_pass() {
        replay("codec", codec);
    }

    #[test]
    fn handshake_seeds_pass() {
        replay("handshake", handshake);
    }
}
