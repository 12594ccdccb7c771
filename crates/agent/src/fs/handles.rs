//! The files and directories that a connection has open.

use super::error::{Result, busy, error, failed, io_failed};
use super::pool::{Kept, Runner};
use super::read::{Lister, Opened};
use crate::sys;
use msb_wire::FsErrorKind;
use msb_wire::limits::FS_HANDLES;
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

/// The handles of one connection.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: RefCell<HashMap<u64, Kept<Handle>>>,
    last: Cell<u64>,
}

/// An open file or directory, which several operations may use at once.
#[derive(Debug, Clone)]
pub(super) enum Handle {
    File(Arc<File>),
    Directory(Arc<Mutex<Lister>>),
}

impl Handles {
    /// Adds what was opened. Returns its number, which is never used again.
    pub(super) fn add(&self, runner: &Runner, opened: Opened) -> Result<u64> {
        let handle = runner.keep(match opened {
            Opened::File(file) => Handle::File(Arc::new(file)),
            Opened::Directory(lister) => Handle::Directory(Arc::new(Mutex::new(lister))),
        });
        let mut open = self.open.borrow_mut();
        if open.len() >= FS_HANDLES {
            return Err(busy("open", b"", "too many handles are open on this connection"));
        }
        let number = self.last.get().saturating_add(1);
        self.last.set(number);
        open.insert(number, handle);
        Ok(number)
    }

    /// Returns what a handle is of.
    pub(super) fn get(&self, operation: &'static str, number: u64) -> Result<Handle> {
        let open = self.open.borrow();
        let handle = open.get(&number).and_then(Kept::value);
        handle.cloned().ok_or_else(|| unknown(operation, number))
    }

    pub(super) fn file(&self, operation: &'static str, number: u64) -> Result<Arc<File>> {
        match self.get(operation, number)? {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) => Err(failed(operation, b"")(Errno::ISDIR)),
        }
    }

    pub(super) fn directory(
        &self,
        operation: &'static str,
        number: u64,
    ) -> Result<Arc<Mutex<Lister>>> {
        match self.get(operation, number)? {
            Handle::Directory(directory) => Ok(directory),
            Handle::File(_) => Err(failed(operation, b"")(Errno::NOTDIR)),
        }
    }

    /// Removes a handle, for its last step.
    pub(super) fn take(&self, number: u64) -> Result<Kept<Handle>> {
        let handle = self.open.borrow_mut().remove(&number);
        handle.ok_or_else(|| unknown("close", number))
    }

    /// Closes all handles, at the end of the connection.
    pub(crate) fn close_all(&self) {
        self.open.borrow_mut().clear();
    }
}

impl Handle {
    /// Calls a function with the descriptor.
    pub(super) fn with_fd<T>(&self, f: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        match self {
            Handle::File(file) => f(file.as_fd()),
            Handle::Directory(directory) => f(lock(directory)?.fd()?),
        }
    }

    /// Closes it, once no other operation uses it.
    pub(super) fn close(self, sync: bool) -> Result<()> {
        let Handle::File(file) = self else { return Ok(()) };
        if sync {
            file.sync_all().map_err(io_failed("sync", b""))?;
        }
        match Arc::into_inner(file) {
            Some(file) => sys::close(file.into()).map_err(failed("close", b"")),
            None => Ok(()),
        }
    }
}

/// Locks a directory that is being listed.
pub(super) fn lock(directory: &Mutex<Lister>) -> Result<std::sync::MutexGuard<'_, Lister>> {
    directory.lock().map_err(|_| failed("list", b"")(Errno::IO))
}

fn unknown(operation: &'static str, number: u64) -> msb_wire::FsError {
    let why = format!("no handle {number} is open on this connection");
    error(FsErrorKind::Filesystem, Errno::BADF, operation, b"", &why)
}
