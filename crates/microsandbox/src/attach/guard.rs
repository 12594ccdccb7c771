//! The process that restores the terminal when this one ends without having done so.
//!
//! A library cannot handle the signals of its host program, nor its exit. So while the terminal is in
//! raw mode, a process of the runner waits for the end of this one.

use crate::library;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, Command};

/// Longest wait for the process to be ready, in seconds. Without it, the terminal is attached all
/// the same.
const START: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

#[derive(Debug)]
pub(crate) struct Guard {
    host: Option<OwnedFd>,
    child: Child,
}

impl Guard {
    /// Starts the process for a terminal whose settings nobody has changed yet.
    pub(crate) fn start(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Guard> {
        let runner = library::companions().map_err(io::Error::other)?.runner;
        let kind = SocketType::SEQPACKET;
        let (host, guard) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(runner)
            .arg("terminal")
            .env_clear()
            .stdin(guard)
            .stdout(output.try_clone_to_owned()?)
            .stderr(input.try_clone_to_owned()?)
            .spawn()?;
        let guard = Guard { host: Some(host), child };
        match guard.is_ready() {
            true => Ok(guard),
            false => Err(io::Error::other("it is not ready in time")),
        }
    }

    fn is_ready(&self) -> bool {
        let Some(host) = &self.host else { return false };
        let mut fds = [PollFd::new(host, PollFlags::IN)];
        let mut greeting = [0];
        matches!(poll(&mut fds, Some(&START)), Ok(1))
            && matches!(rustix::io::read(host, &mut greeting), Ok(1))
    }

    /// Tells what restores the screen from now on.
    pub(crate) fn tell(&self, undo: &[u8]) {
        let packet = [&[0], undo].concat();
        if let Some(host) = &self.host {
            // Fails only when the process has been killed.
            let _ = send(host, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }
}

impl Drop for Guard {
    /// The terminal has been restored.
    fn drop(&mut self) {
        self.host = None;
        let _ = self.child.wait();
    }
}
