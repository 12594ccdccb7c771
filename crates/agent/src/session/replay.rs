//! The recent output of a session, by byte position.
//!
//! A position counts the bytes of both outputs together, in the order in which they were read: one
//! number locates a reader.

use bytes::{Bytes, BytesMut};
use msb_wire::OutputStream;
use msb_wire::limits::{COPY_BELOW, REPLAY, REPLAY_CHUNKS};
use std::collections::VecDeque;

/// Small pieces are gathered into a chunk of up to this size.
const GATHER: usize = 16 * 1024;

#[derive(Debug)]
struct Chunk {
    start: u64,
    stream: OutputStream,
    data: Bytes,
}

/// Keeps the last [`REPLAY`] bytes, and at most one chunk more.
#[derive(Debug)]
pub(crate) struct Replay {
    chunks: VecDeque<Chunk>,
    tail: BytesMut,
    tail_stream: OutputStream,
    start: u64,
    end: u64,
}

impl Replay {
    pub(crate) fn new() -> Replay {
        Replay {
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            tail_stream: OutputStream::Stdout,
            start: 0,
            end: 0,
        }
    }

    /// Returns the oldest position that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the position after the last byte: the total output.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns how many bytes are kept.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.end - self.start).unwrap_or(usize::MAX)
    }

    /// Appends output, and drops the oldest beyond the bound.
    pub(crate) fn push(&mut self, stream: OutputStream, data: &Bytes) {
        let small = data.len() < COPY_BELOW;
        if !small || stream != self.tail_stream || self.tail.len() + data.len() > GATHER {
            self.seal();
        }
        if small {
            self.tail_stream = stream;
            self.tail.extend_from_slice(data);
        } else {
            self.chunks.push_back(Chunk { start: self.end, stream, data: data.clone() });
        }
        self.end += data.len() as u64;
        while let Some(first) = self.chunks.front() {
            let rest = self.len() - first.data.len().min(self.len());
            if rest < REPLAY && self.chunks.len() <= REPLAY_CHUNKS {
                break;
            }
            self.start = first.start + first.data.len() as u64;
            self.chunks.pop_front();
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let start = self.end - self.tail.len() as u64;
            let data = Bytes::copy_from_slice(&self.tail);
            self.tail.clear();
            self.chunks.push_back(Chunk { start, stream: self.tail_stream, data });
        }
    }

    /// Returns up to `max` bytes of one stream at `position`; `None` at the end or when `max` is 0.
    pub(crate) fn get(&mut self, position: u64, max: usize) -> Option<(OutputStream, Bytes)> {
        if max == 0 || position >= self.end || position < self.start {
            return None;
        }
        self.seal();
        let index = self.chunks.partition_point(|chunk| chunk.start <= position);
        let chunk = self.chunks.get(index.checked_sub(1)?)?;
        let from = usize::try_from(position - chunk.start).ok()?;
        let to = chunk.data.len().min(from.saturating_add(max));
        (from < to).then(|| (chunk.stream, chunk.data.slice(from..to)))
    }

    /// Drops all output, but keeps the positions.
    pub(crate) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.tail = BytesMut::new();
        self.start = self.end;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "test data")]
    use super::*;
    use OutputStream::{Stderr, Stdout};
    use proptest::prelude::*;

    fn all(replay: &mut Replay) -> Vec<(OutputStream, u8)> {
        let (mut out, mut position) = (Vec::new(), replay.start());
        while let Some((stream, data)) = replay.get(position, 1000) {
            assert!(!data.is_empty());
            position += data.len() as u64;
            out.extend(data.iter().map(|byte| (stream, *byte)));
        }
        assert_eq!(position, replay.end());
        out
    }

    #[test]
    fn keeps_the_last_mebibyte_and_little_more() {
        let mut replay = Replay::new();
        let chunk = Bytes::from(vec![7; 60_000]);
        for _ in 0..100 {
            replay.push(Stdout, &chunk);
        }
        assert_eq!(replay.end(), 6_000_000);
        assert!((REPLAY..REPLAY + 60_000).contains(&replay.len()), "{}", replay.len());
        assert_eq!(replay.get(0, 10), None);
        assert_eq!(replay.get(replay.end(), 10), None);
        assert_eq!(replay.get(replay.end() - 1, 10), Some((Stdout, Bytes::from_static(&[7]))));
    }

    #[test]
    fn alternating_single_bytes_are_bounded() {
        let mut replay = Replay::new();
        for i in 0..100_000u32 {
            let stream = if i % 2 == 0 { Stdout } else { Stderr };
            replay.push(stream, &Bytes::from_static(b"x"));
        }
        assert!(replay.chunks.len() <= REPLAY_CHUNKS);
        assert_eq!(replay.end(), 100_000);
    }

    proptest! {
        #[test]
        fn replay_is_the_end_of_what_was_pushed(
            pieces in proptest::collection::vec((any::<bool>(), 1usize..40_000), 0..60),
        ) {
            let mut replay = Replay::new();
            let mut pushed = Vec::new();
            for (i, (first, size)) in pieces.into_iter().enumerate() {
                let stream = if first { Stdout } else { Stderr };
                replay.push(stream, &Bytes::from(vec![i as u8; size]));
                pushed.extend(std::iter::repeat_n((stream, i as u8), size));
            }
            let kept = all(&mut replay);
            prop_assert!(kept.len() >= pushed.len().min(REPLAY));
            prop_assert_eq!(&pushed[pushed.len() - kept.len()..], &kept[..]);
        }
    }
}
