//! Events of a running command.

use crate::output::{ExitStatus, errno_name};
use bytes::Bytes;
pub use msb_client::ExecLost;
use msb_wire::limits::ERROR_TEXT;
use msb_wire::{Failure, FailureKind, Stage, escape, escape_bytes, one_line};
use std::fmt;

/// An event of a command.
///
/// `Started` is first and comes once, unless the command failed to start. It is followed by any
/// number of outputs and at most one input error, then by exactly one of `Exited`, `Failed` and
/// `Lost`. After `Exited` there may be output of other processes that hold the command's output
/// open; `Failed` and `Lost` are the last event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ExecEvent {
    /// The command is running.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// Bytes from standard output; with a terminal, all output.
    Stdout(Bytes),
    /// Bytes from standard error.
    Stderr(Bytes),
    /// The command ended. [`ExecHandle::wait`](crate::ExecHandle::wait) returns the full status at
    /// any time afterwards.
    Exited {
        /// Its exit code; -1 when a signal killed it.
        code: i32,
    },
    /// The command failed to start.
    Failed(ExecFailed),
    /// The command no longer reads its input. It may continue to run.
    StdinError(ExecStdinError),
    /// The connection was lost before the command ended; its exit status is unknown.
    Lost(ExecLost),
}

/// Why a command failed to start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecFailed {
    /// The category of the failure.
    pub kind: FailureKind,
    /// The step that failed.
    pub stage: Stage,
    /// The guest's `errno`; 0 when no system call failed.
    pub errno: i32,
    /// The name of `errno`, such as `ENOENT`; empty when it is 0.
    pub errno_name: String,
    /// The program, directory or name that the step concerned.
    pub path: Vec<u8>,
    /// One line for users.
    pub message: String,
}

impl From<Failure> for ExecFailed {
    fn from(failure: Failure) -> Self {
        ExecFailed {
            kind: failure.kind,
            stage: failure.stage,
            errno: failure.errno,
            errno_name: errno_name(failure.errno),
            path: failure.path,
            message: escape(&failure.message).into_owned(),
        }
    }
}

impl fmt::Display for ExecFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = escape_bytes(&self.path);
        let path = one_line(&path, ERROR_TEXT);
        let why = if self.message.is_empty() { self.kind.name() } else { &self.message };
        let why = one_line(why, ERROR_TEXT);
        // The agent's message may contain it already.
        if path.is_empty() || why.contains(path.as_ref()) {
            return f.write_str(&why);
        }
        match self.kind {
            FailureKind::BadCwd => write!(f, "cannot enter the working directory {path}: {why}"),
            FailureKind::UserSetupFailed => write!(f, "cannot become the user {path}: {why}"),
            _ => write!(f, "cannot run {path}: {why}"),
        }
    }
}

impl std::error::Error for ExecFailed {}

/// A failed write to the command's standard input inside the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecStdinError {
    /// The guest's `errno`.
    pub errno: i32,
    /// The name of `errno`, such as `EPIPE`.
    pub errno_name: String,
}

impl From<msb_wire::StdinError> for ExecStdinError {
    fn from(error: msb_wire::StdinError) -> Self {
        ExecStdinError { errno: error.errno, errno_name: errno_name(error.errno) }
    }
}

impl fmt::Display for ExecStdinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command no longer reads its input ({})", self.errno_name)
    }
}

impl std::error::Error for ExecStdinError {}

/// How a stream of events ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The command ended.
    Exited(ExitStatus),
    /// It failed to start.
    Failed(ExecFailed),
    /// Its exit status is unknown.
    Lost(ExecLost),
}
