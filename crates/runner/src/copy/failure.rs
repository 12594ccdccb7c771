//! Failures of a copy.

use msb_state::{CopyFailure, CopyFailureKind};
use rustix::io::Errno;
use std::io;

pub(super) type Result<T> = std::result::Result<T, CopyFailure>;

/// A failure of the host's file system.
pub(super) fn host(
    operation: &str,
    path: &[u8],
    errno: Option<i32>,
    message: String,
) -> CopyFailure {
    failure(CopyFailureKind::Host, errno, operation, path, message)
}

/// A failed system call.
pub(super) fn system(operation: &str, path: &[u8], errno: Errno) -> CopyFailure {
    let message = io::Error::from(errno).to_string();
    host(operation, path, Some(errno.raw_os_error()), message)
}

/// A malformed or malicious archive.
pub(super) fn archive(path: &[u8], message: impl Into<String>) -> CopyFailure {
    failure(CopyFailureKind::Archive, None, "unpack", path, message.into())
}

/// A limit of the order.
pub(super) fn limit(path: &[u8], message: String) -> CopyFailure {
    failure(CopyFailureKind::Limit, None, "unpack", path, message)
}

fn failure(
    kind: CopyFailureKind,
    errno: Option<i32>,
    operation: &str,
    path: &[u8],
    message: String,
) -> CopyFailure {
    let (operation, path) = (operation.to_owned(), path.to_vec());
    CopyFailure { kind, errno, operation, path, message }
}
