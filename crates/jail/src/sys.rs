//! System calls that have no safe wrapper.

use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The process that continues after a clone.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The caller, with the new process's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// Returns whether this process has one thread only.
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Clones the process; `flags` are `CLONE_*`. Refused if there are other threads, whose locks would
/// stay locked in the child.
pub(crate) fn clone(flags: libc::c_int) -> io::Result<Cloned> {
    if !is_single_threaded() {
        return Err(io::Error::other("there is more than one thread"));
    }
    let is_sibling = flags & libc::CLONE_PARENT != 0;
    // SAFETY: all of its fields are numbers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.cast_unsigned());
    // With CLONE_PARENT the exit signal is the caller's, and none may be set.
    arguments.exit_signal = if is_sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) };
    if let Some(address) = thread_id_address() {
        arguments.flags |= (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
        arguments.child_tid = address;
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child is a copy of this process, whose only thread this is.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) } {
        0 => Ok(Cloned::Child),
        pid => i32::try_from(pid)
            .ok()
            .filter(|pid| *pid > 0)
            .map(Cloned::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Returns the address of glibc's thread id, which its `fork` has the kernel update as well.
#[cfg(target_env = "gnu")]
fn thread_id_address() -> Option<u64> {
    let address = rustix::thread::get_clear_child_tid_address().ok().flatten()?;
    u64::try_from(address.as_ptr().addr()).ok()
}

#[cfg(not(target_env = "gnu"))]
fn thread_id_address() -> Option<u64> {
    None
}

/// Exits at once: no destructor runs, no buffer is flushed.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Sets attributes of a detached mount, and the user namespace that maps its owners.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    user_namespace: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut change =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    if let Some(namespace) = user_namespace {
        change.attr_set |= libc::MOUNT_ATTR_IDMAP;
        change.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (change, size) = (&raw const change, size_of::<libc::mount_attr>());
    // SAFETY: the path is a NUL-terminated string, and the structure has the size that is given.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, change, size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this process into new namespaces. It must have one thread only.
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the callers pass namespaces only, which do not affect other threads.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes the descriptors from `first` to `last`. None of them may be in use.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller uses descriptors outside the range only.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns whether a number is an open descriptor of this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: the call reads a flag of the descriptor, if there is one.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Takes ownership of an inherited descriptor and sets its close-on-exec flag.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if !is_open(fd) {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract with the parent nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Borrows an inherited descriptor that stays open as long as the process.
pub(crate) fn borrowed(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    if !is_open(fd) {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the jail closes no descriptor of its description.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Returns whether the kernel has `mount_setattr`, called with arguments that make it fail.
pub(crate) fn has_mount_setattr() -> bool {
    // SAFETY: the kernel refuses a structure of size zero before it reads it.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0)
    };
    done == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Forks a process that becomes a user and creates a user namespace, in which it waits until `hold`
/// is closed in every other process. It writes an errno, or 0, to `report`. Returns its pid.
pub(crate) fn fork_into_user_namespace(
    user: u32,
    wait: &OwnedFd,
    hold: &OwnedFd,
    report: &OwnedFd,
) -> io::Result<i32> {
    let (wait, hold, report) = (wait.as_raw_fd(), hold.as_raw_fd(), report.as_raw_fd());
    // SAFETY: the child runs only `hold_user_namespace`, which keeps to async-signal-safe calls and
    // never returns, whatever locks other threads held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => hold_user_namespace(user, wait, hold, report),
        pid => Ok(pid),
    }
}

fn hold_user_namespace(user: u32, wait: i32, hold: i32, report: i32) -> ! {
    // SAFETY: closes this process's copy, which nothing else in it uses.
    unsafe { libc::close(hold) };
    let errno = match become_owner(user) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
    };
    let errno = errno.to_ne_bytes();
    // SAFETY: writes from a live array of that size.
    unsafe { libc::write(report, errno.as_ptr().cast(), errno.len()) };
    let mut byte = 0_u8;
    // SAFETY: `byte` is live and one byte long.
    while unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } > 0 {}
    // SAFETY: exits at once, without running code of the parent.
    unsafe { libc::_exit(0) }
}

fn become_owner(user: u32) -> io::Result<()> {
    // By number: libc's functions would signal threads that the child does not have (nptl(7)).
    // SAFETY: touches no memory.
    check(unsafe { libc::syscall(libc::SYS_setresgid, user, user, user) })?;
    // SAFETY: touches no memory.
    check(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
    // SAFETY: touches no memory; this process has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for a child's exit.
pub(crate) fn wait(child: i32) -> io::Result<()> {
    loop {
        match waitpid(Pid::from_raw(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Sets this thread's file system ids.
pub(crate) fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: touches no memory, and affects this thread alone.
    unsafe { libc::setfsgid(gid) };
    // SAFETY: as above.
    unsafe { libc::setfsuid(uid) };
    // Neither reports failure (setfsuid(2)); an invalid id returns the current one.
    // SAFETY: as above.
    let group = unsafe { libc::setfsgid(u32::MAX) };
    // SAFETY: as above.
    let user = unsafe { libc::setfsuid(u32::MAX) };
    if user.cast_unsigned() == uid && group.cast_unsigned() == gid {
        return Ok(());
    }
    Err(io::ErrorKind::PermissionDenied.into())
}
