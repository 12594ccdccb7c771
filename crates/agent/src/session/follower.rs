//! A reader of a session: one channel that receives its output.

use super::replay::Replay;
use crate::connection::{Channel, ChannelId};
use bytes::Bytes;
use msb_wire::limits::STDIN_WINDOW;
use msb_wire::{
    End, Exited, Kind, Message, OutputStream, ReceiveCredit, SendCredit, WireError, cost,
};

/// Whether a follower has received everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// More is pending, or will come.
    Partial,
    /// The channel has finished.
    Complete,
}

/// How a channel came to follow a session, which decides its first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It started the session.
    Exec,
    /// It attached.
    Attach,
}

/// A channel that follows a session.
#[derive(Debug)]
pub(super) struct Follower {
    channel: Channel,
    pub(super) origin: Origin,
    /// Position of the next byte to send.
    cursor: u64,
    exit_sent: bool,
    credit: SendCredit,
    stdin: ReceiveCredit,
}

impl Follower {
    pub(super) fn new(
        channel: Channel,
        origin: Origin,
        cursor: u64,
        credit: SendCredit,
    ) -> Follower {
        let stdin = ReceiveCredit::new(STDIN_WINDOW);
        Follower { channel, origin, cursor, exit_sent: false, credit, stdin }
    }

    pub(super) fn id(&self) -> ChannelId {
        self.channel.id()
    }

    pub(super) fn send(&self, message: Message) {
        self.channel.send(message);
    }

    /// Sends the last message of its channel.
    pub(super) fn finish(&self, message: Message) {
        self.channel.finish(message);
    }

    /// Raises the credit for output.
    pub(super) fn grant(&mut self, limit: u64) {
        self.credit.raise(limit);
    }

    /// Returns how many bytes it can receive at once; 0 while it is behind `end`.
    pub(super) fn room(&self, end: u64) -> usize {
        if self.cursor < end || self.channel.is_congested() { 0 } else { self.credit.room() }
    }

    /// Sends data for which there is room.
    pub(super) fn send_data(&mut self, stream: OutputStream, data: Bytes) {
        if self.credit.spend(data.len()) {
            self.cursor += data.len() as u64;
            let kind = match stream {
                OutputStream::Stdout => Kind::Stdout,
                OutputStream::Stderr => Kind::Stderr,
            };
            self.channel.send_data(kind, data);
        }
    }

    /// Charges received input to the credit of the channel.
    pub(super) fn receive_stdin(&mut self, len: usize) -> Result<(), WireError> {
        self.stdin.receive(len)
    }

    /// Releases the credit for `len` bytes of input.
    pub(super) fn release_stdin(&mut self, len: usize) {
        if let Some(limit) = self.stdin.release(cost(len)) {
            self.send(Message::Credit(limit));
        }
    }

    /// Sends pending output, exit and end in order, as far as credit and connection allow.
    pub(super) fn catch_up(
        &mut self,
        replay: &mut Replay,
        exited: Option<&(Exited, u64)>,
        end: Option<&End>,
    ) -> Delivery {
        loop {
            let boundary = match exited {
                Some((_, position)) if !self.exit_sent => *position,
                _ => replay.end(),
            };
            if self.cursor < boundary {
                let left = usize::try_from(boundary - self.cursor).unwrap_or(usize::MAX);
                let room = if self.channel.is_congested() { 0 } else { self.credit.room() };
                match replay.get(self.cursor, left.min(room)) {
                    Some((stream, data)) => self.send_data(stream, data),
                    None => return Delivery::Partial,
                }
                continue;
            }
            if let (Some((exited, _)), false) = (exited, self.exit_sent) {
                self.exit_sent = true;
                self.send(Message::Exited(exited.clone()));
                continue;
            }
            return match end {
                Some(end) => {
                    self.finish(Message::End(end.clone()));
                    Delivery::Complete
                }
                None => Delivery::Partial,
            };
        }
    }
}
