//! The process whose end is the end of an attached sandbox.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The creator of an attached sandbox; a detached one has none that matters.
#[derive(Debug)]
pub(crate) struct CreatorWatch(Option<AsyncFd<OwnedFd>>);

impl CreatorWatch {
    /// Watches the process that a descriptor stands for.
    #[allow(
        deprecated,
        reason = "the constructor is only unsound for types that lie about their descriptor; an \
                  OwnedFd does not"
    )]
    pub(crate) fn new(creator: Option<OwnedFd>) -> io::Result<Self> {
        let watch = |fd| AsyncFd::with_interest(fd, Interest::READABLE);
        creator.map(watch).transpose().map(CreatorWatch)
    }

    /// Waits for its end; for ever if there is none. Whoever asks again is told again.
    pub(crate) async fn gone(&self) {
        match &self.0 {
            Some(process) if process.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
