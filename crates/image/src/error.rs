//! What can go wrong with an image.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call about an image failed, in a form that crosses the pipe from the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Error {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What failed and on what, in one line.
    pub message: String,
    /// What to do about it, where that is known.
    #[serde(default)]
    pub hint: Option<String>,
    /// The system's error number, where there is one.
    #[serde(default)]
    pub os_error: Option<i32>,
}

/// The kind of an [`Error`], for callers that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The name or an option makes no sense.
    Invalid,
    /// No such image, here or in the registry.
    NotFound,
    /// The registry wants other credentials, or none would do.
    Unauthorized,
    /// The registry cannot be reached.
    Unreachable,
    /// The image is broken, hostile, or of a kind that cannot be used.
    BadImage,
    /// A sandbox uses the image.
    InUse,
    /// The disk is too full.
    NoSpace,
    /// The system refused something.
    Io,
    /// The process that did the work died.
    Died,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        // One line, whatever a registry or a tool said.
        let message = message.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Error { kind, message, hint: None, os_error: None }
    }

    /// The image is broken, hostile, or of a kind that cannot be used.
    pub fn bad(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::BadImage, message)
    }

    /// The name or an option makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// No such image.
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, message)
    }

    /// The system refused something; a disk that is full is a kind of its own.
    pub fn io(action: &str, path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let kind = if full { ErrorKind::NoSpace } else { ErrorKind::Io };
        let os_error = error.raw_os_error();
        let made = Error::new(kind, format!("cannot {action} {}: {error}", path.display()));
        Error { os_error, ..made }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
