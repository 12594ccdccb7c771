//! The control protocol with a sandbox's runner: one JSON request a line, one JSON reply a line.

use crate::error::{Error, Result};
use crate::home::SandboxDir;
use crate::lock::SandboxLock;
use crate::name::Name;
use crate::records::{Outcome, Reason};
use crate::report::Isolation;
use crate::socket::connect_in;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest line, in bytes.
pub(crate) const MAX_LINE: u64 = 64 * 1024;

/// Interval between checks of the lock of a runner without a pidfd.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Time limit for the exit of a runner that has closed the connection.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Shut down, and kill after the grace period. The reply comes at the exit.
    Stop {
        /// The grace period of the processes in the sandbox.
        timeout_ms: u64,
    },
    /// Kill at once. The reply comes at the exit.
    Kill,
    /// Describe the running sandbox.
    Info,
    /// Reply at the exit.
    Wait,
}

/// A reply of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// The sandbox has ended, everything is cleaned up, and its lock is free.
    Ended {
        /// How it ended.
        outcome: Outcome,
    },
    /// The running sandbox.
    Info {
        /// The runner's pid.
        pid: u32,
        /// The driver in use.
        driver: String,
        /// Its isolation.
        isolation: Isolation,
        /// The start time, in milliseconds since 1970.
        since_ms: u64,
    },
    /// The request was refused.
    Refused {
        /// Why.
        message: String,
    },
}

/// A connection to the runner.
#[derive(Debug)]
pub struct Control {
    stream: UnixStream,
    runner: Option<OwnedFd>,
    dir: SandboxDir,
}

impl Control {
    /// Connects to the runner of a sandbox. Without a runner the sandbox is not running.
    pub fn connect(dir: &SandboxDir) -> Result<Self> {
        let stream = match connect_in(&dir.run(), "runner.sock") {
            Ok(stream) => stream,
            Err(Error::Io { error: source, .. }) if is_absent(&source) => {
                return Err(Error::NotRunning(dir.name().clone()));
            }
            Err(error) => return Err(error),
        };
        // Once this process has exited its lock is free.
        let runner = socket_peercred(&stream)
            .ok()
            .and_then(|peer| pidfd_open(peer.pid, PidfdFlags::empty()).ok());
        Ok(Control { stream, runner, dir: dir.clone() })
    }

    /// Sends a request and waits for the reply. If the runner dies, the sandbox has ended.
    pub fn request(self, request: &Request, timeout: Option<Duration>) -> Result<Reply> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        match self.exchange(request, deadline) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Ok(Reply::Ended { outcome: self.outcome_after_hangup(deadline)? }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.timed_out(timeout.unwrap_or_default()))
            }
            Err(error) => Err(Error::io("talk to the runner of", self.dir.path(), error)),
        }
    }

    /// Returns the connection, for callers that wait by themselves: write a [`Request`] as a line,
    /// read a [`Reply`] as a line.
    pub fn stream(&self) -> Result<UnixStream> {
        let cloned = self.stream.try_clone();
        cloned.map_err(|error| Error::io("talk to the runner of", self.dir.path(), error))
    }

    /// Returns the outcome of a sandbox whose runner closed the connection without a reply. Waits
    /// for the runner's exit, since until then the sandbox counts as running.
    pub fn outcome_after_hangup(&self, deadline: Option<Instant>) -> Result<Outcome> {
        self.wait_for_exit(deadline)?;
        Ok(self.dir.read_outcome()?.unwrap_or_else(|| {
            Outcome::now(Reason::Crashed, Some("the runner was killed".to_owned()))
        }))
    }

    fn exchange(&self, request: &Request, deadline: Option<Instant>) -> io::Result<Option<Reply>> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        if let Err(error) = (&self.stream).write_all(&line) {
            return if is_end(&error) { Ok(None) } else { Err(error) };
        }
        let mut reader = BufReader::new(io::Read::take(&self.stream, MAX_LINE));
        let mut line = Vec::new();
        loop {
            wait_readable(self.stream.as_fd(), deadline)?;
            // One read per wait: the deadline applies within a line as well.
            let (taken, complete) = match reader.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(buffer) => match buffer.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        line.extend(buffer.iter().take(end));
                        (end + 1, true)
                    }
                    None => {
                        line.extend_from_slice(buffer);
                        (buffer.len(), false)
                    }
                },
                Err(error) if is_end(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            reader.consume(taken);
            if complete {
                return Ok(Some(serde_json::from_slice(&line)?));
            }
        }
    }

    fn wait_for_exit(&self, deadline: Option<Instant>) -> Result<()> {
        let lock = match SandboxLock::open(&self.dir.lock()) {
            Ok(lock) => lock,
            // The runner has removed the directory.
            Err(Error::Io { error: source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let deadline = deadline.unwrap_or_else(|| Instant::now() + GONE_TIMEOUT);
        while lock.is_running()? {
            let Some(runner) = &self.runner else {
                // Without a pidfd (an old kernel, or valgrind) the lock is polled.
                if Instant::now() >= deadline {
                    return Err(self.timed_out(GONE_TIMEOUT));
                }
                std::thread::sleep(LOCK_PAUSE);
                continue;
            };
            if wait_readable(runner.as_fd(), Some(deadline)).is_err() {
                return Err(self.timed_out(GONE_TIMEOUT));
            }
            if lock.is_running()? {
                // The runner is dead and the sandbox runs: it was started again.
                break;
            }
        }
        Ok(())
    }

    fn timed_out(&self, after: Duration) -> Error {
        let name: Name = self.dir.name().clone();
        Error::TimedOut(name, after)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | NotADirectory)
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Waits until a descriptor is readable, or fails with [`io::ErrorKind::TimedOut`].
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_format_is_stable() {
        let stop = serde_json::to_string(&Request::Stop { timeout_ms: 5 }).unwrap();
        assert_eq!(stop, r#"{"op":"stop","timeout_ms":5}"#);
        assert_eq!(serde_json::to_string(&Request::Kill).unwrap(), r#"{"op":"kill"}"#);
        let outcome = Outcome { reason: Reason::Stopped, detail: None, at_ms: 7 };
        let ended = serde_json::to_string(&Reply::Ended { outcome }).unwrap();
        assert_eq!(ended, r#"{"reply":"ended","outcome":{"reason":"stopped","at_ms":7}}"#);
    }
}
