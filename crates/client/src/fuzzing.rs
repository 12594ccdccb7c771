//! Entry points for the fuzzers and the replays of their seeds.
//!
//! `queue` checks one command's queue between an arbitrary agent and an arbitrary reader: the grammar of events (B1), that no byte is lost, duplicated or reordered (B5), that no
//! more is buffered than was granted (B6), and that the window is whole again after all credit is
//! returned.

use crate::connection::Connection;
use crate::deadlines::Limits;
use crate::lost::ExecLost;
use crate::queue::{Consequence, Event, Queue, Refused};
use bytes::{Bytes, BytesMut};
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW_MAX, OUTPUT_WINDOW_MIN};
use msb_wire::{
    End, Exited, Failure, FailureKind, Frame, Hello, Message, OutputStream, Stage, Started,
    StdinError, Verdict, cost, encode,
};
use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Longer than any run that does not hang.
const LIMIT: Duration = Duration::from_secs(10);

/// An agent sends arbitrary bytes, after a hello if the first byte is even, and closes the
/// connection: every call returns.
pub fn link(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut sent = BytesMut::new();
    if first & 1 == 0 {
        let hello = Message::Hello(Hello::ours(Some([1; 16])));
        assert!(encode(&Frame { channel: 0, message: hello }, &mut sent));
    }
    sent.extend_from_slice(rest);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let Ok(runtime) = builder.enable_io().enable_time().build() else { return };
    let ended = runtime.block_on(async { timeout(LIMIT, converse(&sent)).await });
    assert!(ended.is_ok(), "it hangs");
}

async fn converse(sent: &[u8]) {
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    // Less than the socket holds.
    let sent = sent.get(..MAX_DATA).unwrap_or(sent);
    if theirs.write_all(sent).and_then(|()| theirs.shutdown(Shutdown::Write)).is_err() {
        return;
    }
    let limits = Limits::new(LIMIT);
    let Ok(pending) = Connection::establish(ours, limits, &Handle::current()) else { return };
    let Ok(connection) = pending.await else { return };
    if let Ok(pong) = connection.ping()
        && pong.await.is_ok()
        && let Ok(sessions) = connection.sessions()
    {
        let _ = sessions.await;
    }
}

/// Interprets the fuzzer's bytes as a script: each step is an opcode byte and its operands.
pub fn queue(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let window =
        if bytes.next().unwrap_or(0) & 1 == 0 { OUTPUT_WINDOW_MIN } else { OUTPUT_WINDOW_MAX };
    let mut play = Play::new(window);
    while let Some(step) = bytes.next() {
        let mut next = || bytes.next().unwrap_or(0);
        match step % 16 {
            0 => play.agent(Message::Started(Started { pid: next().into() })),
            1 | 2 => play.output(OutputStream::Stdout, small(next())),
            3 => play.output(OutputStream::Stderr, small(next())),
            4 => play.output(OutputStream::Stdout, usize::from(next()) * 257),
            5 => play.agent(Message::StdinError(StdinError { errno: next().into() })),
            6 => play.agent(Message::Exited(Exited { code: next().into(), ..Exited::default() })),
            7 => play.agent(Message::Failed(failure())),
            8 => play.agent(Message::End(End { writer_left: next() & 1 == 1, total: 0 })),
            9 => play.agent(Message::Credit(u64::from(next()) << (next() % 64))),
            10 => play.agent(Message::Verdict(Verdict::default())),
            11 => play.lost(),
            12 | 13 => play.read(),
            14 => play.release(next().into()),
            _ if next() == 0 => play.close(),
            _ => play.wait(),
        }
    }
    play.finish();
}

fn small(byte: u8) -> usize {
    usize::from(byte) * if byte & 1 == 0 { 1 } else { 33 }
}

fn failure() -> Failure {
    Failure {
        kind: FailureKind::Other,
        stage: Stage::Execve,
        errno: 2,
        path: Vec::new(),
        message: String::new(),
    }
}

struct Play {
    queue: Queue,
    window: u64,
    /// The bytes that the agent may have sent, and that it sent.
    granted: u64,
    sent: u64,
    /// The credit that the reader holds.
    held: Vec<u64>,
    /// Per stream: the bytes that were accepted and not yet read, and the value of the next byte.
    expected: [VecDeque<u8>; 2],
    started: bool,
    endings: u32,
    last: bool,
    over: bool,
    closed: bool,
    /// The agent violated the protocol: its connection is lost.
    broken: bool,
    counter: u8,
}

impl Play {
    fn new(window: u64) -> Play {
        Play {
            queue: Queue::new(window),
            window,
            granted: window,
            sent: 0,
            held: Vec::new(),
            expected: Default::default(),
            started: false,
            endings: 0,
            last: false,
            over: false,
            closed: false,
            broken: false,
            counter: 0,
        }
    }

    fn agent(&mut self, message: Message) {
        if self.broken {
            return;
        }
        match self.queue.on_message(message) {
            Ok(Consequence { last, grant }) => {
                // A message after the last one has no effect.
                assert!(last || !self.last || grant.is_none());
                self.last |= last;
                self.note(grant);
            }
            Err(_) => self.lost(),
        }
    }

