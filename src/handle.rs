//! What callers hold, and what is true of every handle.

use super::boundary::{ErrorOut, Failure, boundary, out, wrong};
use super::error::msb_error;
use super::image::ImageObject;
use super::sandbox::SandboxObject;
use super::status::{MSB_E_HANDLE, MSB_E_LIMIT, MSB_OK, msb_status};
use super::table::{Id, Kind, Open, Table, kind_of};
use microsandbox::pull::Exec;
use microsandbox::{ExecSink, LogStream};
use std::ffi::c_void;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// A sandbox and everything in it.
pub struct msb_sandbox {
    _opaque: (),
}

/// One command in it, from start to exit.
pub struct msb_exec {
    _opaque: (),
}

/// The writing end of a command's input.
pub struct msb_sink {
    _opaque: (),
}

/// The log of a sandbox, while it is read.
pub struct msb_log {
    _opaque: (),
}

/// An image, while it is being got.
pub struct msb_image {
    _opaque: (),
}

static SANDBOXES: Table<SandboxObject> = Table::new(Kind::Sandbox);
static EXECS: Table<Exec> = Table::new(Kind::Exec);
static SINKS: Table<ExecSink> = Table::new(Kind::Sink);
static LOGS: Table<LogStream> = Table::new(Kind::Log);
static IMAGES: Table<ImageObject> = Table::new(Kind::Image);

/// An object that handles name.
pub(super) trait Object: Sized + 'static {
    /// The kind's name, for messages.
    const WHAT: &'static str;
    /// Where its open handles are.
    fn table() -> &'static Table<Self>;
}

impl Object for SandboxObject {
    const WHAT: &'static str = "sandbox";
    fn table() -> &'static Table<Self> {
        &SANDBOXES
    }
}

impl Object for Exec {
    const WHAT: &'static str = "exec";
    fn table() -> &'static Table<Self> {
        &EXECS
    }
}

impl Object for ExecSink {
    const WHAT: &'static str = "sink";
    fn table() -> &'static Table<Self> {
        &SINKS
    }
}

impl Object for LogStream {
    const WHAT: &'static str = "log";
    fn table() -> &'static Table<Self> {
        &LOGS
    }
}

impl Object for ImageObject {
    const WHAT: &'static str = "image";
    fn table() -> &'static Table<Self> {
        &IMAGES
    }
}

fn id_of<H>(handle: *const H) -> Id {
    handle.addr() as Id
}

/// A handle's value as callers hold it. It is never an address, so nothing points through it.
pub(super) fn as_handle<H>(id: Id) -> *mut H {
    std::ptr::without_provenance_mut(usize::try_from(id).unwrap_or(0))
}

/// Opens a handle.
pub(super) fn open<T: Object, H>(object: Arc<T>) -> Result<*mut H, Failure> {
    let id = T::table().insert(object);
    let id = id.ok_or_else(|| wrong(MSB_E_LIMIT, format!("too many open {} handles", T::WHAT)))?;
    Ok(as_handle(id))
}

/// The object of a handle; the value is looked up, never followed.
pub(super) fn get<T: Object, H>(handle: *const H) -> Result<Arc<T>, Failure> {
    get_open(handle).map(|open| open.object)
}

/// As [`get`], with the calls that wait on the handle.
pub(super) fn get_open<T: Object, H>(handle: *const H) -> Result<Open<T>, Failure> {
    T::table().open(id_of(handle)).ok_or_else(|| {
        let what = T::WHAT;
        wrong(MSB_E_HANDLE, format!("{:#x} is not an open {what} handle", id_of(handle)))
    })
}

/// Closes a handle without the object's own way of closing.
pub(super) fn remove<T: Object, H>(handle: *const H) -> Option<Arc<T>> {
    T::table().remove(id_of(handle))
}

fn stale(id: Id) -> Failure {
    wrong(MSB_E_HANDLE, format!("{id:#x} is not an open handle"))
}

/// Descriptor that polls readable when a call on `handle` would not say `MSB_AGAIN`: an exec that
/// has an event or its end, a sink that has room or is broken, a log that has a record or its end,
/// an image that is there or failed, a sandbox that is ready or failed (`msb_sandbox_wait_ready`)
/// or, once `msb_sandbox_wait` was called on it, has ended. Of the last two also news, once
/// `msb_image_progress` or `msb_sandbox_progress` was called.
///
/// Borrowed until the handle is closed: take it out of your loop before that, since the library may
/// need it for a moment longer. Only poll it, never read it; `dup` it if your loop closes what it
/// polls. Call until `MSB_AGAIN` before polling again. It may poll readable for nothing, and is
/// the same one each time.
///
/// `MSB_OK`: `*out_fd` is the descriptor. `MSB_E_HANDLE`; `MSB_E_IO`: none could be made.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_handle_fd(
    handle: *const c_void,
    out_fd: *mut i32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_fd = unsafe { out(out_fd, "a descriptor") };
    boundary(err, || {
        let out_fd = out_fd?;
        let fd = match kind_of(id_of(handle)) {
            Some(Kind::Sandbox) => get::<SandboxObject, _>(handle)?.fd()?.as_raw_fd(),
            Some(Kind::Exec) => get::<Exec, _>(handle)?.fd()?.as_raw_fd(),
            Some(Kind::Sink) => get::<ExecSink, _>(handle)?.fd()?.as_raw_fd(),
            Some(Kind::Log) => get::<LogStream, _>(handle)?.fd()?.as_raw_fd(),
            Some(Kind::Image) => get::<ImageObject, _>(handle)?.fd()?.as_raw_fd(),
            Some(Kind::Loan) | None => return Err(stale(id_of(handle))),
        };
        out_fd.write(fd);
        Ok(MSB_OK)
    })
}

/// Close any handle. Calls that wait on it return `MSB_E_CLOSED` at once. In any order, from any
/// thread; NULL is fine and does nothing.
///
/// Closing a sandbox or an exec ends nothing inside: the command runs on. Closing a sink ends the
/// command's input. Closing a log ends the reading. Closing an image, or a sandbox that is created
/// and whose image is got, ends the getting of it; what was downloaded is kept for the next time.
///
/// `MSB_OK`. `MSB_E_HANDLE`: not open; closing twice is this, never undefined behaviour.
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
            Some(Kind::Sandbox) => SANDBOXES.remove(id).map(|sandbox| sandbox.close()),
            Some(Kind::Exec) => EXECS.remove(id).map(|exec| exec.close()),
            Some(Kind::Sink) => SINKS.remove(id).map(|sink| sink.close_now()),
            Some(Kind::Log) => LOGS.remove(id).map(|log| log.close()),
            Some(Kind::Image) => IMAGES.remove(id).map(|image| image.close()),
            Some(Kind::Loan) | None => None,
        };
        closed.map(|()| MSB_OK).ok_or_else(|| stale(id))
    })
}
