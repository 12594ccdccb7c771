//! The state of one command's input.
//!
//! Owns: its credit, and whether it can still be written to.

use crate::error::Error;
use crate::lost::ExecLost;
use crate::monitor::Ready;
use msb_wire::SendCredit;
use msb_wire::limits::STDIN_WINDOW;

/// The host's view of a command's input, locked by its owner.
#[derive(Debug)]
pub(crate) struct Input {
    end: WritingEnd,
    reach: Reach,
    credit: SendCredit,
}

/// The state of the writing end. Independent of the reader: the sink of a command that has exited
/// can still be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WritingEnd {
    Untaken,
    Taken,
    /// There is no input, or it was closed.
    Closed,
}

/// Whether written bytes can arrive.
#[derive(Debug)]
enum Reach {
    Open,
    /// The command no longer reads, or has ended.
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
    pub(crate) fn new(pipe: bool) -> Self {
        let end = if pipe { WritingEnd::Untaken } else { WritingEnd::Closed };
        Input { end, reach: Reach::Open, credit: SendCredit::new(STDIN_WINDOW) }
    }

    /// Opens the input of a session that was joined.
    pub(crate) fn open(&mut self) {
        self.end = WritingEnd::Untaken;
    }

    /// Adds credit; fails if it exceeds the window.
    pub(crate) fn grant(&mut self, limit: u64) -> Result<(), String> {
        self.credit.grant(limit).map_err(|error| error.to_string())
    }

    /// Marks the input as no longer read.
    pub(crate) fn on_broken(&mut self) {
        if let Reach::Open = self.reach {
            self.reach = Reach::Broken;
        }
    }

    pub(crate) fn on_lost(&mut self, lost: &ExecLost) {
        if let Reach::Open = self.reach {
            self.reach = Reach::Lost(lost.clone());
        }
    }

    pub(crate) fn take(&mut self) -> bool {
        let there = self.end == WritingEnd::Untaken;
        if there {
            self.end = WritingEnd::Taken;
        }
        there
    }

    /// Closes the writing end. Returns `None` if it was closed before, else whether to notify the
    /// command.
    pub(crate) fn close(&mut self) -> Option<bool> {
        let was_open = std::mem::replace(&mut self.end, WritingEnd::Closed) == WritingEnd::Taken;
        was_open.then_some(matches!(self.reach, Reach::Open))
    }

    /// Returns an error if written bytes can no longer arrive.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.reach {
            _ if self.end != WritingEnd::Taken => Err(Error::InputClosed),
            Reach::Open => Ok(()),
            Reach::Broken => Err(Error::BrokenPipe),
            Reach::Lost(lost) => Err(Error::Lost(lost.clone())),
        }
    }

    /// Spends credit for up to `len` bytes, and returns for how many there was enough.
    pub(crate) fn spend(&mut self, len: usize) -> usize {
        let step = self.credit.room().min(len);
        if step > 0 && self.credit.spend(step) { step } else { 0 }
    }
}
