//! The removal of directories that sandboxes have filled.
//!
//! A separate process: the host program neither reads what a guest has left nor waits for its
//! removal without a limit.

use crate::namespaces::{Side, enter};
use crate::process::{is_root, wait};
use crate::sys::{self, Forked};
use msb_state::remove_tree;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::{Pid, setsid};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Carries out `purge [--wait] -- DIRECTORY...`; `None` for other arguments.
///
/// Parsed by hand: in a debug build the parser of the other commands needs more stack than a host
/// program with a small limit gives an ordinary user.
pub(crate) fn from_arguments(
    mut arguments: impl Iterator<Item = OsString>,
) -> Option<Result<ExitCode, String>> {
    if arguments.nth(1)? != "purge" {
        return None;
    }
    let (mut blocking, mut directories) = (false, Vec::new());
    for argument in arguments {
        match argument.to_str() {
            Some("--wait") => blocking = true,
            Some("--") => {}
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    Some(purge(&directories, blocking))
}

/// Removes directories in a child, which survives this process.
///
/// An ordinary user's child is root in a user namespace: files can belong to its other users.
fn purge(directories: &[PathBuf], blocking: bool) -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    sys::reset_signals();
    if is_root() {
        if let Forked::Parent(child) = sys::fork().map_err(|error| error.to_string())? {
            return Ok(wait(Pid::from_raw(child)));
        }
    } else if let Side::Outside(code) = enter(true).map_err(|failure| failure.to_string())? {
        return Ok(code);
    }
    // Out of reach of the terminal's signals, which are for the host program.
    setsid().map_err(|error| format!("cannot become a session leader: {error}"))?;
    let mut first = None;
    for directory in directories {
        if let Err(error) = remove(directory, blocking) {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn remove(directory: &Path, blocking: bool) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match open(directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened,
    };
    if let Ok(lock) = &lock {
        let nonblocking = FlockOperation::NonBlockingLockExclusive;
        let operation = if blocking { FlockOperation::LockExclusive } else { nonblocking };
        // One removal at a time is fastest; without locks, concurrent ones do no harm.
        if matches!(flock(lock, operation), Err(Errno::WOULDBLOCK)) {
            return Ok(());
        }
    }
    remove_tree(directory).map_err(|error| error.to_string())
}
