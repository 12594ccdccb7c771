//! The failure of a call, before the boundary converts it to a status and details.

use super::status::{
    MSB_E_INTERNAL, MSB_E_IO, MSB_ORIGIN_CALLER, MSB_ORIGIN_HOST, msb_status, of_kind, of_origin,
};
use microsandbox::Error;

/// The failure of an export. Several calls may report the same failure.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: msb_status,
    pub(super) os_error: i32,
    pub(super) origin: u32,
    pub(super) message: String,
}

impl Failure {
    /// Creates the failure for a defect of the library.
    pub(super) fn internal(message: impl Into<String>) -> Failure {
        Failure {
            status: MSB_E_INTERNAL,
            os_error: 0,
            origin: MSB_ORIGIN_HOST,
            message: message.into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            status: of_kind(error.kind()),
            os_error: error.os_error().unwrap_or(0),
            origin: of_origin(error.origin()),
            message: error.to_string(),
        }
    }
}

/// Creates a failure that the caller caused.
pub(super) fn wrong(status: msb_status, message: impl Into<String>) -> Failure {
    Failure { status, os_error: 0, origin: MSB_ORIGIN_CALLER, message: message.into() }
}

/// Creates the failure to make the descriptor of a handle.
pub(super) fn descriptor_failed(error: std::io::Error) -> Failure {
    let message = format!("cannot make an event descriptor: {error}");
    let os_error = error.raw_os_error().unwrap_or(0);
    Failure { status: MSB_E_IO, os_error, origin: MSB_ORIGIN_HOST, message }
}
