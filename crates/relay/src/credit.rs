//! How much may still be sent on a connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Bytes that the other side has room for. One task takes, another one adds.
#[derive(Debug)]
pub(crate) struct Credit {
    left: AtomicUsize,
    grown: Notify,
}

impl Credit {
    pub(crate) fn new(bytes: usize) -> Self {
        Credit { left: AtomicUsize::new(bytes), grown: Notify::new() }
    }

    /// Waits until there is some, and says how much. Only [`Credit::spend`] takes it away.
    pub(crate) async fn available(&self) -> usize {
        loop {
            match self.left.load(Ordering::Acquire) {
                // A permit is kept for whoever waits next, so that no growth is missed.
                0 => self.grown.notified().await,
                left => return left,
            }
        }
    }

    /// How much there is now.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Takes what was used of what [`Credit::available`] said; called by the one task that asks.
    pub(crate) fn spend(&self, bytes: usize) {
        self.left.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Adds what the other side has taken; false when it cannot have taken so much.
    pub(crate) fn add(&self, bytes: usize, limit: usize) -> bool {
        let before = self.left.fetch_add(bytes, Ordering::AcqRel);
        self.grown.notify_one();
        before.checked_add(bytes).is_some_and(|now| now <= limit)
    }
}
