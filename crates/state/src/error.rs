//! The errors of this crate.

use crate::name::{InvalidName, Name};
use rustix::process::{Resource, getrlimit};
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
    /// A sandbox with this name exists.
    #[error("sandbox {0} already exists; remove it, replace it, or choose another name")]
    AlreadyExists(Name),
    /// The sandbox is not running.
    #[error("sandbox {0} is not running; start it first")]
    NotRunning(Name),
    /// The sandbox is running.
    #[error("sandbox {0} is running; stop it first, or force the removal")]
    Running(Name),
    /// The name is not valid.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// No volume has this name.
    #[error("volume {0} does not exist; create it first")]
    VolumeNotFound(Name),
    /// A volume with this name exists.
    #[error("volume {0} already exists; remove it or choose another name")]
    VolumeAlreadyExists(Name),
    /// Sandboxes use the volume.
    #[error("volume {0} is in use by {users} first", users = sandboxes(.1))]
    VolumeInUse(Name, Vec<Name>),
    /// The runner or a driver failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A companion program was not found.
    #[error("cannot find {program} {looked}; set {variable} to its path")]
    CompanionNotFound {
        /// The program's name.
        program: &'static str,
        /// The variable that names it.
        variable: &'static str,
        /// Where it was looked for, with the preposition.
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
        /// Which part of its path is open, and to whom.
        fault: String,
        /// The command that fixes it.
        remedy: String,
    },
    /// The removal of a sandbox's files takes longer than the limit.
    #[error(
        "cannot remove the files of sandbox {0} within {1:?}; \
         its name is free, and their removal continues"
    )]
    StillRemoving(Name, Duration),
    /// A system call failed.
    #[error("cannot {action} {}: {error}{}", path.display(), remedy_of(error))]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The object of the action.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
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
    /// The sandbox is running, and the call needs a stopped one.
    SandboxRunning,
    /// `volume_not_found`.
    VolumeNotFound,
    /// `volume_already_exists`.
    VolumeAlreadyExists,
    /// `volume_in_use`.
    VolumeInUse,
    /// `invalid_config`.
    InvalidConfig,
    /// `no_driver`.
    NoDriver,
    /// `boot_failed`.
    BootFailed,
    /// A time limit passed.
    TimedOut,
    /// A system call failed.
    Io,
}

impl Error {
    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound(_) => ErrorKind::SandboxNotFound,
            Error::AlreadyExists(_) => ErrorKind::SandboxAlreadyExists,
            Error::NotRunning(_) => ErrorKind::SandboxNotRunning,
            Error::Running(_) => ErrorKind::SandboxRunning,
            Error::VolumeNotFound(_) => ErrorKind::VolumeNotFound,
            Error::VolumeAlreadyExists(_) => ErrorKind::VolumeAlreadyExists,
            Error::VolumeInUse(..) => ErrorKind::VolumeInUse,
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

    /// Returns the errno, if there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Error::Io { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// Creates [`Error::Io`].
    pub fn io(action: &'static str, path: &Path, error: impl Into<io::Error>) -> Self {
        Error::Io { action, path: path.to_path_buf(), error: error.into() }
    }
}

/// Lists sandboxes in an error.
fn sandboxes(names: &[Name]) -> String {
    let list: Vec<_> = names.iter().map(Name::as_str).collect();
    match list.as_slice() {
        [name] => format!("sandbox {name}; remove it"),
        names => format!("sandboxes {}; remove them", names.join(", ")),
    }
}

/// Returns the remedy for a file beyond a limit of this process, to be appended to the error.
fn remedy_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::FileTooLarge if getrlimit(Resource::Fsize).current.is_some() => {
            "; raise the limit on the size of files (ulimit -f)"
        }
        _ => "",
    }
}

/// Why a sandbox could not be started, as the runner reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// What failed, in one line.
    pub message: String,
    /// The remedy, if known.
    pub hint: Option<String>,
}

/// The kind of a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The configuration is not valid or not supported.
    InvalidConfig,
    /// No driver is usable.
    NoDriver,
    /// The sandbox failed to boot.
    BootFailed,
}

impl Failure {
    /// Creates a failure of a kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        // A tool's output may have several lines.
        let message = message.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Failure { kind, message, hint: None }
    }

    /// Creates a failure of the configuration.
    pub fn invalid_config(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::InvalidConfig, message)
    }

    /// Creates a failure for the lack of a usable driver.
    pub fn no_driver(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::NoDriver, message)
    }

    /// Creates a boot failure.
    pub fn boot(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::BootFailed, message)
    }

    /// Creates a boot failure from a failed system call.
    pub fn boot_io(action: &str, path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let text = format!("cannot {action} {}: {error}", path.display());
        Failure::boot(format!("{text}{}", remedy_of(&error)))
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
