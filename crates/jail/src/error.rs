//! The error of this crate.

use std::{fmt, io};

/// Why a jail cannot be created or entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailError {
    text: String,
    unmapped: bool,
}

impl JailError {
    pub(crate) fn new(what: &str, error: io::Error) -> JailError {
        JailError::of(format!("cannot {what}: {error}"))
    }

    pub(crate) fn of(text: String) -> JailError {
        JailError { text, unmapped: false }
    }

    pub(crate) fn unmapped(text: String) -> JailError {
        JailError { text, unmapped: true }
    }

    /// Returns whether the file system cannot map the owners of a bind, and the description has no
    /// ids for that case.
    pub fn is_unmapped(&self) -> bool {
        self.unmapped
    }
}

impl fmt::Display for JailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for JailError {}
