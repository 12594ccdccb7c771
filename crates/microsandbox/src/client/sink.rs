//! Writing to the input of one command.
//!
//! Invariant: nothing is sent behind its end, and no byte is sent that the agent gave no credit for.

use crate::client::connection::Connection;
use crate::client::input::Input;
use crate::client::link::Channel;
use crate::error::Error;
use bytes::Bytes;
use msb_wire::{Kind, Message};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

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
        self.channel.input.with(|input| write(input, &self.channel, data.len(), copy_of(data)))
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
        let step = |input: &mut Input| write(input, channel, data.len(), copy_of(data));
        channel.input.sleep(deadline, step)
    }

    /// Writes all of it. What was written when the future is dropped stays written.
    pub(crate) async fn write_all(&self, mut data: &[u8]) -> Result<(), Error> {
        let channel = &self.channel;
        while !data.is_empty() {
            let step = |input: &mut Input| write(input, channel, data.len(), copy_of(data));
            let written = channel.input.until(step).await?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of it without copying, then closes. That the command stops reading is its own
    /// affair and tells itself as an event.
    pub(super) async fn feed(self, mut data: Bytes) {
        let channel = &self.channel;
        while !data.is_empty() {
            let step = |input: &mut Input| write(input, channel, data.len(), |r| data.slice(r));
            match channel.input.until(step).await {
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

    /// Closes the sink, and so ends the input. A waiting write returns an error. Idempotent.
    pub(crate) fn close(&self) {
        let channel = &self.channel;
        // The end is sent under the lock, behind all data.
        let closed = channel.input.with(|input| {
            let listens = input.close()?;
            if listens && self.ends {
                // Fails only when the connection is gone, and then there is nothing to end.
                let _ = channel.link.send(channel.id, Message::StdinEof);
            }
            Some(())
        });
        if closed.is_some() {
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

/// Writes what there is credit for; `None` when there is none. `piece` gives a part of the `len`
/// bytes.
fn write(
    input: &mut Input,
    channel: &Channel,
    len: usize,
    piece: impl Fn(Range<usize>) -> Bytes,
) -> Option<Result<usize, Error>> {
    if let Err(error) = input.check() {
        return Some(Err(error));
    }
    let sent = channel.link.submit(|outbox| {
        let mut at = 0;
        while at < len {
            let step = input.spend(len - at);
            if step == 0 {
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
