//! The pending standard input of a command.
//!
//! Bounded by the credit of the channels that write it: `limits::STDIN_WINDOW` each.

use crate::connection::ChannelId;
use bytes::{Buf, Bytes};
use msb_wire::StdinMode;
use std::collections::VecDeque;

#[derive(Debug)]
struct Piece {
    /// The channel that gets its credit back; none for the end of input.
    channel: Option<ChannelId>,
    len: usize,
    rest: Bytes,
}

/// The queue of pending input.
#[derive(Debug)]
pub(super) struct StdinQueue {
    pieces: VecDeque<Piece>,
    open: bool,
    /// The last byte written.
    last: Option<u8>,
    /// Whether the end-of-file key of a terminal was queued.
    eof_queued: bool,
}

/// A channel whose credit is to be released, and for how many bytes.
pub(super) type Consumed = (ChannelId, usize);

impl StdinQueue {
    pub(super) fn new(mode: StdinMode, tty: bool) -> StdinQueue {
        let open = mode == StdinMode::Pipe || tty;
        StdinQueue { pieces: VecDeque::new(), open, last: None, eof_queued: false }
    }

    /// Returns whether the input accepts bytes.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Queues bytes. Returns false and drops them when the input is closed.
    pub(super) fn push(&mut self, channel: ChannelId, data: &Bytes) -> bool {
        if self.open {
            let (len, rest) = (data.len(), data.clone());
            self.pieces.push_back(Piece { channel: Some(channel), len, rest });
        }
        self.open
    }

    /// Closes the input after everything queued.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Closes the input and drops everything queued. Returns the credit to release.
    pub(super) fn discard(&mut self) -> Vec<Consumed> {
        self.open = false;
        self.pieces.drain(..).filter_map(|piece| Some((piece.channel?, piece.len))).collect()
    }

    /// Queues the end-of-file key of a terminal. Returns false when it was queued before.
    ///
    /// In the middle of a line the first key only passes on the line so far: a second one is
    /// needed.
    pub(super) fn push_eof(&mut self, key: u8) -> bool {
        if std::mem::replace(&mut self.eof_queued, true) {
            return false;
        }
        let at_start = self.last.is_none_or(|last| matches!(last, b'\n' | b'\r') || last == key);
        let keys = Bytes::from(vec![key; if at_start { 1 } else { 2 }]);
        self.pieces.push_back(Piece { channel: None, len: 0, rest: keys });
        true
    }

    /// Returns whether only the end-of-file key is left.
    pub(super) fn only_eof_left(&self) -> bool {
        self.eof_queued
    }

    /// Returns the next bytes to write.
    pub(super) fn front(&self) -> Option<Bytes> {
        self.pieces.front().map(|piece| piece.rest.clone())
    }

    /// Returns whether the input is closed and everything was written.
    pub(super) fn is_finished(&self) -> bool {
        !self.open && self.pieces.is_empty()
    }

    /// Records that `count` bytes of the front were written. Returns the credit to release.
    pub(super) fn written(&mut self, count: usize) -> Option<Consumed> {
        let first = self.pieces.front_mut()?;
        self.last = first.rest.get(..count).and_then(<[u8]>::last).copied().or(self.last);
        first.rest.advance(count.min(first.rest.len()));
        if !first.rest.is_empty() {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        Some((piece.channel?, piece.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ChannelId = ChannelId { connection: 1, number: 7 };
    const B: ChannelId = ChannelId { connection: 2, number: 9 };

    #[test]
    fn bytes_stay_in_order_and_credit_returns_by_piece() {
        let mut queue = StdinQueue::new(StdinMode::Pipe, false);
        assert!(queue.push(A, &Bytes::from_static(b"abc")));
        assert!(queue.push(B, &Bytes::from_static(b"de")));
        assert_eq!(queue.written(2), None);
        assert_eq!(queue.front(), Some(Bytes::from_static(b"c")));
        assert_eq!(queue.written(1), Some((A, 3)));
        queue.close();
        assert!(!queue.is_finished());
        assert_eq!(queue.written(2), Some((B, 2)));
        assert!(queue.is_finished() && queue.front().is_none());
    }

    #[test]
    fn terminal_eof_within_a_line_needs_a_second_key() {
        for (text, keys) in [(&b""[..], 1), (b"line\n", 1), (b"half", 2), (b"half\x04", 1)] {
            let mut queue = StdinQueue::new(StdinMode::Pipe, true);
            if !text.is_empty() {
                queue.push(A, &Bytes::copy_from_slice(text));
                assert_eq!(queue.written(text.len()), Some((A, text.len())));
            }
            queue.close();
            assert!(queue.is_finished() && queue.push_eof(4) && !queue.is_finished());
            assert_eq!(queue.front(), Some(Bytes::from(vec![4; keys])));
            assert_eq!(queue.written(keys), None);
            assert!(queue.is_finished() && !queue.push_eof(4));
        }
    }

    #[test]
    fn closed_input_accepts_nothing() {
        let mut queue = StdinQueue::new(StdinMode::Null, false);
        assert!(!queue.push(A, &Bytes::from_static(b"x")));
        let mut queue = StdinQueue::new(StdinMode::Null, true);
        assert!(queue.push(A, &Bytes::from_static(b"x")));
        assert_eq!(queue.discard(), [(A, 1)]);
        assert!(!queue.push(A, &Bytes::from_static(b"x")));
    }
}
