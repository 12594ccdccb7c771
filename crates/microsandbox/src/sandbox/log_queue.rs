//! The records of a log, between the thread that reads the files and the reader.
//!
//! Owns: their order, their end, and the memory that they may use. Invariant: a record stays in the
//! queue until the step that returns it, and the thread reads ahead by a bounded number of bytes.

use crate::error::{Error, ErrorKind, Origin};
use crate::runtime;
use msb_client::{Monitor, Ready};
use msb_state::{LogReader, LogRecord, LogStep};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that are read ahead of the caller; a single record may be larger.
const READ_AHEAD: usize = 1 << 20;
/// Approximate memory of a record besides its bytes.
const RECORD_COST: usize = 256;

/// An item read from a log.
#[derive(Debug)]
pub enum LogItem {
    /// Output or an event of a session.
    Record(LogRecord),
    /// The log cannot be read further.
    Failed(Error),
    /// The end of an incomplete log; one line says what is missing.
    Incomplete(String),
}

impl LogItem {
    fn cost(&self) -> usize {
        let LogItem::Record(record) = self else { return 0 };
        RECORD_COST + record.data.len()
    }
}

/// The result of reading the queue.
#[derive(Debug)]
pub enum LogNext {
    /// A record, or the final item.
    Item(LogItem),
    /// No item yet.
    Nothing,
    /// No further items.
    End,
}

/// An open log. Every method may be called from any thread; dropping this closes it.
#[derive(Debug)]
pub(crate) struct LogCore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Monitor<Queue>,
    room: Monitor<Room>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<LogItem>,
    over: bool,
    taker: Taker,
}

/// The state of the reader.
#[derive(Debug, Default, PartialEq, Eq)]
enum Taker {
    /// No call is reading.
    #[default]
    Idle,
    /// A call is reading.
    Waiting,
    /// The log was closed.
    Gone,
}

/// The memory used by queued records, and whether the thread should continue.
#[derive(Debug, Default)]
struct Room {
    used: usize,
    closed: bool,
}

impl Ready for Queue {
    fn is_ready(&self) -> bool {
        !self.items.is_empty() || self.over || self.taker == Taker::Gone
    }
}

impl Ready for Room {
    // Not after every record: the thread would be woken for each of them.
    fn is_ready(&self) -> bool {
        self.closed || self.used <= READ_AHEAD / 2
    }
}

impl Queue {
    fn take(&mut self) -> Option<Result<LogNext, Error>> {
        if self.taker == Taker::Gone {
            return Some(Err(closed()));
        }
        match self.items.pop_front() {
            Some(item) => Some(Ok(LogNext::Item(item))),
            None => self.over.then_some(Ok(LogNext::End)),
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        match self.taker {
            Taker::Idle => self.taker = Taker::Waiting,
            Taker::Waiting => {
                let context = "another call reads from this handle already";
                return Err(Error::new(ErrorKind::Busy, Origin::Caller, context));
            }
            Taker::Gone => return Err(closed()),
        }
        Ok(())
    }
}

impl Room {
    /// Reserves memory; `None` while there is not enough, `Some(false)` if the log was closed. A
    /// single record may have any size.
    fn take(&mut self, cost: usize) -> Option<bool> {
        if self.closed {
            return Some(false);
        }
        let fits = self.used == 0 || self.used + cost <= READ_AHEAD;
        fits.then(|| {
            self.used += cost;
            true
        })
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, Origin::Caller, "the handle was closed")
}

impl LogCore {
    /// Starts to read on a thread of its own.
    pub(super) fn begin(reader: LogReader) -> Result<LogCore, Error> {
        let (core, filler) = LogCore::new();
        runtime::spawn_thread("msb-logs", move || filler.fill(reader))?;
        Ok(core)
    }

    fn new() -> (LogCore, Filler) {
        let (queue, room) = (Monitor::new(Queue::default()), Monitor::new(Room::default()));
        let shared = Arc::new(Shared { queue, room });
        (LogCore(Arc::clone(&shared)), Filler(shared))
    }

    /// Waits for the next item. Cancel-safe: dropping the future loses no item.
    pub(crate) async fn next(&self) -> Result<LogNext, Error> {
        let _turn = self.turn()?;
        self.0.taken(self.0.queue.until(Queue::take).await)
    }

    /// Reserves reading for one call. Fails with `Busy` while another call holds the turn.
    pub(crate) fn turn(&self) -> Result<LogTurn<'_>, Error> {
        self.0.queue.with(Queue::begin)?;
        Ok(LogTurn(&self.0))
    }

    /// Returns a descriptor that polls readable while there is an item or the end.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.0.queue.fd().map_err(|error| Error::io("cannot make an event descriptor", error))
    }

    /// Stops reading. A waiting call returns an error. Idempotent.
    pub(crate) fn close(&self) {
        let items = self.0.queue.with(|queue| {
            queue.taker = Taker::Gone;
            std::mem::take(&mut queue.items)
        });
        drop(items);
        self.0.room.with(|room| room.closed = true);
    }
}

impl Drop for LogCore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Frees the memory of a taken item.
    fn taken(&self, next: Result<LogNext, Error>) -> Result<LogNext, Error> {
        if let Ok(LogNext::Item(item)) = &next {
            self.room.with(|room| room.used -= item.cost());
        }
        next
    }
}

