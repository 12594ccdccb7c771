//! The removal of directories that sandboxes have filled.
//!
//! In a process of its own: whatever a guest has left, the host program neither reads it nor
//! waits for it without end.

use crate::cli::is_root;
use crate::namespaces::{Side, enter};
use crate::sys::{self, Forked};
use msb_state::remove_tree;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Carries out `purge [--wait] -- DIRECTORY...`; `None` for other arguments.
///
/// Read by hand: the parser of the other commands needs more stack, in a debug build, than a host
/// program with a small limit leaves to an ordinary user.
pub(crate) fn from_arguments(
    mut arguments: impl Iterator<Item = OsString>,
) -> Option<Result<ExitCode, String>> {
    if arguments.nth(1)? != "purge" {
        return None;
    }
    let (mut wait, mut directories) = (false, Vec::new());
    for argument in arguments {
        match argument.to_str() {
            Some("--wait") => wait = true,
            Some("--") => {}
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    Some(purge(&directories, wait))
}

/// Removes directories in a child, which goes on when this process is killed.
///
/// An ordinary user's child is root in a user namespace: there may be files of other users of it.
fn purge(directories: &[PathBuf], wait: bool) -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    sys::reset_signals();
    if is_root() {
        if let Forked::Parent(child) = sys::fork().map_err(|error| error.to_string())? {
            return Ok(code_of(child));
        }
    } else if let Side::Outside(code) = enter(true).map_err(|failure| failure.to_string())? {
        return Ok(code);
    }
    // The terminal's signals are for the host program.
    setsid().map_err(|error| format!("cannot become a session leader: {error}"))?;
    let mut first = None;
    for directory in directories {
        if let Err(error) = remove(directory, wait) {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn remove(directory: &Path, wait: bool) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = match open(directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened,
    };
    if let Ok(lock) = &lock {
        let nonblocking = FlockOperation::NonBlockingLockExclusive;
        let operation = if wait { FlockOperation::LockExclusive } else { nonblocking };
        // One removal at a time is fastest; where there are no locks, several do no harm.
        if matches!(flock(lock, operation), Err(Errno::WOULDBLOCK)) {
            return Ok(());
        }
    }
    remove_tree(directory).map_err(|error| error.to_string())
}

fn code_of(child: i32) -> ExitCode {
    loop {
        match waitpid(Pid::from_raw(child), WaitOptions::empty()) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return ExitCode::SUCCESS,
            Err(Errno::INTR) => {}
            _ => return ExitCode::FAILURE,
        }
    }
}
