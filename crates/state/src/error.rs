//! What can go wrong with a sandbox as a whole.

use crate::name::{InvalidName, Name};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call about a sandbox failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No sandbox has this name.
    #[error("sandbox {0} does not exist")]
    NotFound(Name),
    /// A sandbox has this name already.
    #[error("sandbox {0} already exists; remove it, replace it, or choose another name")]
    AlreadyExists(Name),
    /// The sandbox is not running.
    #[error("sandbox {0} is not running; start it first")]
    NotRunning(Name),
    /// The sandbox is running.
    #[error("sandbox {0} is running; stop it first, or force the removal")]
    Running(Name),
    /// The name breaks the rules of names.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// The runner or a driver refused or failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A companion program is not there.
    #[error("cannot find {program} {looked}; set {variable} to its path")]
    CompanionNotFound {
        /// The program's name.
        program: &'static str,
        /// The variable that would name it.
        variable: &'static str,
        /// The places that were tried, for people, with their preposition.
        looked: String,
    },
    /// The runner did not answer in time.
    #[error("the runner of sandbox {0} did not answer within {1:?}")]
    TimedOut(Name, Duration),
    /// Another user could replace a program or the state.
    #[error("cannot use {}: {fault}; {remedy}", path.display())]
    Untrusted {
        /// The program or directory.
        path: PathBuf,
        /// Which part of its path is open to whom.
        fault: String,
        /// A command that would help.
        remedy: String,
    },
    /// The removal of a sandbox's files takes long.
    #[error(
        "cannot remove the files of sandbox {0} within {1:?}; \
         its name is free, and their removal goes on"
    )]
    StillRemoving(Name, Duration),
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The kind of an [`Error`], for callers that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `sandbox_not_found`.
    SandboxNotFound,
    /// `sandbox_already_exists`.
    SandboxAlreadyExists,
    /// `sandbox_not_running`.
    SandboxNotRunning,
    /// The sandbox is running and the call needs one that is not.
    SandboxRunning,
    /// `invalid_config`.
    InvalidConfig,
    /// `no_driver`.
    NoDriver,
    /// `boot_failed`.
    BootFailed,
    /// A time limit passed.
    TimedOut,
    /// The system refused something.
    Io,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound(_) => ErrorKind::SandboxNotFound,
            Error::AlreadyExists(_) => ErrorKind::SandboxAlreadyExists,
            Error::NotRunning(_) => ErrorKind::SandboxNotRunning,
            Error::Running(_) => ErrorKind::SandboxRunning,
            Error::InvalidName(_) => ErrorKind::InvalidConfig,
            Error::CompanionNotFound { .. } | Error::Untrusted { .. } => ErrorKind::BootFailed,
            Error::TimedOut(..) | Error::StillRemoving(..) => ErrorKind::TimedOut,
            Error::Io { .. } => ErrorKind::Io,
            Error::Failed(failure) => match failure.kind {
                FailureKind::InvalidConfig => ErrorKind::InvalidConfig,
                FailureKind::NoDriver => ErrorKind::NoDriver,
                FailureKind::BootFailed => ErrorKind::BootFailed,
            },
        }
    }

    /// The system's error number, where there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Makes an error of the system from what was being done and on what.
    pub fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Error::Io { action, path: path.to_path_buf(), source: source.into() }
    }
}

/// Why a sandbox could not be started, in a form that crosses the pipe from the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What failed and on what, in one line.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

/// The kind of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// What was asked for cannot be had.
    InvalidConfig,
    /// No driver is usable.
    NoDriver,
    /// The sandbox did not come up.
    BootFailed,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        // One line, whatever a tool printed.
        let message = message.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Failure { kind, message, hint: None }
    }

    /// What was asked for cannot be had.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::InvalidConfig, message)
    }

    /// No driver is usable.
    pub fn no_driver(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::NoDriver, message)
    }

    /// The sandbox did not come up.
    pub fn boot(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::BootFailed, message)
    }

    /// The system refused something during the start.
    pub fn boot_io(action: &str, path: &Path, error: impl Into<io::Error>) -> Self {
        Failure::boot(format!("cannot {action} {}: {}", path.display(), error.into()))
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
