//! Child processes: wait, kill and search, without a signal handler.

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns a pidfd, which polls readable when the process has exited.
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

/// Kills a process. Succeeds if it has exited.
pub fn kill(process: &AsyncFd<OwnedFd>) -> io::Result<()> {
    match pidfd_send_signal(process.get_ref(), Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A child that is killed on drop.
#[derive(Debug)]
pub struct KillOnDrop(Child);

impl KillOnDrop {
    /// Takes ownership of a child.
    pub fn new(child: Child) -> Self {
        KillOnDrop(child)
    }

    /// Waits for the exit; kills the child on timeout.
    pub async fn wait(mut self, limit: Duration) -> io::Result<ExitStatus> {
        let ended = watch(self.0.id())?;
        let result = match tokio::time::timeout(limit, ended.readable()).await {
            Ok(ready) => ready.map(drop),
            Err(_) => {
                let message =
                    format!("it did not exit within {} s and was killed", limit.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, message))
            }
        };
        result.and_then(|()| self.0.wait())
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail if it has been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Finds a program in `PATH` or in one of the directories `also`.
pub fn on_path(program: &str, also: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(also.iter().map(PathBuf::from));
    let mut found = folders.filter(|folder| folder.is_absolute()).map(|dir| dir.join(program));
    found.find(|path| access(path, Access::EXEC_OK).is_ok() && path.is_file())
}

/// How a child exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExit {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// For users.
    pub text: String,
}

impl ChildExit {
    /// Waits for a child's exit and reaps it. Cancel-safe; do not call it again after it returned.
    pub async fn wait(child: &AsyncFd<OwnedFd>) -> ChildExit {
        // Fails only when the runtime shuts down.
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
        ChildExit { code, text }
    }
}
