//! The input of one command.
//!
//! Owns: the credit for it, and whether it can still be written to. Invariant: nothing is sent
//! behind its end, and no byte is sent that the agent gave no credit for.

use crate::client::channel::Channel;
use crate::client::connection::Connection;
use crate::client::monitor::Ready;
use crate::error::{Error, ErrorKind, Origin};
use crate::event::ExecLost;
use bytes::Bytes;
use msb_wire::limits::STDIN_WINDOW;
use msb_wire::{Kind, Message, SendCredit};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// A command's input as seen from here; whoever owns it locks it.
#[derive(Debug)]
pub(super) struct Input {
    end: WritingEnd,
    reach: Reach,
    credit: SendCredit,
}

/// What became of the writing end. Independent of whether anybody still reads: a command that has
/// exited already still has a sink to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WritingEnd {
    Untaken,
    Taken,
    /// There never was one, or it was closed.
    Closed,
}

/// Whether what is written arrives.
#[derive(Debug)]
enum Reach {
    Open,
    /// The command no longer reads, or is gone.
    Broken,
    /// The connection is lost.
    Lost(ExecLost),
}

impl Ready for Input {
    fn is_ready(&self) -> bool {
        self.end == WritingEnd::Closed
            || !matches!(self.reach, Reach::Open)
            || self.credit.room() > 0
    }
}

impl Input {
    pub(super) fn new(pipe: bool) -> Self {
        let end = if pipe { WritingEnd::Untaken } else { WritingEnd::Closed };
        Input { end, reach: Reach::Open, credit: SendCredit::new(STDIN_WINDOW) }
    }

    /// There is an input after all: that of a session that was joined.
    pub(super) fn open(&mut self) {
        self.end = WritingEnd::Untaken;
    }

    /// Takes credit in; an error when it is more than there can be.
    pub(super) fn grant(&mut self, limit: u64) -> Result<(), String> {
        self.credit.grant(limit).map_err(|error| error.to_string())
    }

    /// The command no longer reads.
    pub(super) fn on_broken(&mut self) {
        if let Reach::Open = self.reach {
            self.reach = Reach::Broken;
        }
    }

    pub(super) fn on_lost(&mut self, lost: &ExecLost) {
        if let Reach::Open = self.reach {
            self.reach = Reach::Lost(lost.clone());
        }
    }

    fn take(&mut self) -> bool {
        let there = self.end == WritingEnd::Untaken;
        if there {
            self.end = WritingEnd::Taken;
        }
        there
    }

    /// Closes the writing end, and with `ends` the input; false when that was done before.
    fn close(&mut self, channel: &Channel, ends: bool) -> bool {
        let was_open = std::mem::replace(&mut self.end, WritingEnd::Closed) == WritingEnd::Taken;
        if was_open && ends && matches!(self.reach, Reach::Open) {
            // Fails only when the connection is gone, and then there is nothing to end.
            let _ = channel.link.send(channel.id, Message::StdinEof);
        }
        was_open
    }

    /// Writes what there is credit for; `None` when there is none. `piece` gives a part of the
    /// `len` bytes.
    fn write(
        &mut self,
        channel: &Channel,
        len: usize,
        piece: impl Fn(Range<usize>) -> Bytes,
    ) -> Option<Result<usize, Error>> {
        match &self.reach {
            _ if self.end != WritingEnd::Taken => return Some(Err(closed())),
            Reach::Open => {}
            Reach::Broken => return Some(Err(broken())),
            Reach::Lost(lost) => return Some(Err(lost.to_error())),
        }
        let credit = &mut self.credit;
        let sent = channel.link.submit(|outbox| {
            let mut at = 0;
            while at < len {
                let step = credit.room().min(len - at);
                if step == 0 || !credit.spend(step) {
                    break;
                }
                outbox.push_data(Kind::Stdin, channel.id, piece(at..at + step));
                at += step;
            }
            at
        });
        match sent {
            Ok(0) => None,
            sent => Some(sent),
        }
    }
}

/// The writing end of a command's input. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct SinkCore {
    /// Whether closing it ends the input.
    ends: bool,
    /// Keeps the connection as long as there may be something to send.
    _connection: Arc<Connection>,
    channel: Arc<Channel>,
}

impl SinkCore {
    /// The sink of a channel; `None` when there is no input to write to, or it was taken before.
    pub(super) fn take(connection: &Arc<Connection>, channel: &Arc<Channel>) -> Option<SinkCore> {
        let taken = channel.input.with(Input::take);
        taken.then(|| {
            channel.hold();
            let channel = Arc::clone(channel);
            SinkCore { ends: true, _connection: Arc::clone(connection), channel }
        })
    }

    /// One whose end is not the end of the input: the session waits for somebody else to go on.
    pub(crate) fn leaving_input_open(mut self) -> SinkCore {
        self.ends = false;
        self
    }

    /// Writes what there is room for now: how many bytes were taken, or `None` for not even one.
    pub(crate) fn try_write(&self, data: &[u8]) -> Option<Result<usize, Error>> {
        if data.is_empty() {
            return Some(Ok(0));
        }
        self.channel.input.with(|input| input.write(&self.channel, data.len(), copy_of(data)))
    }

    /// As [`SinkCore::try_write`], but sleeps until there is room; `None` when the time is over.
    pub(crate) fn write_until(
        &self,
        data: &[u8],
        deadline: Option<Instant>,
    ) -> Option<Result<usize, Error>> {
        if data.is_empty() {
            return Some(Ok(0));
        }
        let channel = &self.channel;
        let write = |input: &mut Input| input.write(channel, data.len(), copy_of(data));
        channel.input.sleep(deadline, write)
    }

    /// Writes all of it. What was written when the future is dropped stays written.
    pub(crate) async fn write_all(&self, mut data: &[u8]) -> Result<(), Error> {
        let channel = &self.channel;
        while !data.is_empty() {
            let write = |input: &mut Input| input.write(channel, data.len(), copy_of(data));
            let written = channel.input.until(write).await?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of it without copying, then closes. That the command stops reading is its own
    /// affair and tells itself as an event.
    pub(super) async fn feed(self, mut data: Bytes) {
        let channel = &self.channel;
        while !data.is_empty() {
            let write = |input: &mut Input| input.write(channel, data.len(), |r| data.slice(r));
            match channel.input.until(write).await {
                Ok(written) => drop(data.split_to(written)),
                Err(_) => return,
            }
        }
    }

    /// Polls readable when a write would not have to wait.
    pub(crate) fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        let fd = self.channel.input.fd();
        fd.map_err(|error| Error::io("cannot make an event descriptor", error))
    }

    /// Closes it, and so ends the input. Doing it again does nothing. Whoever waits in a write is told.
    pub(crate) fn close(&self) {
        let channel = &self.channel;
        if channel.input.with(|input| input.close(channel, self.ends)) {
            channel.let_go();
        }
    }
}

impl Drop for SinkCore {
    fn drop(&mut self) {
        self.close();
    }
}

fn copy_of(data: &[u8]) -> impl Fn(Range<usize>) -> Bytes + '_ {
    |range| data.get(range).map(Bytes::copy_from_slice).unwrap_or_default()
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, Origin::Caller, "the input was closed")
}

fn broken() -> Error {
    Error::new(ErrorKind::BrokenPipe, Origin::Agent, "the command no longer reads its input")
}
