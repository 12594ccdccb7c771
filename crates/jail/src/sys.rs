//! The system calls that have no safe wrapper.

use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Makes a process in a user namespace of its own that waits until `hold` is closed in every other
/// process, and then ends. Returns its process id.
pub(crate) fn clone_into_user_namespace(wait: &OwnedFd, hold: &OwnedFd) -> io::Result<i32> {
    let (wait, hold) = (wait.as_raw_fd(), hold.as_raw_fd());
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: without CLONE_VM it is a fork; the child runs only `wait_for_close`, which keeps to
    // async-signal-safe calls and never returns, whatever locks other threads held.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) } {
        -1 => Err(io::Error::last_os_error()),
        0 => wait_for_close(wait, hold),
        pid => i32::try_from(pid).map_err(io::Error::other),
    }
}

fn wait_for_close(wait: i32, hold: i32) -> ! {
    // SAFETY: closes this process's copy, which nothing else in it uses.
    unsafe { libc::close(hold) };
    let mut byte = 0_u8;
    // SAFETY: `byte` lives and has the size that is given.
    while unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } > 0 {}
    // SAFETY: ends the process at once, without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Waits for the end of a child.
pub(crate) fn wait(child: i32) -> io::Result<()> {
    loop {
        match waitpid(Pid::from_raw(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Has the files of a detached mount appear with the ids that a user namespace maps theirs to.
pub(crate) fn set_idmap(mount: &OwnedFd, namespace: BorrowedFd<'_>) -> io::Result<()> {
    /// `struct mount_attr` (mount_setattr(2)).
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        namespace: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    let (fd, path, flags) = (mount.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
    let size = size_of::<MountAttr>();
    // SAFETY: reads the path and `attr`, which live, and of which it is told the size.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path, flags, &raw const attr, size) }
    {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Changes the ids of this thread that count for files.
pub(crate) fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: touches no memory, and concerns this thread alone.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // Neither says whether it did (setfsuid(2)); one that cannot be changed to returns what is.
    // SAFETY: as above.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: as above.
    let user = unsafe { libc::setfsuid(u32::MAX) };
    if user.cast_unsigned() == uid && group.cast_unsigned() == gid {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}
