//! Errors of operations on files.

use crate::error::{Error, ErrorKind, Origin};
use crate::fs_failed::FsFailed;
use msb_client::{FsFailure, FsRefusal};

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
