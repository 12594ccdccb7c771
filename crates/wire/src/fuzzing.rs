//! What the fuzzers and the replays of their seeds drive. Not part of the protocol.

use crate::limits::{MAX_CONTROL, MAX_HELLO};
use crate::{Decoder, Frame, HEADER_LEN, Hello, Message, Peer, WireError, agree, encode};
use bytes::BytesMut;

/// All that one decoder makes of bytes, and what was wrong in the end.
type Taken = (Vec<Frame>, Option<WireError>);

/// Decodes arbitrary bytes of either side, cut into pieces: the cuts change nothing, the buffer
/// holds at most one frame, and what was decoded is decoded again from its own encoding.
///
/// The first byte of `data` picks the side and the length of the pieces.
pub fn codec(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let peer = if first & 1 == 0 { Peer::Host } else { Peer::Agent };
    let whole = decode(peer, bytes, bytes.len().max(1));
    let cut = decode(peer, bytes, usize::from(first >> 1) + 1);
    assert_eq!(whole, cut, "cuts change what is decoded");

    let mut again = BytesMut::new();
    for frame in &whole.0 {
        let start = again.len();
        // Text that was no UTF-8 is longer afterwards, and may then be too long.
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

fn decode(peer: Peer, bytes: &[u8], step: usize) -> Taken {
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

/// Lets two greetings come to terms, and gives a fresh decoder arbitrary bytes as the first frame.
pub fn handshake(data: &[u8]) {
    let (one, rest) = greeting(data);
    let (two, rest) = greeting(rest);
    let (here, there) = (agree(&one, &two), agree(&two, &one));
    for (ours, theirs, agreed) in [(&one, &two, &here), (&two, &one, &there)] {
        let Ok(agreed) = agreed else { continue };
        for hello in [ours, theirs] {
            assert!((hello.min_version..=hello.max_version).contains(&agreed.version));
            assert_eq!(agreed.features & !hello.features, 0, "a feature that one side lacks");
        }
        assert_eq!(theirs.required & !ours.features, 0, "a required feature is missing");
    }
    if let (Ok(here), Ok(there)) = (&here, &there) {
        assert_eq!(here, there, "two sides came to different results");
    }
    for peer in [Peer::Host, Peer::Agent] {
        let (frames, _) = decode(peer, rest, rest.len().max(1));
        if let Some(first) = frames.first() {
            assert!(matches!(first.message, Message::Hello(_) | Message::Error(_)), "{first:?}");
        }
    }
}

/// A greeting of small numbers, which are likely to have something in common.
fn greeting(data: &[u8]) -> (Hello, &[u8]) {
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
    fn the_seeds_of_the_codec_pass() {
        replay("codec", codec);
    }

    #[test]
    fn the_seeds_of_the_handshake_pass() {
        replay("handshake", handshake);
    }
}
