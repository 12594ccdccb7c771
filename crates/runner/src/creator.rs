//! Watches the process that created an attached sandbox.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The creator of an attached sandbox; `None` for a detached one.
#[derive(Debug)]
pub(crate) struct CreatorWatch(Option<AsyncFd<OwnedFd>>);

impl CreatorWatch {
    /// Watches the process of a pidfd.
    #[allow(
        deprecated,
        reason = "the constructor is only unsound for types that lie about their descriptor; an \
                  OwnedFd does not"
    )]
    pub(crate) fn new(creator: Option<OwnedFd>) -> io::Result<Self> {
        let watch = |fd| AsyncFd::with_interest(fd, Interest::READABLE);
        creator.map(watch).transpose().map(CreatorWatch)
    }

    /// Waits until the process has ended; forever if there is none. Can be called again.
    pub(crate) async fn gone(&self) {
        match &self.0 {
            Some(process) if process.readable().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }
}
