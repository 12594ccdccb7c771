//! Errors of operations on images.

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on an image failed. Serialized by the runner for the library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default())]
pub struct Error {
    /// Kind of failure.
    pub kind: ErrorKind,
    /// What failed and why, in one line.
    pub message: String,
    /// Remedy, if known.
    #[serde(default)]
    pub hint: Option<String>,
    /// `errno`, if any.
    #[serde(default)]
    pub os_error: Option<i32>,
}

/// Returns text of others for an error: escaped, and at most 100 characters of it.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).flat_map(char::escape_debug).collect();
    if text.chars().nth(100).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name or an option is invalid.
    Invalid,
    /// The image is neither in the store nor in the registry.
    NotFound,
    /// The registry denied access.
    Unauthorized,
    /// The registry is unreachable.
    Unreachable,
    /// The image is malformed, exceeds a limit, or is unsupported.
    BadImage,
    /// A sandbox uses the image.
    InUse,
    /// The disk is full.
    NoSpace,
    /// A system call failed.
    Io,
    /// The worker process died.
    Died,
}

impl Error {
    /// Creates an error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        // One line, even if the text is a registry's or another program's.
        let message = message.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Error { kind, message, hint: None, os_error: None }
    }

    /// Creates an error of kind [`ErrorKind::BadImage`].
    pub fn bad(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::BadImage, message)
    }

    /// Creates an error of kind [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Invalid, message)
    }

    /// Creates an error of kind [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, message)
    }

    /// Creates an error of a system call: [`ErrorKind::NoSpace`] if the disk is full, else
    /// [`ErrorKind::Io`].
    pub fn io(action: &str, path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let kind = if full { ErrorKind::NoSpace } else { ErrorKind::Io };
        let limited = error.kind() == io::ErrorKind::FileTooLarge
            && getrlimit(Resource::Fsize).current.is_some();
        let hint = limited.then(|| "raise the limit on the size of files (ulimit -f)".to_owned());
        let os_error = error.raw_os_error();
        let text = format!("cannot {action} {}: {error}", path.display());
        Error { os_error, hint, ..Error::new(kind, text) }
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
