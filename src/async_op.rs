//! An operation that continues behind a handle until its result is known.

use super::failure::{Failure, wrong};
use super::status::MSB_E_CLOSED;
use microsandbox::image::ImageProgress;
use microsandbox::pull::Ready;

/// A pending operation: its progress, and its result, which every reader gets.
#[derive(Debug)]
pub(super) struct AsyncOp<T> {
    what: &'static str,
    result: Option<Result<T, Failure>>,
    /// The newest unread progress.
    progress: Option<ImageProgress>,
    /// Whether progress was ever read: a caller who never reads it is not woken for it.
    reports_progress: bool,
    closed: bool,
}

impl<T> Ready for AsyncOp<T> {
    fn is_ready(&self) -> bool {
        self.closed || self.result.is_some() || (self.reports_progress && self.progress.is_some())
    }
}

impl<T: Clone> AsyncOp<T> {
    /// Creates a pending operation. `what` names the kind of its handle, for messages.
    pub(super) fn new(what: &'static str) -> Self {
        AsyncOp { what, result: None, progress: None, reports_progress: false, closed: false }
    }

    pub(super) fn set_progress(&mut self, progress: ImageProgress) {
        self.progress = Some(progress);
    }

    /// Stores the result, unless the handle was closed. The caller drops the return value outside
    /// the lock.
    pub(super) fn complete(&mut self, result: Result<T, Failure>) -> Option<Result<T, Failure>> {
        if self.closed {
            return Some(result);
        }
        self.result.replace(result)
    }

    /// Closes the operation. The caller drops the return value outside the lock.
    pub(super) fn close(&mut self) -> Option<Result<T, Failure>> {
        self.closed = true;
        self.result.take()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Fails if the handle was closed.
    pub(super) fn check_open(&self) -> Result<(), Failure> {
        match self.closed {
            true => Err(wrong(MSB_E_CLOSED, format!("the {} handle was closed", self.what))),
            false => Ok(()),
        }
    }

    /// Returns the result; `None` while it is pending.
    pub(super) fn result(&mut self) -> Option<Result<T, Failure>> {
        if let Err(closed) = self.check_open() {
            return Some(Err(closed));
        }
        self.result.clone()
    }

    /// Returns the newest unread progress; `Some(None)` at the end.
    pub(super) fn next_progress(&mut self) -> Option<Result<Option<ImageProgress>, Failure>> {
        if let Err(closed) = self.check_open() {
            return Some(Err(closed));
        }
        self.reports_progress = true;
        match self.progress.take() {
            Some(progress) => Some(Ok(Some(progress))),
            None => self.result.is_some().then_some(Ok(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(op: &mut AsyncOp<u32>) -> Option<Option<ImageProgress>> {
        op.next_progress().map(|next| next.ok().unwrap())
    }

    #[test]
    fn progress_wakes_only_callers_who_read_it() {
        let mut op = AsyncOp::new("test");
        op.set_progress(ImageProgress::default());
        assert!(!op.is_ready());
        assert_eq!(progress(&mut op), Some(Some(ImageProgress::default())));
        assert_eq!(progress(&mut op), None);
        assert!(!op.is_ready());
        op.set_progress(ImageProgress::default());
        assert!(op.is_ready());
    }

    #[test]
    fn the_result_is_repeated_and_follows_all_progress() {
        let mut op = AsyncOp::new("test");
        assert!(op.result().is_none());
        op.set_progress(ImageProgress::default());
        assert!(op.complete(Ok(7)).is_none());
        assert!(op.is_ready());
        assert_eq!(op.result().unwrap().ok(), Some(7));
        assert_eq!(progress(&mut op), Some(Some(ImageProgress::default())));
        assert_eq!((progress(&mut op), progress(&mut op)), (Some(None), Some(None)));
        assert_eq!(op.result().unwrap().ok(), Some(7));
    }

    #[test]
    fn a_closed_operation_has_neither_and_returns_its_result() {
        let mut op = AsyncOp::new("test");
        assert!(op.complete(Ok(7)).is_none());
        assert!(matches!(op.close(), Some(Ok(7))));
        assert!(matches!(op.complete(Ok(8)), Some(Ok(8))));
        assert!(op.is_ready() && op.is_closed());
        assert!(matches!(op.result(), Some(Err(_))));
        assert!(matches!(op.next_progress(), Some(Err(_))));
    }
}
