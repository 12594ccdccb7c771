//! Credit of one connection and direction.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Bytes that the peer has room for. One task spends them, another one adds.
#[derive(Debug)]
pub(crate) struct Credit {
    left: AtomicUsize,
    grown: Notify,
}

impl Credit {
    pub(crate) fn new(bytes: usize) -> Self {
        Credit { left: AtomicUsize::new(bytes), grown: Notify::new() }
    }

    /// Waits until there is credit and returns it. Only [`Credit::spend`] reduces it.
    pub(crate) async fn available(&self) -> usize {
        loop {
            match self.left.load(Ordering::Acquire) {
                // `notify_one` stores a permit for the next waiter, so that no growth is missed.
                0 => self.grown.notified().await,
                left => return left,
            }
        }
    }

    /// Returns the current credit.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Acquire)
    }

    /// Deducts bytes of what [`Credit::available`] returned. Called by the task that waits there.
    pub(crate) fn spend(&self, bytes: usize) {
        self.left.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Adds bytes that the peer consumed. Returns false when that exceeds the limit.
    pub(crate) fn add(&self, bytes: usize, limit: usize) -> bool {
        let before = self.left.fetch_add(bytes, Ordering::AcqRel);
        self.grown.notify_one();
        before.checked_add(bytes).is_some_and(|now| now <= limit)
    }
}
