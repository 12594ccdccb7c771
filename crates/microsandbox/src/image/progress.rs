//! The progress of an operation.

use crate::client::{Monitor, Ready};
use msb_image::Progress;
use std::sync::Arc;

/// The newest progress. What nobody has looked at is replaced by what is newer: a reader that is
/// slow misses steps, and never the end.
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
    /// What is new; `Some(None)` when there will be nothing more.
    fn take(&mut self) -> Option<Option<Progress>> {
        if std::mem::take(&mut self.fresh) {
            return Some(Some(self.newest));
        }
        self.over.then_some(None)
    }
}

impl ProgressCell {
    /// A cell, and who tells it.
    pub(crate) fn new() -> (Teller, Arc<ProgressCell>) {
        let cell = Arc::new(ProgressCell(Monitor::new(State::default())));
        (Teller(Arc::clone(&cell)), cell)
    }

    /// What is new since the last look; `None` when there will be nothing more.
    pub(crate) async fn next(&self) -> Option<Progress> {
        self.0.until(State::take).await
    }
}

/// Tells how far it is. Dropping this is the end: also of work that never began, or panicked.
#[derive(Debug)]
pub(crate) struct Teller(Arc<ProgressCell>);

impl Teller {
    pub(crate) fn tell(&self, progress: Progress) {
        self.0.0.with(|state| (state.newest, state.fresh) = (progress, true));
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.0.with(|state| state.over = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::poll_once;
    use std::task::Poll;

    #[test]
    fn a_slow_reader_sees_the_newest_and_the_end() {
        let (teller, cell) = ProgressCell::new();
        let at = |bytes| {
            let mut progress = Progress::default();
            progress.bytes = bytes;
            progress
        };
        let look = || match poll_once(&mut Box::pin(cell.next())) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        };
        assert_eq!(look(), None);
        teller.tell(at(1));
        teller.tell(at(2));
        assert_eq!(look(), Some(Some(at(2))));
        assert_eq!(look(), None);
        teller.tell(at(3));
        drop(teller);
        assert_eq!(look(), Some(Some(at(3))));
        assert_eq!((look(), look()), (Some(None), Some(None)));
    }
}