/// The exclusive right to take items; a second caller gets [`ErrorKind::Busy`].
#[derive(Debug)]
pub(crate) struct LogTurn<'a>(&'a Shared);

impl LogTurn<'_> {
    /// Blocks until there is an item; [`LogNext::Nothing`] when the deadline passes. Fails with
    /// `Closed` as soon as another thread closes the handle.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Result<LogNext, Error> {
        let next = self.0.queue.sleep(deadline, Queue::take);
        self.0.taken(next.unwrap_or(Ok(LogNext::Nothing)))
    }
}

impl Drop for LogTurn<'_> {
    fn drop(&mut self) {
        self.0.queue.with(|queue| {
            if queue.taker == Taker::Waiting {
                queue.taker = Taker::Idle;
            }
        });
    }
}

/// The writing end of the queue, held by the thread. Dropping it ends the log.
#[derive(Debug)]
struct Filler(Arc<Shared>);

impl Filler {
    fn fill(self, mut reader: LogReader) {
        while !self.0.room.with(|room| room.closed) {
            let item = match reader.step() {
                Ok(LogStep::Nothing) => {
                    reader.wait();
                    continue;
                }
                Ok(LogStep::Record(record)) => LogItem::Record(record),
                Ok(LogStep::End) => return self.end(missing(&reader).map(LogItem::Incomplete)),
                Err(error) => return self.end(Some(LogItem::Failed(error.into()))),
            };
            if !self.put(item) {
                return;
            }
        }
    }

    /// Waits for room, then queues an item. Returns false if the log was closed.
    fn put(&self, item: LogItem) -> bool {
        let cost = item.cost();
        let fits = self.0.room.sleep(None, |room| room.take(cost)).unwrap_or(false);
        if fits {
            self.0.queue.with(|queue| queue.items.push_back(item));
        }
        fits
    }

    fn end(&self, last: Option<LogItem>) {
        self.0.queue.with(|queue| {
            queue.items.extend(last);
            queue.over = true;
        });
    }
}

impl Drop for Filler {
    // A panic of the thread is a failure, and not the end of the log.
    fn drop(&mut self) {
        if !self.0.queue.with(|queue| queue.over) {
            let error = Error::internal("the log reader stopped early");
            self.end(Some(LogItem::Failed(error)));
        }
    }
}

fn missing(reader: &LogReader) -> Option<String> {
    if let Some(failure) = reader.failure() {
        return Some(format!("the log could not be written to its end: {failure}"));
    }
    let files = reader.missed_files();
    (files > 0)
        .then(|| format!("{files} files of the log were full and gone before they were read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_client::testing::{block_on, is_readable};

    fn incomplete(text: &str) -> LogItem {
        LogItem::Incomplete(text.to_owned())
    }

    fn poll(core: &LogCore) -> LogNext {
        core.turn().unwrap().next(Some(Instant::now())).unwrap()
    }

    #[test]
    fn d6_items_are_in_order_and_the_end_repeats() {
        let (core, filler) = LogCore::new();
        assert!(matches!(poll(&core), LogNext::Nothing) && !is_readable(core.fd().unwrap()));
        assert!(filler.put(incomplete("one")));
        assert!(is_readable(core.fd().unwrap()));
        filler.end(Some(incomplete("two")));
        drop(filler);
        for text in ["one", "two"] {
            let LogNext::Item(LogItem::Incomplete(found)) = poll(&core) else { panic!("{text}") };
            assert_eq!(found, text);
        }
        assert!(matches!(poll(&core), LogNext::End) && is_readable(core.fd().unwrap()));
        assert!(matches!(block_on(core.next()), Ok(LogNext::End)));
    }

    #[test]
    fn d6_panicked_thread_is_a_failure_and_not_the_end() {
        let (core, filler) = LogCore::new();
        drop(filler);
        let LogNext::Item(LogItem::Failed(error)) = poll(&core) else { panic!("no failure") };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(matches!(poll(&core), LogNext::End));
    }

    #[test]
    fn d6_thread_waits_for_room_and_ends_with_its_reader() {
        let mut room = Room::default();
        assert_eq!(room.take(2 * READ_AHEAD), Some(true), "alone, it may be of any size");
        assert!(room.take(1).is_none() && !room.is_ready());
        room.used = READ_AHEAD / 2;
        assert!(room.is_ready());
        assert_eq!(room.take(READ_AHEAD / 2), Some(true));
        assert_eq!(room.take(1), None);
        room.closed = true;
        assert_eq!((room.take(1), room.is_ready()), (Some(false), true));
        let (core, filler) = LogCore::new();
        filler.0.room.with(|room| room.used = READ_AHEAD);
        let filling = std::thread::spawn(move || {
            let record = LogItem::Failed(Error::internal("any"));
            filler.0.room.sleep(None, |room| room.take(1)) == Some(true) && filler.put(record)
        });
        drop(core);
        assert!(!filling.join().unwrap());
    }

    #[test]
    fn d6_second_reader_is_busy_and_closing_wakes_the_first() {
        let (core, filler) = LogCore::new();
        let turn = core.turn().unwrap();
        assert_eq!(core.turn().unwrap_err().kind(), ErrorKind::Busy);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turn.next(None));
            core.close();
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        });
        drop(turn);
        assert_eq!(core.turn().unwrap_err().kind(), ErrorKind::Closed);
        assert!(!filler.put(incomplete("late")) && is_readable(core.fd().unwrap()));
    }
}
