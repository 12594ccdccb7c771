//! Errors of archives.

use msb_image::{Error, ErrorKind};
use std::io;

/// Converts an error of a reader: a failed system call, else a malformed archive.
pub(crate) fn archive_error(error: io::Error) -> Error {
    unreadable(error.into())
}

/// Converts an error of [`msb_archive`].
pub(crate) fn unreadable(error: msb_archive::Error) -> Error {
    match error.os_error {
        None => Error::bad(error.message),
        os_error => Error { os_error, ..Error::new(ErrorKind::Io, error.message) },
    }
}
