//! Errors of a reader.

use std::io;

/// Why an archive cannot be read: one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What cannot be read, and why.
    pub message: String,
    /// The `errno` of a failed system call; `None` if the archive itself is malformed.
    pub os_error: Option<i32>,
}

/// The result of a reader.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Creates the error of a malformed archive.
    pub(crate) fn bad(message: impl Into<String>) -> Error {
        Error { message: message.into(), os_error: None }
    }
}

/// A failed system call, else a malformed archive.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        let message = format!("cannot read an archive: {error}");
        Error { message, os_error: error.raw_os_error() }
    }
}
