//! Why a jail cannot be made.

use std::{fmt, io};

/// Why a jail cannot be made or entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailError(pub(crate) String);

impl JailError {
    pub(crate) fn new(what: &str, error: io::Error) -> JailError {
        JailError(format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for JailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JailError {}
