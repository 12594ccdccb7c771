//! Errors of operations on files.

use crate::error::{Error, ErrorKind, Origin};
use crate::fs_failed::FsFailed;
use msb_client::{FsFailure, FsRefusal};
use std::path::Path;

/// Creates the error of a path of the host.
pub(super) fn on_host(operation: &str, path: &Path, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    match error.raw_os_error() {
        Some(errno) => Error::Fs(FsFailed::on_host(operation, path, errno)),
        None => Error::io(format!("cannot {operation} {}", path.display()), error),
    }
}

/// Creates the error of an operation that ended without a reply.
pub(super) fn of_failure(failure: FsFailure, subject: &[u8]) -> Error {
    match failure {
        FsFailure::Failed(error) => Error::Fs(FsFailed::of_agent(error, subject)),
        FsFailure::Lost(lost) => Error::lost(&lost),
        FsFailure::Closed => Error::new(ErrorKind::Closed, Origin::Caller, "the handle was closed"),
    }
}

/// Creates the error of an operation that was not requested.
pub(super) fn of_refusal(refusal: FsRefusal, subject: &[u8]) -> Error {
    match refusal {
        FsRefusal::Unsupported => {
            let context = "the agent of this sandbox knows no operations on files; \
                           start the sandbox again with this version";
            Error::new(ErrorKind::Unsupported, Origin::Agent, context)
        }
        FsRefusal::TooLong(error) => Error::Fs(FsFailed::of_agent(error, subject)),
        FsRefusal::Connection(error) => error.into(),
    }
}
