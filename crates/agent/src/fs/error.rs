//! Errors of operations on files.

use msb_wire::limits::TEXT;
use msb_wire::{FsError, FsErrorKind};
use rustix::io::Errno;
use std::io;

/// The result of an operation, or of a step of it.
pub(super) type Result<T> = std::result::Result<T, FsError>;

/// Returns a function that makes an error of an `errno`, for `map_err`.
pub(super) fn failed(operation: &'static str, path: &[u8]) -> impl Fn(Errno) -> FsError {
    move |errno| {
        let kind = FsErrorKind::of(errno.raw_os_error());
        error(kind, errno, operation, path, &reason(errno))
    }
}

/// Returns a function that makes an error of an [`io::Error`], for `map_err`.
pub(super) fn io_failed(operation: &'static str, path: &[u8]) -> impl Fn(io::Error) -> FsError {
    let failed = failed(operation, path);
    move |error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Returns the error of a request that is wrong in itself.
pub(super) fn invalid(operation: &'static str, path: &[u8], why: &str) -> FsError {
    error(FsErrorKind::Invalid, Errno::INVAL, operation, path, why)
}

/// Returns the error of an agent at one of its limits.
pub(super) fn busy(operation: &'static str, path: &[u8], why: &str) -> FsError {
    error(FsErrorKind::Busy, Errno::AGAIN, operation, path, why)
}

/// Returns an error of any kind.
pub(super) fn error(
    kind: FsErrorKind,
    errno: Errno,
    operation: &'static str,
    path: &[u8],
    why: &str,
) -> FsError {
    FsError {
        kind,
        errno: errno.raw_os_error(),
        operation: operation.to_owned(),
        path: path.get(..TEXT).unwrap_or(path).to_vec(),
        message: why.to_owned(),
    }
}

/// Returns the system's text for an `errno`, as the middle of a sentence.
fn reason(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    // "I/O error" and the like stay as they are.
    match characters.clone().next() {
        Some(second) if second.is_ascii_lowercase() => {
            first.into_iter().chain(characters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_error_has_errno_path_and_a_plain_reason() {
        let error = failed("open", b"/x")(Errno::NOENT);
        assert_eq!((error.kind, error.errno), (FsErrorKind::PathNotFound, 2));
        assert_eq!((error.operation.as_str(), error.path.as_slice()), ("open", &b"/x"[..]));
        assert_eq!(error.message, "no such file or directory");
        assert_eq!(reason(Errno::IO), "input/output error");
        let long = failed("open", &[b'x'; 5000])(Errno::NAMETOOLONG);
        assert_eq!(long.path.len(), TEXT);
    }
}
