//! The system calls that have no safe wrapper.

use rustix::io::FdFlags;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which of the two processes this is after a clone.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The caller, with the new process's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Whether this process has one thread only.
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Splits the process in two; `flags` are `CLONE_*`. Refused when there are other threads, whose
/// locks would be held for ever in the child.
pub(crate) fn clone(flags: libc::c_int) -> io::Result<Cloned> {
    if !is_single_threaded() {
        return Err(io::Error::other("there is more than one thread"));
    }
    let is_sibling = flags & libc::CLONE_PARENT != 0;
    // SAFETY: all of its fields are numbers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.cast_unsigned());
    // A sibling ends with the signal that the caller ends with, and takes no other.
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

/// Where glibc keeps the thread's id, which its own `fork` has the kernel update in the same way.
#[cfg(target_env = "gnu")]
fn thread_id_address() -> Option<u64> {
    let address = rustix::thread::get_clear_child_tid_address().ok().flatten()?;
    u64::try_from(address.as_ptr().addr()).ok()
}

#[cfg(not(target_env = "gnu"))]
fn thread_id_address() -> Option<u64> {
    None
}

/// Ends this process at once: no destructor runs, no buffer is written.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: it does not return, and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Changes a detached mount: the attributes that it gets, and the user namespace that its owners
/// are mapped through.
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
    // SAFETY: the callers pass namespaces only, which take nothing away from other threads.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes the descriptors from `first` to `last`. None of them may be in use any more.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller goes on with the descriptors outside the range only.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a number is an open descriptor of this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: the call reads a flag of the descriptor, if there is one.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Takes over a descriptor that the parent passed, and keeps it from being passed on.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if !is_open(fd) {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the agreement with the parent it belongs to nothing else here.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// A descriptor that the parent passed and that stays open as long as the process.
pub(crate) fn borrowed(fd: RawFd) -> io::Result<BorrowedFd<'static>> {
    if !is_open(fd) {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the jail closes no descriptor that its description names.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Whether a system call exists, asked with arguments that make it fail.
pub(crate) fn has_mount_setattr() -> bool {
    // SAFETY: the kernel refuses a structure of size zero before it reads it.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0)
    };
    done == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

/// Makes a process that becomes a user and makes a user namespace, in which it waits until `hold` is
/// closed in every other process. It writes to `say` the number of an error, or 0. Returns its
/// process id.
pub(crate) fn fork_into_user_namespace(
    user: u32,
    wait: &OwnedFd,
    hold: &OwnedFd,
    say: &OwnedFd,
) -> io::Result<i32> {
    let (wait, hold, say) = (wait.as_raw_fd(), hold.as_raw_fd(), say.as_raw_fd());
    // SAFETY: the child runs only `make_user_namespace`, which keeps to async-signal-safe calls and
    // never returns, whatever locks other threads held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => make_user_namespace(user, wait, hold, say),
        pid => Ok(pid),
    }
}

fn make_user_namespace(user: u32, wait: i32, hold: i32, say: i32) -> ! {
    // SAFETY: closes this process's copy, which nothing else in it uses.
    unsafe { libc::close(hold) };
    let errno = match become_owner(user) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
    };
    let said = errno.to_ne_bytes();
    // SAFETY: writes from live storage, of which it is told the size.
    unsafe { libc::write(say, said.as_ptr().cast(), said.len()) };
    let mut byte = 0_u8;
    // SAFETY: `byte` lives and has the size that is given.
    while unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } > 0 {}
    // SAFETY: ends the process at once, without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

fn become_owner(user: u32) -> io::Result<()> {
    // By number: libc's functions would wait for threads that the child does not have (nptl(7)).
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
