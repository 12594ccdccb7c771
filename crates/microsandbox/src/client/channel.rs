//! One command's channel: its events, its input, and who still holds it.

use crate::client::deadlines::Times;
use crate::client::link::Link;
use crate::client::monitor::Monitor;
use crate::client::queue::Queue;
use crate::client::sink::Input;
use crate::event::ExecLost;
use msb_wire::{Attached, Message, SessionId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the connection and the holders of a command share.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u32,
    pub(super) session: SessionId,
    pub(super) link: Arc<Link>,
    pub(super) queue: Monitor<Queue>,
    pub(super) input: Monitor<Input>,
    /// How long the command may take.
    pub(super) times: Times,
    /// The handle, and the sink while it can still be written to.
    holders: AtomicUsize,
}

impl Channel {
    /// A channel that its handle holds.
    pub(super) fn new(
        id: u32,
        session: SessionId,
        link: Arc<Link>,
        queue: Queue,
        input: Input,
        times: Times,
    ) -> Self {
        let (queue, input) = (Monitor::new(queue), Monitor::new(input));
        Channel { id, session, link, queue, input, times, holders: AtomicUsize::new(1) }
    }

    /// Takes a message of the agent in. `Ok(true)` when it was the last; the error says which rule
    /// it breaks.
    pub(super) fn on_message(&self, message: Message) -> Result<bool, String> {
        // The input first: whoever learns from an event that it is broken finds it so.
        match message {
            Message::Credit(limit) => self.input.with(|input| input.grant(limit))?,
            Message::Attached(Attached { stdin_open: true, .. }) => self.input.with(Input::open),
            Message::StdinError(_) | Message::Exited(_) | Message::Failed(_) => {
                self.input.with(Input::on_broken);
            }
            _ => {}
        }
        let consequence = self.queue.with(|queue| queue.on_message(message))?;
        if let Some(limit) = consequence.grant {
            self.link.grant(self.id, limit);
        }
        Ok(consequence.last)
    }

    /// The connection is lost.
    pub(super) fn on_lost(&self, lost: &ExecLost) {
        self.input.with(|input| input.on_lost(lost));
        self.queue.with(|queue| queue.on_lost(lost));
    }

    pub(super) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// One holder less. When the last is gone, the agent need not tell any more, unless
    /// there is nothing more to tell anyway.
    pub(super) fn let_go(&self) {
        let last = self.holders.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.queue.with(|queue| queue.is_over()) {
            self.link.close(self.id);
        }
    }

    fn release(&self, cost: u64) {
        if let Some(limit) = self.queue.with(|queue| queue.release(cost)) {
            self.link.grant(self.id, limit);
        }
    }
}

/// The credit of one event. Dropping it gives it back: from any thread, in any order, also after
/// everything else was closed.
#[derive(Debug)]
pub struct Credit(Option<(Arc<Channel>, u64)>);

impl Credit {
    pub(super) fn new(channel: &Arc<Channel>, cost: u64) -> Self {
        Credit((cost > 0).then(|| (Arc::clone(channel), cost)))
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some((channel, cost)) = self.0.take() {
            channel.release(cost);
        }
    }
}
