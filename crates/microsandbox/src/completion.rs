//! The pending result of a call of this library.

use crate::error::Error;

/// The receiver of a result, by a blocking wait or as a future. It yields the result once.
pub type Pending<T> = msb_client::Pending<T, Error>;

/// The producer of a result.
pub type Promise<T> = msb_client::Promise<T, Error>;

/// Creates both ends of an operation.
pub fn completion<T>() -> (Promise<T>, Pending<T>) {
    msb_client::completion()
}
