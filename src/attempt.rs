//! What goes on behind a handle until it is known what came of it.

use super::boundary::{Failure, wrong};
use super::status::MSB_E_CLOSED;
use microsandbox::image::ImageProgress;
use microsandbox::pull::Ready;

/// Something that was begun: how far it is, and what came of it, told as often as it is asked for.
#[derive(Debug)]
pub(super) struct Attempt<T> {
    what: &'static str,
    result: Option<Result<T, Failure>>,
    /// The newest progress that nobody has looked at.
    news: Option<ImageProgress>,
    /// Whether anybody has asked for news: who has not is not to be woken by them.
    wants_news: bool,
    closed: bool,
}

impl<T> Ready for Attempt<T> {
    fn is_ready(&self) -> bool {
        self.closed || self.result.is_some() || (self.wants_news && self.news.is_some())
    }
}

impl<T: Clone> Attempt<T> {
    /// `what` its handle is, for messages.
    pub(super) fn new(what: &'static str) -> Self {
        Attempt { what, result: None, news: None, wants_news: false, closed: false }
    }

    pub(super) fn tell(&mut self, progress: ImageProgress) {
        self.news = Some(progress);
    }

    /// Notes what came of it, unless nobody wants to know any more. To be dropped outside the lock
    /// is what this returns.
    pub(super) fn settle(&mut self, result: Result<T, Failure>) -> Option<Result<T, Failure>> {
        if self.closed {
            return Some(result);
        }
        self.result.replace(result)
    }

    /// As [`Attempt::settle`] for what is returned.
    pub(super) fn close(&mut self) -> Option<Result<T, Failure>> {
        self.closed = true;
        self.result.take()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// An error when the handle was closed.
    pub(super) fn open(&self) -> Result<(), Failure> {
        match self.closed {
            true => Err(wrong(MSB_E_CLOSED, format!("the {} handle was closed", self.what))),
            false => Ok(()),
        }
    }

    /// What came of it, once that is known.
    pub(super) fn result(&mut self) -> Option<Result<T, Failure>> {
        if let Err(closed) = self.open() {
            return Some(Err(closed));
        }
        self.result.as_ref().map(|known| match known {
            Ok(value) => Ok(value.clone()),
            Err(failure) => Err(failure.clone()),
        })
    }

    /// What is new; `Some(None)` when there will be nothing more.
    pub(super) fn next_news(&mut self) -> Option<Result<Option<ImageProgress>, Failure>> {
        if let Err(closed) = self.open() {
            return Some(Err(closed));
        }
        self.wants_news = true;
        match self.news.take() {
            Some(progress) => Some(Ok(Some(progress))),
            None => self.result.is_some().then_some(Ok(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(attempt: &mut Attempt<u32>) -> Option<Option<ImageProgress>> {
        attempt.next_news().map(|next| next.ok().unwrap())
    }

    #[test]
    fn news_wake_nobody_who_has_not_asked_for_them() {
        let mut attempt = Attempt::new("test");
        attempt.tell(ImageProgress::default());
        assert!(!attempt.is_ready());
        assert_eq!(news(&mut attempt), Some(Some(ImageProgress::default())));
        assert_eq!(news(&mut attempt), None);
        assert!(!attempt.is_ready());
        attempt.tell(ImageProgress::default());
        assert!(attempt.is_ready());
    }

    #[test]
    fn the_result_is_told_again_and_again_and_behind_all_news() {
        let mut attempt = Attempt::new("test");
        assert!(attempt.result().is_none());
        attempt.tell(ImageProgress::default());
        assert!(attempt.settle(Ok(7)).is_none());
        assert!(attempt.is_ready());
        assert_eq!(attempt.result().unwrap().ok(), Some(7));
        assert_eq!(news(&mut attempt), Some(Some(ImageProgress::default())));
        assert_eq!((news(&mut attempt), news(&mut attempt)), (Some(None), Some(None)));
        assert_eq!(attempt.result().unwrap().ok(), Some(7));
    }

    #[test]
    fn a_closed_one_has_neither_and_gives_back_what_it_had() {
        let mut attempt = Attempt::new("test");
        assert!(attempt.settle(Ok(7)).is_none());
        assert!(matches!(attempt.close(), Some(Ok(7))));
        assert!(matches!(attempt.settle(Ok(8)), Some(Ok(8))));
        assert!(attempt.is_ready() && attempt.is_closed());
        assert!(matches!(attempt.result(), Some(Err(_))));
        assert!(matches!(attempt.next_news(), Some(Err(_))));
    }
}