    fn output(&mut self, stream: OutputStream, len: usize) {
        if self.broken {
            return;
        }
        let len = len.min(MAX_DATA);
        let data: Vec<u8> = (0..len).map(|_| self.next_byte()).collect();
        let paid = self.sent + cost(len) <= self.granted;
        let message = match stream {
            OutputStream::Stdout => Message::Stdout(Bytes::from(data.clone())),
            OutputStream::Stderr => Message::Stderr(Bytes::from(data.clone())),
        };
        match self.queue.on_message(message) {
            Ok(Consequence { last, grant }) => {
                assert!(paid, "output was accepted without credit");
                assert!(!last && !self.last, "output behind the end");
                self.sent += cost(len);
                if !self.closed {
                    self.expected_of(stream).extend(data);
                }
                self.note(grant);
            }
            Err(_) => self.lost(),
        }
    }

    fn next_byte(&mut self) -> u8 {
        self.counter = self.counter.wrapping_mul(5).wrapping_add(1);
        self.counter
    }

    fn expected_of(&mut self, stream: OutputStream) -> &mut VecDeque<u8> {
        let [stdout, stderr] = &mut self.expected;
        match stream {
            OutputStream::Stdout => stdout,
            OutputStream::Stderr => stderr,
        }
    }

    fn note(&mut self, grant: Option<u64>) {
        let Some(limit) = grant else { return };
        assert!(limit > self.granted, "a grant that grants nothing");
        assert!(limit <= self.sent + self.window, "more than one window is granted");
        self.granted = limit;
    }

    fn lost(&mut self) {
        self.queue.on_lost(&ExecLost::broken("a rule was broken"));
        (self.broken, self.last) = (true, true);
    }

    fn read(&mut self) {
        if self.queue.may_read().is_err() {
            return;
        }
        match self.queue.take() {
            Some(Ok((event, cost))) => self.event(event, cost),
            Some(Err(_)) => self.end(),
            None => assert!(!self.last || self.closed, "the end was not reported"),
        }
    }

    fn event(&mut self, event: Event, cost: u64) {
        assert!(!self.over, "{event:?} after the end");
        match event {
            Event::Started { .. } => {
                assert!(!self.started && self.endings == 0, "a start at the wrong time");
                self.started = true;
            }
            Event::Output(stream, data) => {
                assert!(self.started, "output before the start");
                assert!(data.len() <= MAX_DATA, "an event of {} bytes", data.len());
                let expected: Vec<u8> = self.expected_of(stream).drain(..data.len()).collect();
                assert_eq!(data, expected, "bytes were lost, doubled or moved");
            }
            Event::StdinError(_) => assert!(self.started && self.endings == 0),
            Event::Exited(_) => {
                assert!(self.started, "an exit before the start");
                self.endings += 1;
            }
            Event::Failed(_) => {
                assert!(!self.started, "a failure to start behind the start");
                self.endings += 1;
            }
            Event::Lost(_) => self.endings += 1,
        }
        assert!(self.endings <= 1, "a second ending");
        if cost > 0 {
            self.held.push(cost);
        }
        assert!(self.held.iter().sum::<u64>() <= self.window, "more is held than one window");
    }

    fn end(&mut self) {
        assert_eq!(self.endings, 1, "the stream ended without an ending");
        assert!(self.expected.iter().all(VecDeque::is_empty), "bytes were lost");
        self.over = true;
    }

    fn release(&mut self, pick: usize) {
        if self.held.is_empty() {
            return;
        }
        let cost = self.held.swap_remove(pick % self.held.len());
        let grant = self.queue.release(cost);
        self.note(grant);
    }

    /// A reader that waits, and cancels.
    fn wait(&mut self) {
        if self.closed {
            assert_eq!(self.queue.begin_wait(), Err(Refused::Closed));
            return;
        }
        assert_eq!(self.queue.begin_wait(), Ok(()));
        assert_eq!(self.queue.begin_wait(), Err(Refused::Busy));
        self.queue.end_wait();
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        let (events, grant) = self.queue.close();
        drop(events);
        self.note(grant);
        self.closed = true;
        self.expected = Default::default();
    }

    /// Reads everything and returns all credit: afterwards the window is whole, or the ending was
    /// reported.
    fn finish(mut self) {
        if !self.closed {
            while let Some(Ok((event, cost))) = self.queue.take() {
                self.event(event, cost);
            }
        }
        while !self.held.is_empty() {
            self.release(0);
        }
        if !self.queue.is_over() {
            assert!(self.granted + self.window / 4 > self.sent + self.window, "credit was lost");
        }
        self.lost();
        if !self.closed {
            while !self.over {
                self.read();
            }
            assert!(matches!(self.queue.take(), Some(Err(_))), "the end is not for ever");
        }
        assert!(self.queue.is_over());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| run(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }

    #[test]
    fn i1_seeds_of_the_client_input_pass() {
        replay("client_input", super::queue);
    }

    #[test]
    fn i1_seeds_of_the_client_link_pass() {
        replay("client_link", super::link);
    }
}
