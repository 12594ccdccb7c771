//! The state of one operation on files, between the connection and its holder.
//!
//! Owns: what the agent has sent and nobody has taken, the credit in both directions, and the end.
//! Invariant: the end is reported once by the agent or the connection, and the queue never costs
//! more than was granted.

use crate::lost::ExecLost;
use crate::monitor::{Monitor, Ready};
use bytes::Bytes;
use msb_wire::limits::{COPY_BELOW, FS_WINDOW, OUTPUT_WINDOW};
use msb_wire::{
    FsAction, FsError, FsInput, FsMessage, FsOp, FsOpened, FsReply, FsState, Message,
    ReceiveCredit, SendCredit, cost,
};
use std::collections::VecDeque;

/// Credit that is granted for data to the host.
pub(crate) const WINDOW: u64 = OUTPUT_WINDOW;

/// Why an operation has no result.
#[derive(Debug, Clone)]
pub enum FsFailure {
    /// The agent says so.
    Failed(FsError),
    /// The connection was lost; what the operation did is unknown.
    Lost(ExecLost),
    /// The handle was closed.
    Closed,
}

/// The operation of one channel.
#[derive(Debug)]
pub(crate) struct FsChannel {
    pub(crate) queue: Monitor<FsQueue>,
    /// Whether the agent's first answer depends on no amount of data.
    pub(crate) is_prompt: bool,
}

/// What a message requires beyond the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FsConsequence {
    /// The last message on this channel.
    pub(crate) last: bool,
    /// The agent has begun: it may now take its time.
    pub(crate) began: bool,
}

/// See the module. Locked by its owner.
#[derive(Debug)]
pub(crate) struct FsQueue {
    state: FsState,
    expected: Expected,
    opened: Option<FsOpened>,
    data: VecDeque<Bytes>,
    received: ReceiveCredit,
    outgoing: Outgoing,
    end: Option<Result<FsReply, FsFailure>>,
    is_closed: bool,
}

/// The kind of reply that an operation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Done,
    Stat,
    Path,
    Handle,
    Exists,
}

/// Data to the agent.
#[derive(Debug)]
enum Outgoing {
    /// The operation has none, or its end was sent.
    None,
    Open(SendCredit),
}

impl FsChannel {
    pub(crate) fn new(op: &FsOp) -> FsChannel {
        let is_prompt = match op {
            FsOp::ReadAt { .. }
            | FsOp::List { .. }
            | FsOp::ReadDir { .. }
            | FsOp::Write(_)
            | FsOp::WriteAt { .. }
            | FsOp::CopyIn(_)
            | FsOp::Copy { .. } => false,
            FsOp::CloseHandle { sync, .. } => !sync,
            FsOp::RemoveDir { recursive, .. } => !recursive,
            _ => true,
        };
        FsChannel { queue: Monitor::new(FsQueue::new(op)), is_prompt }
    }

    /// Handles a message of the agent; the error names the violated rule.
    pub(crate) fn on_message(&self, message: Message) -> Result<FsConsequence, String> {
        self.queue.with(|queue| queue.on_message(message))
    }

    /// Reports that the connection is lost.
    pub(crate) fn on_lost(&self, lost: &ExecLost) {
        self.queue.with(|queue| queue.on_lost(lost));
    }
}

impl Ready for FsQueue {
    fn is_ready(&self) -> bool {
        self.is_closed
            || self.end.is_some()
            || self.opened.is_some()
            || !self.data.is_empty()
            || matches!(&self.outgoing, Outgoing::Open(credit) if credit.room() > 0)
    }
}

impl FsQueue {
    fn new(op: &FsOp) -> FsQueue {
        let expected = match op {
            FsOp::Open(_) => Expected::Handle,
            FsOp::Stat { .. } | FsOp::StatHandle { .. } => Expected::Stat,
            FsOp::ReadLink { .. } | FsOp::RealPath { .. } => Expected::Path,
            FsOp::Exists { .. } => Expected::Exists,
            _ => Expected::Done,
        };
        let outgoing = match op.receives_data() {
            true => Outgoing::Open(SendCredit::new(FS_WINDOW)),
            false => Outgoing::None,
        };
        FsQueue {
            state: FsState::new(op),
            expected,
            opened: None,
            data: VecDeque::new(),
            received: ReceiveCredit::new(if op.sends_data() { WINDOW } else { 0 }),
            outgoing,
            end: None,
            is_closed: false,
        }
    }

