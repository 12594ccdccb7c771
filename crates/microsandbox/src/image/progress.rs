//! The progress of an operation.

use msb_client::{Monitor, Ready};
use msb_image::Progress;
use std::sync::Arc;

/// The newest progress. A new value replaces an unread one: a slow reader misses intermediate
/// steps, but not the end.
#[derive(Debug)]
pub(crate) struct ProgressCell(Monitor<State>);

#[derive(Debug, Default)]
struct State {
    newest: Progress,
    fresh: bool,
    over: bool,
}

impl Ready for State {
    fn is_ready(&self) -> bool {
        self.fresh || self.over
    }
}

impl State {
    /// Takes a new value; `Some(None)` at the end.
    fn take(&mut self) -> Option<Option<Progress>> {
        if std::mem::take(&mut self.fresh) {
            return Some(Some(self.newest));
        }
        self.over.then_some(None)
    }
}

impl ProgressCell {
    /// Creates a cell and its sender.
    pub(crate) fn new() -> (ProgressSender, Arc<ProgressCell>) {
        let cell = Arc::new(ProgressCell(Monitor::new(State::default())));
        (ProgressSender(Arc::clone(&cell)), cell)
    }

    /// Waits for a new value; `None` at the end.
    pub(crate) async fn next(&self) -> Option<Progress> {
        self.0.until(State::take).await
    }
}

/// The sending end. Dropping it is the end, also for an operation that never started, or panicked.
#[derive(Debug)]
pub(crate) struct ProgressSender(Arc<ProgressCell>);

impl ProgressSender {
    pub(crate) fn send(&self, progress: Progress) {
        self.0.0.with(|state| (state.newest, state.fresh) = (progress, true));
    }
}

impl Drop for ProgressSender {
    fn drop(&mut self) {
        self.0.0.with(|state| state.over = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_client::testing::poll_once;
    use std::task::Poll;

    #[test]
    fn a_slow_reader_sees_the_newest_and_the_end() {
        let (teller, cell) = ProgressCell::new();
        let at = |bytes| {
            let mut progress = Progress::default();
            progress.bytes = bytes;
            progress
        };
        let poll = || match poll_once(&mut Box::pin(cell.next())) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        };
        assert_eq!(poll(), None);
        teller.send(at(1));
        teller.send(at(2));
        assert_eq!(poll(), Some(Some(at(2))));
        assert_eq!(poll(), None);
        teller.send(at(3));
        drop(teller);
        assert_eq!(poll(), Some(Some(at(3))));
        assert_eq!((poll(), poll()), (Some(None), Some(None)));
    }
}
