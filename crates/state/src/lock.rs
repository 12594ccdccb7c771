//! The lock that is held while a sandbox is running.
//!
//! The file `lock` carries two locks of an open file description: a child inherits them with the
//! descriptor, and they are released when its last copy is closed.
//!
//! - byte 0, *running*: held from before the start until the runner has cleaned up;
//! - byte 1, *maintenance*: held while a process changes the directory of a sandbox that is not
//!   running. It is taken before byte 0, so that a cleanup is never mistaken for a running sandbox.

use crate::error::{Error, Result};
use crate::sys::{LockOp, is_byte_locked, lock_byte};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Clone, Copy)]
enum Byte {
    Running = 0,
    Maintenance = 1,
}

/// The open lock file of one sandbox, with the locks taken through it.
#[derive(Debug)]
pub struct SandboxLock {
    file: File,
    path: PathBuf,
}

impl SandboxLock {
    /// Opens the lock file and creates it if needed. Takes no lock.
    pub fn open(path: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| Error::io("open", path, error))?;
        Ok(SandboxLock { file, path: path.to_path_buf() })
    }

    /// Takes ownership of a descriptor that was inherited with its locks.
    pub fn inherited(fd: OwnedFd, path: &Path) -> Self {
        SandboxLock { file: File::from(fd), path: path.to_path_buf() }
    }

    /// Returns whether the path still names this file: its directory may have been replaced since.
    pub fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(ours), Ok(named)) => ours.dev() == named.dev() && ours.ino() == named.ino(),
            _ => false,
        }
    }

    /// Returns whether another holder has the lock *running*. Takes nothing.
    pub fn is_running(&self) -> Result<bool> {
        is_byte_locked(&self.file, Byte::Running as libc::off_t).map_err(|error| self.failed(error))
    }

    /// Takes the lock *running*; returns `false` if another holder has it.
    pub fn try_running(&self) -> Result<bool> {
        self.try_lock(Byte::Running)
    }

    /// Takes the lock *maintenance*; waits while another holder has it.
    pub fn maintenance(&self) -> Result<()> {
        self.control(Byte::Maintenance, LockOp::Wait).map_err(|error| self.failed(error))
    }

    /// As [`SandboxLock::maintenance`], but returns `false` instead of waiting.
    pub fn try_maintenance(&self) -> Result<bool> {
        self.try_lock(Byte::Maintenance)
    }

    /// Releases the lock *maintenance*.
    pub fn end_maintenance(&self) -> Result<()> {
        self.control(Byte::Maintenance, LockOp::Release).map_err(|error| self.failed(error))
    }

    /// Returns another descriptor for the same locks.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let copy = self.file.try_clone();
        copy.map(OwnedFd::from).map_err(|error| Error::io("duplicate", &self.path, error))
    }

    fn try_lock(&self, byte: Byte) -> Result<bool> {
        match self.control(byte, LockOp::Try) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(Errno::from_io_error(&error), Some(Errno::AGAIN | Errno::ACCESS)) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn control(&self, byte: Byte, op: LockOp) -> io::Result<()> {
        lock_byte(&self.file, byte as libc::off_t, op)
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("lock", &self.path, error)
    }
}

impl AsFd for SandboxLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, SandboxLock, SandboxLock) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let (a, b) = (SandboxLock::open(&path).unwrap(), SandboxLock::open(&path).unwrap());
        (scratch, a, b)
    }

    #[test]
    fn lock_has_one_holder_and_a_query_takes_nothing() {
        let (_scratch, a, b) = pair();
        assert!(!b.is_running().unwrap());
        assert!(a.try_running().unwrap());
        assert!(b.is_running().unwrap());
        assert!(!a.is_running().unwrap(), "its own lock does not count");
        assert!(!b.try_running().unwrap());
        drop(a);
        assert!(b.try_running().unwrap());
    }

    #[test]
    fn lock_lives_as_long_as_any_copy_of_the_descriptor() {
        let (_scratch, a, b) = pair();
        assert!(a.try_running().unwrap());
        let copy = a.duplicate().unwrap();
        drop(a);
        assert!(b.is_running().unwrap());
        drop(copy);
        assert!(!b.is_running().unwrap());
    }

    #[test]
    fn maintenance_does_not_look_like_running() {
        let (_scratch, a, b) = pair();
        a.maintenance().unwrap();
        assert!(!b.is_running().unwrap());
        assert!(!b.try_maintenance().unwrap());
        a.end_maintenance().unwrap();
        assert!(b.try_maintenance().unwrap());
    }

    #[test]
    fn lock_in_a_replaced_directory_is_not_current() {
        let (scratch, a, _b) = pair();
        assert!(a.is_current());
        fs::remove_file(scratch.path().join("lock")).unwrap();
        assert!(!a.is_current());
        fs::write(scratch.path().join("lock"), "").unwrap();
        assert!(!a.is_current());
    }
}
