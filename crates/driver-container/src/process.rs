//! Waiting for child processes without a signal handler.

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that polls readable when a process has ended.
#[allow(
    deprecated,
    reason = "the constructor is only unsound for types that lie about their descriptor; an \
              OwnedFd does not, and its replacement is unsafe to call"
)]
pub(crate) fn watch(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// A child that is killed when it is given up.
pub(crate) struct Bound(Child);

impl Bound {
    pub(crate) fn new(child: Child) -> Self {
        Bound(child)
    }

    /// Waits for the end; one that takes too long is killed.
    pub(crate) async fn wait(mut self, limit: Duration) -> io::Result<ExitStatus> {
        let ended = watch(self.0.id())?;
        let result = match tokio::time::timeout(limit, ended.readable()).await {
            Ok(ready) => ready.map(drop),
            Err(_) => {
                let message = format!("it did not end within {} s and was killed", limit.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        };
        result.and_then(|()| self.0.wait())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Both fail, rightly, when it has been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