    fn on_message(&mut self, message: Message) -> Result<FsConsequence, String> {
        let (next, action) = self.state.on(FsInput::of(&message));
        match action {
            FsAction::Violation(rule) => return Err(rule.to_owned()),
            FsAction::Ignore => return Ok(FsConsequence::default()),
            FsAction::Deliver | FsAction::DeliverLast | FsAction::Apply => {}
        }
        let mut began = false;
        match message {
            Message::Credit(limit) => self.grant(limit)?,
            Message::Fs(FsMessage::Opened(opened)) => {
                self.opened = Some(opened);
                began = true;
            }
            Message::Fs(FsMessage::Data(data)) => self.receive(data)?,
            Message::Fs(FsMessage::Reply(_)) if matches!(self.outgoing, Outgoing::Open(_)) => {
                return Err("a reply before the end of the data".to_owned());
            }
            Message::Fs(FsMessage::Reply(reply)) => {
                self.expected.check(&reply)?;
                self.end = Some(Ok(reply));
            }
            Message::Fs(FsMessage::Failed(error)) => {
                self.end = Some(Err(FsFailure::Failed(error)));
            }
            _ => return Err("a frame of another kind of channel".to_owned()),
        }
        // Only now: what breaks a rule is no end.
        self.state = next;
        Ok(FsConsequence { last: self.end.is_some(), began })
    }

    fn on_lost(&mut self, lost: &ExecLost) {
        let (next, action) = self.state.on(FsInput::Lost);
        self.state = next;
        if action == FsAction::DeliverLast {
            self.end = Some(Err(FsFailure::Lost(lost.clone())));
        }
    }

    fn grant(&mut self, limit: u64) -> Result<(), String> {
        match &mut self.outgoing {
            Outgoing::Open(credit) => credit.grant(limit).map_err(|error| error.to_string()),
            // Late, or of an operation that has no data.
            Outgoing::None => Ok(()),
        }
    }

    fn receive(&mut self, data: Bytes) -> Result<(), String> {
        self.received.receive(data.len()).map_err(|error| error.to_string())?;
        // A small piece must not pin a receive buffer.
        let is_small = data.len() < COPY_BELOW;
        self.data.push_back(if is_small { Bytes::copy_from_slice(&data) } else { data });
        Ok(())
    }

    /// Returns the failure of the operation, if it has failed or was closed.
    fn check(&self) -> Result<(), FsFailure> {
        match &self.end {
            _ if self.is_closed => Err(FsFailure::Closed),
            Some(Err(failure)) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// Takes the announcement of the operation.
    pub(crate) fn take_opened(&mut self) -> Option<Result<FsOpened, FsFailure>> {
        match self.opened.take() {
            Some(opened) => Some(Ok(opened)),
            None => self.check().err().map(Err),
        }
    }

    /// Takes the next data and a limit to grant for it; `None` in it is the end.
    #[allow(clippy::type_complexity, reason = "nothing yet, failed, ended, or data and a grant")]
    pub(crate) fn take_data(&mut self) -> Option<Result<Option<(Bytes, Option<u64>)>, FsFailure>> {
        if self.is_closed {
            return Some(Err(FsFailure::Closed));
        }
        self.opened = None;
        if let Some(data) = self.data.pop_front() {
            let released = self.received.release(cost(data.len()));
            let grant = released.filter(|_| self.state != FsState::Ended);
            return Some(Ok(Some((data, grant))));
        }
        match &self.end {
            Some(Ok(_)) => Some(Ok(None)),
            Some(Err(failure)) => Some(Err(failure.clone())),
            None => None,
        }
    }

    /// Returns the result once the operation has ended.
    pub(crate) fn result(&self) -> Option<Result<FsReply, FsFailure>> {
        if self.is_closed { Some(Err(FsFailure::Closed)) } else { self.end.clone() }
    }

    /// Spends credit for up to `len` bytes, and returns for how many there was enough. Fails once
    /// the operation has ended: nobody takes more.
    pub(crate) fn spend(&mut self, len: usize) -> Result<usize, FsFailure> {
        self.check()?;
        match &mut self.outgoing {
            Outgoing::Open(credit) if self.end.is_none() => {
                let step = credit.room().min(len);
                Ok(if step > 0 && credit.spend(step) { step } else { 0 })
            }
            _ => Err(FsFailure::Closed),
        }
    }

    /// Notes that no more data follows. Returns whether to tell the agent.
    pub(crate) fn finish(&mut self) -> bool {
        let was_open = matches!(self.outgoing, Outgoing::Open(_));
        self.outgoing = Outgoing::None;
        was_open && !self.is_closed && self.end.is_none()
    }

    /// Closes the holder's side. Returns whether to tell the agent.
    pub(crate) fn close(&mut self) -> bool {
        self.data.clear();
        !std::mem::replace(&mut self.is_closed, true) && self.state != FsState::Ended
    }
}

impl Expected {
    fn check(self, reply: &FsReply) -> Result<(), String> {
        let found = match reply {
            FsReply::Done(_) => Expected::Done,
            FsReply::Stat(_) => Expected::Stat,
            FsReply::Path(_) => Expected::Path,
            FsReply::Handle(_) => Expected::Handle,
            FsReply::Exists(_) => Expected::Exists,
        };
        match found == self {
            true => Ok(()),
            false => Err("a reply that does not belong to the request".to_owned()),
        }
    }
}
