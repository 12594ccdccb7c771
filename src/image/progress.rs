//! How far something is, for whoever wants to know.

use crate::client::{Monitor, Ready};
use msb_image::Progress;

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

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressNext {
    /// Something new.
    News(Progress),
    /// There will be nothing more.
    Over,
}

impl State {
    fn take(&mut self) -> Option<ProgressNext> {
        if std::mem::take(&mut self.fresh) {
            return Some(ProgressNext::News(self.newest));
        }
        self.over.then_some(ProgressNext::Over)
    }
}

impl ProgressCell {
    pub(crate) fn new() -> ProgressCell {
        ProgressCell(Monitor::new(State::default()))
    }

    pub(crate) fn tell(&self, progress: Progress) {
        self.0.with(|state| (state.newest, state.fresh) = (progress, true));
    }

    pub(crate) fn end(&self) {
        self.0.with(|state| state.over = true);
    }

    /// What is new since the last look.
    pub(crate) async fn next(&self) -> ProgressNext {
        self.0.until(State::take).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::poll_once;
    use std::task::Poll;

    #[test]
    fn a_slow_reader_sees_the_newest_and_the_end() {
        let cell = ProgressCell::new();
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
        cell.tell(at(1));
        cell.tell(at(2));
        assert_eq!(look(), Some(ProgressNext::News(at(2))));
        assert_eq!(look(), None);
        cell.tell(at(3));
        cell.end();
        assert_eq!(look(), Some(ProgressNext::News(at(3))));
        assert_eq!((look(), look()), (Some(ProgressNext::Over), Some(ProgressNext::Over)));
    }
}
