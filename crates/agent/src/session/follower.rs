//! One channel that reads along with a session.

use super::replay::Replay;
use crate::connection::Connection;
use bytes::Bytes;
use msb_wire::limits::STDIN_WINDOW;
use msb_wire::{End, Exited, Kind, Message, OutputStream, ReceiveCredit, SendCredit, cost};
use std::rc::Rc;

/// Whether a follower has been told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// There is or will be more.
    Part,
    /// The channel is done.
    All,
}

/// How a channel came to follow a session, and so what it is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It started the session.
    Exec,
    /// It joined.
    Attach,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Follower {
    connection: Rc<Connection>,
    channel: u32,
    pub(super) origin: Origin,
    cursor: u64,
    exit_told: bool,
    pub(super) credit: SendCredit,
    pub(super) stdin: ReceiveCredit,
}

impl Follower {
    pub(super) fn new(
        connection: Rc<Connection>,
        channel: u32,
        origin: Origin,
        cursor: u64,
        credit: SendCredit,
    ) -> Follower {
        let stdin = ReceiveCredit::new(STDIN_WINDOW);
        Follower { connection, channel, origin, cursor, exit_told: false, credit, stdin }
    }

    pub(super) fn is(&self, connection: u64, channel: u32) -> bool {
        self.connection.id == connection && self.channel == channel
    }

    pub(super) fn send(&self, message: Message) {
        self.connection.send(self.channel, message);
    }

    /// Nothing more will come on its channel.
    pub(super) fn done(&self) {
        self.connection.channel_done(self.channel);
    }

    /// How much it can take at once; 0 while it lacks something before `end`.
    pub(super) fn room(&self, end: u64) -> usize {
        if self.cursor < end || self.connection.is_congested() { 0 } else { self.credit.room() }
    }

    /// Sends data for which there is room.
    pub(super) fn send_data(&mut self, stream: OutputStream, data: Bytes) {
        if self.credit.spend(data.len()) {
            self.cursor += data.len() as u64;
            let kind = match stream {
                OutputStream::Stdout => Kind::Stdout,
                OutputStream::Stderr => Kind::Stderr,
            };
            self.connection.send_data(kind, self.channel, data);
        }
    }

    /// Gives credit for `len` bytes of input back.
    pub(super) fn give_back_stdin(&mut self, len: usize) {
        if let Some(limit) = self.stdin.release(cost(len)) {
            self.send(Message::Credit(limit));
        }
    }

    /// Sends what it lacks, in order, as far as credit and connection allow.
    pub(super) fn catch_up(
        &mut self,
        replay: &mut Replay,
        exited: Option<&(Exited, u64)>,
        end: Option<&End>,
    ) -> Told {
        loop {
            let boundary = match exited {
                Some((_, position)) if !self.exit_told => *position,
                _ => replay.end(),
            };
            if self.cursor < boundary {
                let left = usize::try_from(boundary - self.cursor).unwrap_or(usize::MAX);
                let room = if self.connection.is_congested() { 0 } else { self.credit.room() };
                match replay.get(self.cursor, left.min(room)) {
                    Some((stream, data)) => self.send_data(stream, data),
                    None => return Told::Part,
                }
                continue;
            }
            if let (Some((exited, _)), false) = (exited, self.exit_told) {
                self.exit_told = true;
                self.send(Message::Exited(exited.clone()));
                continue;
            }
            return match end {
                Some(end) => {
                    self.send(Message::End(end.clone()));
                    self.done();
                    Told::All
                }
                None => Told::Part,
            };
        }
    }
}
