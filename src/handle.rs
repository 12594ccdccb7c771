//! Handles as callers hold them, and the objects behind them.

use super::failure::{Failure, wrong};
use super::status::{MSB_E_HANDLE, MSB_E_LIMIT};
use super::table::{Id, Open, Table};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A sandbox and everything in it.
pub struct msb_sandbox {
    _opaque: (),
}

/// A command in a sandbox, from start to exit.
pub struct msb_exec {
    _opaque: (),
}

/// The write end of a command's standard input.
pub struct msb_sink {
    _opaque: (),
}

/// A reader of a sandbox's log.
pub struct msb_log {
    _opaque: (),
}

/// An in-progress image pull or import.
pub struct msb_image {
    _opaque: (),
}

/// An operation on the files of a sandbox.
pub struct msb_fs {
    _opaque: (),
}

/// An object behind a handle.
pub(super) trait Object: Sized + 'static {
    /// The kind's name, for messages.
    const WHAT: &'static str;
    /// Returns the table of its open handles.
    fn table() -> &'static Table<Self>;
    /// Returns the descriptor to poll.
    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure>;
    /// Called once, when the handle is closed.
    fn on_close(&self);
}

pub(super) fn id_of<H>(handle: *const H) -> Id {
    handle.addr() as Id
}

/// Returns a handle's value for callers. It is never an address, and never dereferenced.
pub(super) fn as_handle<H>(id: Id) -> *mut H {
    std::ptr::without_provenance_mut(usize::try_from(id).unwrap_or(0))
}

/// Opens a handle.
pub(super) fn open<T: Object, H>(object: Arc<T>) -> Result<*mut H, Failure> {
    let id = T::table().insert(object);
    let id = id.ok_or_else(|| wrong(MSB_E_LIMIT, format!("too many open {} handles", T::WHAT)))?;
    Ok(as_handle(id))
}

/// Returns the object of a handle; the value is looked up, never dereferenced.
pub(super) fn get<T: Object, H>(handle: *const H) -> Result<Arc<T>, Failure> {
    get_open(handle).map(|open| open.object)
}

/// Returns the object as [`get`] does, and the calls that wait on the handle.
pub(super) fn get_open<T: Object, H>(handle: *const H) -> Result<Open<T>, Failure> {
    T::table().open(id_of(handle)).ok_or_else(|| {
        let what = T::WHAT;
        wrong(MSB_E_HANDLE, format!("{:#x} is not an open {what} handle", id_of(handle)))
    })
}

/// Closes a handle without calling [`Object::on_close`].
pub(super) fn remove<T: Object, H>(handle: *const H) -> Option<Arc<T>> {
    T::table().remove(id_of(handle))
}
