//! The boundary of every export: converts results and panics to statuses.

use super::error::ErrorOut;
use super::failure::Failure;
use super::panic_hook::Inside;
use super::status::{MSB_E_INTERNAL, msb_status};
use microsandbox::pull::check_fork;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an export: a panic becomes `MSB_E_INTERNAL`, a failure its status with the
/// details in `err`. In a forked child the body does not run.
pub(super) fn boundary(
    err: ErrorOut,
    body: impl FnOnce() -> Result<msb_status, Failure>,
) -> msb_status {
    let inside = Inside::enter();
    let guarded = || check_fork().map_err(Failure::from).and_then(|()| body());
    let result = catch_unwind(AssertUnwindSafe(guarded));
    drop(inside);
    match result {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => err.write(&failure),
        Err(panic) => err.write(&Failure::internal(text_of(panic.as_ref()))),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic inside the library: {}", text.unwrap_or("without a message"))
}

const _: () = assert!(MSB_E_INTERNAL < 0);
