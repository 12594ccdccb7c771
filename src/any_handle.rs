//! Calls for handles of every kind: polling and closing.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::fs_op::FsObject;
use super::handle::{Object, get, id_of};
use super::image::ImageObject;
use super::sandbox::SandboxObject;
use super::sized::out;
use super::status::{MSB_E_HANDLE, MSB_OK, msb_status};
use super::table::{Id, Kind, kind_of};
use microsandbox::pull::Exec;
use microsandbox::{ExecSink, LogStream};
use std::ffi::c_void;
use std::os::fd::AsRawFd;

fn stale(id: Id) -> Failure {
    wrong(MSB_E_HANDLE, format!("{id:#x} is not an open handle"))
}

fn poll_fd<T: Object>(handle: *const c_void) -> Result<i32, Failure> {
    let object = get::<T, _>(handle)?;
    Ok(object.poll_fd()?.as_raw_fd())
}

fn close<T: Object>(id: Id) -> Option<()> {
    T::table().remove(id).map(|object| object.on_close())
}

/// Returns a descriptor that polls readable when a call on `handle` would not return `MSB_AGAIN`:
/// an exec has an event or its end, a sink has room or is broken, a log has a record or its end, a
/// pull is complete or failed, an operation on files has content, has room for it, or is complete or
/// failed, a sandbox is ready or failed (`msb_sandbox_wait_ready`) or, once
/// `msb_sandbox_wait` was called on it, has ended. An image and a sandbox also poll readable for
/// new progress, once `msb_image_progress` or `msb_sandbox_progress` was called.
/// Borrowed until the handle is closed: remove it from your event loop before that. Only poll it,
/// never read it; `dup` it if your loop closes what it polls. Call until `MSB_AGAIN` before polling
/// again. Spurious wake-ups are possible. Every call on the same handle returns the same
/// descriptor.
///
/// `MSB_OK`: `*out_fd` is the descriptor. `MSB_E_HANDLE`. `MSB_E_IO`: the descriptor cannot be
/// made.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_handle_fd(
    handle: *const c_void,
    out_fd: *mut i32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_fd = unsafe { out(out_fd, "a descriptor") };
    boundary(err, || {
        let out_fd = out_fd?;
        let fd = match kind_of(id_of(handle)) {
            Some(Kind::Sandbox) => poll_fd::<SandboxObject>(handle)?,
            Some(Kind::Exec) => poll_fd::<Exec>(handle)?,
            Some(Kind::Sink) => poll_fd::<ExecSink>(handle)?,
            Some(Kind::Log) => poll_fd::<LogStream>(handle)?,
            Some(Kind::Image) => poll_fd::<ImageObject>(handle)?,
            Some(Kind::Fs) => poll_fd::<FsObject>(handle)?,
            Some(Kind::Borrowed) | None => return Err(stale(id_of(handle))),
        };
        out_fd.write(fd);
        Ok(MSB_OK)
    })
}

/// Closes any handle, in any order, from any thread. Calls that wait on it return `MSB_E_CLOSED` at
/// once. NULL is a no-op.
///
/// Closing a sandbox or an exec stops nothing in the sandbox: commands continue to run. Closing a
/// sink ends the command's input. Closing a log stops its reader. Closing an operation on files gives
/// it up. Closing an image, or a sandbox
/// whose image is still being pulled, cancels the pull; downloaded layers are kept for the next
/// one.
///
/// `MSB_OK`. `MSB_E_HANDLE`: not an open handle, also if it is closed twice.
#[unsafe(no_mangle)]
pub extern "C" fn msb_handle_close(handle: *mut c_void) -> msb_status {
    if handle.is_null() {
        return MSB_OK;
    }
    let nowhere = std::ptr::null_mut();
    // SAFETY: NULL is always allowed.
    let err = unsafe { ErrorOut::new(nowhere) };
    boundary(err, || {
        let id = id_of(handle);
        let closed = match kind_of(id) {
            Some(Kind::Sandbox) => close::<SandboxObject>(id),
            Some(Kind::Exec) => close::<Exec>(id),
            Some(Kind::Sink) => close::<ExecSink>(id),
            Some(Kind::Log) => close::<LogStream>(id),
            Some(Kind::Image) => close::<ImageObject>(id),
            Some(Kind::Fs) => close::<FsObject>(id),
            Some(Kind::Borrowed) | None => None,
        };
        closed.map(|()| MSB_OK).ok_or_else(|| stale(id))
    })
}
