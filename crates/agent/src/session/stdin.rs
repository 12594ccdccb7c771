//! What waits to be written to a command's standard input.
//!
//! Bounded by the credit of the channels that feed it: `limits::STDIN_WINDOW` each.

use bytes::{Buf, Bytes};
use msb_wire::StdinMode;
use std::collections::VecDeque;

#[derive(Debug)]
struct Piece {
    connection: u64,
    channel: u32,
    len: usize,
    rest: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(super) struct StdinQueue {
    pieces: VecDeque<Piece>,
    open: bool,
    /// The byte that was written last.
    last: Option<u8>,
    /// Whether what stands for the end on a terminal was queued.
    end_queued: bool,
}

/// Whose credit is to be given back, and for how many bytes.
pub(super) type Spent = (u64, u32, usize);

impl StdinQueue {
    pub(super) fn new(mode: StdinMode, tty: bool) -> StdinQueue {
        let open = mode == StdinMode::Pipe || tty;
        StdinQueue { pieces: VecDeque::new(), open, last: None, end_queued: false }
    }

    /// Whether it still takes bytes.
    pub(super) fn accepts(&self) -> bool {
        self.open
    }

    /// Queues bytes; false when there is nowhere for them to go any more.
    pub(super) fn push(&mut self, connection: u64, channel: u32, data: &Bytes) -> bool {
        if self.open {
            let (len, rest) = (data.len(), data.clone());
            self.pieces.push_back(Piece { connection, channel, len, rest });
        }
        self.open
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self) {
        self.open = false;
    }

    /// Nobody reads any more: drops what waits, and says whose it was.
    pub(super) fn give_up(&mut self) -> Vec<Spent> {
        self.open = false;
        self.pieces.drain(..).map(|piece| (piece.connection, piece.channel, piece.len)).collect()
    }

    /// Queues what stands for the end on a terminal; false when it was queued before.
    ///
    /// `key` in the middle of a line only hands over what was typed of it, as the terminal's own
    /// user knows: the end is the second one.
    pub(super) fn push_end(&mut self, key: u8) -> bool {
        if std::mem::replace(&mut self.end_queued, true) {
            return false;
        }
        let at_start = self.last.is_none_or(|last| matches!(last, b'\n' | b'\r') || last == key);
        let keys = Bytes::from(vec![key; if at_start { 1 } else { 2 }]);
        self.pieces.push_back(Piece { connection: 0, channel: 0, len: 0, rest: keys });
        true
    }

    /// Whether all that is left is what stands for the end.
    pub(super) fn only_end_left(&self) -> bool {
        self.end_queued
    }

    /// What to write next.
    pub(super) fn front(&self) -> Option<Bytes> {
        self.pieces.front().map(|piece| piece.rest.clone())
    }

    /// Whether everything was written and nothing more will come.
    pub(super) fn is_finished(&self) -> bool {
        !self.open && self.pieces.is_empty()
    }

    /// Notes that `count` bytes of the front were written.
    pub(super) fn written(&mut self, count: usize) -> Option<Spent> {
        let first = self.pieces.front_mut()?;
        self.last = first.rest.get(..count).and_then(<[u8]>::last).copied().or(self.last);
        first.rest.advance(count.min(first.rest.len()));
        if !first.rest.is_empty() {
            return None;
        }
        let piece = self.pieces.pop_front().filter(|piece| piece.len > 0)?;
        Some((piece.connection, piece.channel, piece.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_credit_comes_back_piece_by_piece() {
        let mut queue = StdinQueue::new(StdinMode::Pipe, false);
        assert!(queue.push(1, 7, &Bytes::from_static(b"abc")));
        assert!(queue.push(2, 9, &Bytes::from_static(b"de")));
        assert_eq!(queue.written(2), None);
        assert_eq!(queue.front(), Some(Bytes::from_static(b"c")));
        assert_eq!(queue.written(1), Some((1, 7, 3)));
        queue.finish();
        assert!(!queue.is_finished());
        assert_eq!(queue.written(2), Some((2, 9, 2)));
        assert!(queue.is_finished() && queue.front().is_none());
    }

    #[test]
    fn the_end_on_a_terminal_takes_a_second_key_in_the_middle_of_a_line() {
        for (text, keys) in [(&b""[..], 1), (b"line\n", 1), (b"half", 2), (b"half\x04", 1)] {
            let mut queue = StdinQueue::new(StdinMode::Pipe, true);
            if !text.is_empty() {
                queue.push(1, 7, &Bytes::copy_from_slice(text));
                assert_eq!(queue.written(text.len()), Some((1, 7, text.len())));
            }
            queue.finish();
            assert!(queue.is_finished() && queue.push_end(4) && !queue.is_finished());
            assert_eq!(queue.front(), Some(Bytes::from(vec![4; keys])));
            assert_eq!(queue.written(keys), None);
            assert!(queue.is_finished() && !queue.push_end(4));
        }
    }

    #[test]
    fn after_the_end_nothing_is_taken() {
        let mut queue = StdinQueue::new(StdinMode::Null, false);
        assert!(!queue.push(1, 1, &Bytes::from_static(b"x")));
        let mut queue = StdinQueue::new(StdinMode::Null, true);
        assert!(queue.push(1, 1, &Bytes::from_static(b"x")));
        assert_eq!(queue.give_up(), [(1, 1, 1)]);
        assert!(!queue.push(1, 1, &Bytes::from_static(b"x")));
    }
}
