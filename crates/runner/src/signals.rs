//! The request to end that the system sends, at shutdown for example.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// SIGTERM and the like, as a descriptor. Programs that this one starts get a clean mask.
#[derive(Debug)]
pub(crate) struct Signals(AsyncFd<SignalFd>);

/// Lets every signal through: the thread that started this program may have blocked them all, and
/// programs that this one starts would inherit that.
pub(crate) fn unblock() {
    // Fails only for a mask that the kernel cannot read.
    let _ = SigSet::empty().thread_set_mask();
}

impl Signals {
    /// Holds the signals back from now on.
    #[allow(
        deprecated,
        reason = "the constructor is only unsound for types that lie about their descriptor; a \
                  SignalFd does not"
    )]
    pub(crate) fn hold() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals(AsyncFd::with_interest(fd, Interest::READABLE)?))
    }

    /// Waits for one. It stays pending: whoever asks again is told again.
    pub(crate) async fn arrived(&self) {
        if self.0.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
