//! Files in a sandbox.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::fs_info::{self, msb_fs_failure, msb_fs_result};
use super::fs_op::FsObject;
use super::fs_request::{msb_fs_request, request_in};
use super::handle::{get, msb_fs, msb_sandbox};
use super::input::lent;
use super::sandbox::SandboxObject;
use super::sized::{Out, out};
use super::status::{MSB_AGAIN, MSB_E_INVALID, MSB_EOF, MSB_OK, msb_status};
use super::wait::Timeout;

/// Starts an operation on the files of a sandbox, which needs no program in it. Returns at once;
/// `msb_fs_wait` returns the result. Closing the handle gives the operation up: a file that is being
/// written keeps its old content, or does not come to exist. The sandbox's handle may be closed
/// before this one.
///
/// The content of a written file becomes visible at once when the operation succeeds, unless
/// `MSB_FS_APPEND` or `MSB_FS_IN_PLACE` is set; until then the old content stays.
///
/// `MSB_OK`: `*out_fs` is owned. `MSB_E_INVALID`: an unknown operation; a flag, attribute or NULL
/// that the operation does not allow. `MSB_E_NOT_RUNNING`: the sandbox's creation is pending, see
/// `msb_sandbox_wait_ready`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_start(
    sandbox: *mut msb_sandbox,
    request: *const msb_fs_request,
    out_fs: *mut *mut msb_fs,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_fs = unsafe { out(out_fs, "an operation on files") };
    // SAFETY: as above; what the fields point to is lent for this call.
    let request = unsafe { request_in(request) };
    boundary(err, || {
        let sandbox = get::<SandboxObject, _>(sandbox)?.sandbox()?;
        let (out_fs, request) = (out_fs?, request?);
        out_fs.write(FsObject::begin(sandbox, request)?);
        Ok(MSB_OK)
    })
}

/// Waits until an operation is complete, up to `timeout_ms`. A read is complete when the sandbox has
/// sent all of the file; a write, when the sandbox has closed the file after `msb_fs_finish`.
///
/// `MSB_OK`: `*out_result` is filled; release it with `msb_fs_result_release`. `MSB_AGAIN`: not yet.
/// Any failure is final; expect `MSB_E_NO_PATH`, `MSB_E_PERMISSION` and `MSB_E_FILESYSTEM`, of which
/// `msb_fs_failed` has details, and `MSB_E_UNSUPPORTED`: the sandbox was started by an older
/// version. Later calls return the same.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_wait(
    fs: *mut msb_fs,
    timeout_ms: i64,
    out_result: *mut msb_fs_result,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_result = unsafe { Out::new(out_result) };
    boundary(err, || {
        let (object, out_result) = (get::<FsObject, _>(fs)?, out_result?);
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match object.state.sleep(deadline, |state| state.op.result()) {
            Some(answer) => Ok(out_result.write(&fs_info::result(&*answer?)?)),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Receives content of a file that is read, into the caller's `buffer` of `len` bytes, at least 1.
/// Waits up to `timeout_ms`. The sandbox waits while about a mebibyte is not received.
///
/// `MSB_OK`: `*out_received` bytes, at least 1, were written to `buffer`. `MSB_AGAIN`: none yet.
/// `MSB_EOF`: the end; everything was received. Failures are those of `msb_fs_wait`, after the
/// content before them.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_recv(
    fs: *mut msb_fs,
    timeout_ms: i64,
    buffer: *mut u8,
    len: usize,
    out_received: *mut usize,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_received = unsafe { out(out_received, "the number of bytes") };
    // SAFETY: as above; the caller's for this call.
    let buffer = unsafe { buffer_in(buffer, len) };
    boundary(err, || {
        let (object, out_received) = (get::<FsObject, _>(fs)?, out_received?);
        let (buffer, deadline) = (buffer?, Timeout::from_ms(timeout_ms)?.deadline());
        match object.state.sleep(deadline, |state| state.receive(buffer)) {
            Some(received) => {
                let received = received?;
                if received == 0 {
                    return Ok(MSB_EOF);
                }
                object.note_moved();
                out_received.write(received);
                Ok(MSB_OK)
            }
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Returns the buffer that a caller provides for a call.
///
/// # Safety
/// `buffer` is NULL, or nothing else accesses its `len` bytes while the result is used.
unsafe fn buffer_in<'a>(buffer: *mut u8, len: usize) -> Result<&'a mut [u8], Failure> {
    if buffer.is_null() || len == 0 || isize::try_from(len).is_err() {
        return Err(wrong(MSB_E_INVALID, format!("a buffer of {len} bytes at {buffer:p}")));
    }
    // SAFETY: not NULL and no longer than an object can be, so `len` bytes by the contract.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer, len) })
}

/// Sends content of a file that is written. Waits for room up to `timeout_ms`. `data` is copied.
/// Sending no bytes is a no-op.
///
/// `MSB_OK`: `*out_sent` bytes were accepted, at least 1 unless `len` is 0, perhaps fewer than
/// `len`: call again with the rest. `MSB_AGAIN`: no room. `MSB_E_INVALID`: also after
/// `msb_fs_finish`. Other failures are those of `msb_fs_wait`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_send(
    fs: *mut msb_fs,
    data: *const u8,
    len: usize,
    timeout_ms: i64,
    out_sent: *mut usize,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_sent = unsafe { out(out_sent, "the number of bytes") };
    // SAFETY: as above; lent for this call.
    let data = unsafe { lent(data, len, "content") };
    boundary(err, || {
        let (object, data, out_sent) = (get::<FsObject, _>(fs)?, data?, out_sent?);
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        if data.is_empty() {
            out_sent.write(0);
            return Ok(MSB_OK);
        }
        match object.state.sleep(deadline, |state| state.send(data)) {
            Some(sent) => {
                out_sent.write(sent?);
                object.note_moved();
                Ok(MSB_OK)
            }
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Ends the content of a file that is written. Returns at once; `msb_fs_wait` waits until the file
/// is complete. Calling it twice is fine.
///
/// `MSB_OK`. `MSB_E_INVALID`: the operation writes nothing.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_finish(fs: *mut msb_fs, err: *mut msb_error) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let object = get::<FsObject, _>(fs)?;
        object.state.with(|state| state.finish())?;
        object.note_moved();
        Ok(MSB_OK)
    })
}

/// Returns details of the failure of an operation that has failed on a file.
///
/// `MSB_OK`: `*out_failure` is filled; release it with `msb_fs_failure_release`. `MSB_EOF`: no such
/// failure is known; it runs, has succeeded, or has failed for another reason.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_fs_failed(
    fs: *mut msb_fs,
    out_failure: *mut msb_fs_failure,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_failure = unsafe { Out::new(out_failure) };
    boundary(err, || {
        let (object, out_failure) = (get::<FsObject, _>(fs)?, out_failure?);
        match object.state.with(|state| state.failed.clone()) {
            Some(failed) => Ok(out_failure.write(&fs_info::details(&failed)?)),
            None => Ok(MSB_EOF),
        }
    })
}
