//! Writing to the input of one command.
//!
//! Invariant: nothing is sent after end of file, and no byte is sent without credit.

use crate::connection::Connection;
use crate::error::Error;
use crate::input::Input;
use crate::link::Channel;
use bytes::Bytes;
use msb_wire::{Kind, Message};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// The writing end of a command's input. Dropping it closes it.
#[derive(Debug)]
pub struct SinkCore {
    /// Whether closing it ends the input.
    ends: bool,
    /// Keeps the connection open while there may be something to send.
    _connection: Arc<Connection>,
    channel: Arc<Channel>,
}

impl SinkCore {
    /// Takes the sink of a channel; `None` if there is no input, or it was taken before.
    pub(crate) fn take(connection: &Arc<Connection>, channel: &Arc<Channel>) -> Option<SinkCore> {
        let taken = channel.input.with(Input::take);
        taken.then(|| {
            channel.add_holder();
            let channel = Arc::clone(channel);
            SinkCore { ends: true, _connection: Arc::clone(connection), channel }
        })
    }

    /// Returns the sink changed so that closing it does not end the input, which another writer
    /// continues.
    pub fn leaving_input_open(mut self) -> SinkCore {
        self.ends = false;
        self
    }

    /// Writes without waiting: returns how many bytes were taken, or `None` if there was no room.
    pub fn try_write(&self, data: &[u8]) -> Option<Result<usize, Error>> {
        if data.is_empty() {
            return Some(Ok(0));
        }
        self.channel.input.with(|input| write(input, &self.channel, data.len(), copy_of(data)))
    }

    /// Writes as [`SinkCore::try_write`], but waits for room; `None` if the deadline passes first.
    pub fn write_until(
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

    /// Writes all of it. Bytes written before the future is dropped stay written.
    pub async fn write_all(&self, mut data: &[u8]) -> Result<(), Error> {
        let channel = &self.channel;
        while !data.is_empty() {
            let step = |input: &mut Input| write(input, channel, data.len(), copy_of(data));
            let written = channel.input.until(step).await?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes all of it without copying, then closes. If the command stops reading, that is an
    /// event and not an error here.
    pub(crate) async fn feed(self, mut data: Bytes) {
        let channel = &self.channel;
        while !data.is_empty() {
            let step = |input: &mut Input| write(input, channel, data.len(), |r| data.slice(r));
            match channel.input.until(step).await {
                Ok(written) => drop(data.split_to(written)),
                Err(_) => return,
            }
        }
    }

    /// Returns a descriptor that polls readable while a write would not wait.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.channel.input.fd().map_err(Error::io("cannot make an event descriptor"))
    }

    /// Closes the sink, which ends the input. A waiting write returns an error. Idempotent.
    pub fn close(&self) {
        let channel = &self.channel;
        // End of file is sent under the lock, after all data.
        let closed = channel.input.with(|input| {
            let listens = input.close()?;
            if listens && self.ends {
                // Fails only when the connection is lost, which ends the input, too.
                let _ = channel.link.send(channel.id, Message::StdinEof);
            }
            Some(())
        });
        if closed.is_some() {
            channel.remove_holder();
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

/// Writes as much as there is credit for; `None` if there is none. `piece` returns a range of the
/// `len` bytes.
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
