//! The input of one command, as it stands.
//!
//! Owns: the credit for it, and whether it can still be written to.

use crate::client::monitor::Ready;
use crate::error::{Error, ErrorKind, Origin};
use crate::event::ExecLost;
use msb_wire::SendCredit;
use msb_wire::limits::STDIN_WINDOW;

/// The host's view of a command's input. The owner locks it.
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

    pub(super) fn take(&mut self) -> bool {
        let there = self.end == WritingEnd::Untaken;
        if there {
            self.end = WritingEnd::Taken;
        }
        there
    }

    /// Closes the writing end. `None` when that was done before, else whether the command is to be
    /// told.
    pub(super) fn close(&mut self) -> Option<bool> {
        let was_open = std::mem::replace(&mut self.end, WritingEnd::Closed) == WritingEnd::Taken;
        was_open.then_some(matches!(self.reach, Reach::Open))
    }

    /// Returns an error unless what is written now arrives.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.reach {
            _ if self.end != WritingEnd::Taken => Err(closed()),
            Reach::Open => Ok(()),
            Reach::Broken => Err(broken()),
            Reach::Lost(lost) => Err(Error::lost(lost)),
        }
    }

    /// Spends credit for up to `len` bytes, and returns for how many there was some.
    pub(super) fn spend(&mut self, len: usize) -> usize {
        let step = self.credit.room().min(len);
        if step > 0 && self.credit.spend(step) { step } else { 0 }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, Origin::Caller, "the input was closed")
}

fn broken() -> Error {
    Error::new(ErrorKind::BrokenPipe, Origin::Agent, "the command no longer reads its input")
}
