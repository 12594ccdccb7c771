//! Pending output of a stream.

use crate::stream::Stream;
use bytes::{Buf, Bytes, BytesMut};
use msb_wire::{Frame, HEADER_LEN, Kind, cost, data_header, encode};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// The output queue of a stream. Its owner bounds it: by credit on the host, by
/// `limits::CONNECTION_OUT` in the agent.
///
/// Small payloads are gathered in one buffer; large ones are queued without a copy.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    gather: BytesMut,
    bytes: usize,
}

/// Payloads below this are copied after their header: cheaper than another entry.
const GATHER_BELOW: usize = 4 * 1024;
/// Size at which the gather buffer is queued.
const GATHER_MAX: usize = 64 * 1024;
/// Entries passed to one system call.
const PIECES: usize = 64;

impl Outbox {
    /// Creates an empty queue.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Returns the number of pending bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Queues a frame. Returns `false` and queues nothing when it is longer than its kind allows.
    #[must_use]
    pub fn push(&mut self, frame: &Frame) -> bool {
        let before = self.gather.len();
        let fits = encode(frame, &mut self.gather);
        self.bytes += self.gather.len() - before;
        self.seal(GATHER_MAX);
        fits
    }

    /// Queues a data frame and returns its cost in credit. `data` has at most `MAX_DATA` bytes.
    pub fn push_data(&mut self, kind: Kind, channel: u32, data: Bytes) -> u64 {
        let len = data.len();
        self.gather.extend_from_slice(&data_header(kind, channel, len));
        self.bytes += HEADER_LEN + len;
        if len < GATHER_BELOW {
            self.gather.extend_from_slice(&data);
            self.seal(GATHER_MAX);
        } else {
            self.seal(0);
            self.queue.push_back(data);
        }
        cost(len)
    }

    fn seal(&mut self, above: usize) {
        if self.gather.len() > above {
            self.queue.push_back(self.gather.split().freeze());
        }
    }

    /// Writes as much as the stream accepts now. Returns whether nothing is left.
    pub fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        self.seal(0);
        while !self.queue.is_empty() {
            let pieces: Vec<IoSlice<'_>> =
                self.queue.iter().take(PIECES).map(|piece| IoSlice::new(piece)).collect();
            match stream.try_write(&pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use msb_wire::{Decoder, Hello, Message, Peer};

    #[tokio::test]
    async fn frames_of_all_sizes_pass_a_full_socket_in_order() {
        let (near, far) = memory::pair().unwrap();
        let mut outbox = Outbox::new();
        assert!(outbox.push(&Frame { channel: 0, message: Message::Hello(Hello::ours(None)) }));
        let sizes: Vec<usize> =
            (0..200).map(|i| [0, 1, GATHER_BELOW - 1, GATHER_BELOW, 65536][i % 5]).collect();
        for (i, size) in sizes.iter().enumerate() {
            outbox.push_data(Kind::Stdout, 1, Bytes::from(vec![u8::try_from(i).unwrap(); *size]));
        }
        let total = outbox.len();
        let (mut decoder, mut buffer, mut got, mut read) =
            (Decoder::new(Peer::Agent), BytesMut::new(), Vec::new(), 0);
        while got.len() <= sizes.len() {
            let flushed = outbox.flush(&near).unwrap();
            assert_eq!(flushed, outbox.is_empty());
            tokio::select! {
                ready = near.writable(), if !flushed => ready.unwrap(),
                ready = far.readable() => ready.unwrap(),
            }
            buffer.reserve(65536);
            match far.try_read(&mut buffer) {
                Ok(n) => read += n,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                got.push(frame.message);
            }
        }
        assert_eq!((read, outbox.len()), (total, 0));
        for (i, size) in sizes.iter().enumerate() {
            assert_eq!(
                got[i + 1],
                Message::Stdout(Bytes::from(vec![u8::try_from(i).unwrap(); *size]))
            );
        }
    }
}
