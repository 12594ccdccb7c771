//! Waiting for child processes without a signal handler.

use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
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
pub fn watch(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// A child that is killed when it is given up.
#[derive(Debug)]
pub struct Bound(Child);

impl Bound {
    /// Takes a child over.
    pub fn new(child: Child) -> Self {
        Bound(child)
    }

    /// Waits for the end; one that takes too long is killed.
    pub async fn wait(mut self, limit: Duration) -> io::Result<ExitStatus> {
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

/// Finds a program where `PATH` leads, or in one of these directories.
pub fn on_path(program: &str, also: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(also.iter().map(PathBuf::from));
    let mut found = folders.filter(|folder| folder.is_absolute()).map(|dir| dir.join(program));
    found.find(|path| access(path, Access::EXEC_OK).is_ok() && path.is_file())
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// For people.
    pub text: String,
}

impl Ended {
    /// Waits for a child through its descriptor. Cancel-safe, and may be called again only after it
    /// was given up.
    pub async fn of(child: &AsyncFd<OwnedFd>) -> Ended {
        // Fails only when the runtime's machinery is shut down, and then the wait is over too.
        let _ = child.readable().await;
        let ended = waitid(WaitId::PidFd(child.get_ref().as_fd()), WaitIdOptions::EXITED);
        let status = ended.ok().flatten();
        let code = status.as_ref().and_then(|status| status.exit_status());
        let signal = status.as_ref().and_then(|status| status.terminating_signal());
        let text = match (code, signal) {
            (Some(code), _) => format!("exited with {code}"),
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        };
        Ended { code, text }
    }
}
