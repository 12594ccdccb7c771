//! System calls that have no safe wrapper: byte-range locks of an open file description.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What to do with a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockOp {
    /// Take it, or fail with `EAGAIN`.
    Try,
    /// Take it; wait while another description has it.
    Wait,
    /// Release it.
    Release,
}

/// Takes or releases the lock on one byte of a file.
pub(crate) fn lock_byte(file: impl AsFd, byte: libc::off_t, op: LockOp) -> io::Result<()> {
    let (command, kind) = match op {
        LockOp::Try => (libc::F_OFD_SETLK, libc::F_WRLCK),
        LockOp::Wait => (libc::F_OFD_SETLKW, libc::F_WRLCK),
        LockOp::Release => (libc::F_OFD_SETLK, libc::F_UNLCK),
    };
    control(file, command, &mut flock(byte, kind))
}

/// Returns whether another open file description holds the lock on a byte. Takes nothing.
pub(crate) fn is_byte_locked(file: impl AsFd, byte: libc::off_t) -> io::Result<bool> {
    let mut found = flock(byte, libc::F_WRLCK);
    control(file, libc::F_OFD_GETLK, &mut found)?;
    Ok(libc::c_int::from(found.l_type) != libc::F_UNLCK)
}

fn control(file: impl AsFd, command: libc::c_int, flock: &mut libc::flock) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    loop {
        // SAFETY: the descriptor is open, and `flock` is valid for reads and writes in the call.
        if unsafe { libc::fcntl(fd, command, &raw mut *flock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn flock(byte: libc::off_t, kind: libc::c_int) -> libc::flock {
    libc::flock {
        // The constants are 0 to 2; the fields are narrower than their type.
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}
