//! Errors that more than one call reports.

use super::boundary::Failure;
use crate::error::{Error, ErrorKind, Origin};

/// An error that is told as often as it is asked for.
#[derive(Debug)]
pub(super) struct Told {
    kind: ErrorKind,
    origin: Origin,
    os_error: Option<i32>,
    message: String,
}

impl From<Error> for Told {
    fn from(error: Error) -> Told {
        let (kind, origin, os_error) = (error.kind(), error.origin(), error.os_error());
        Told { kind, origin, os_error, message: error.to_string() }
    }
}

impl From<&Told> for Failure {
    fn from(told: &Told) -> Failure {
        let error = Error::new(told.kind, told.origin, told.message.clone());
        error.with_os_error(told.os_error).into()
    }
}
