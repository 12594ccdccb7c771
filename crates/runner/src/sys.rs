//! The system calls that have no safe wrapper.

#[cfg(feature = "old-glibc")]
mod old_glibc;

pub(crate) mod loop_device;

use rustix::io::FdFlags;
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Which of the two processes this is after a fork.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The parent, with the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

/// Splits the process in two. Refused when there are other threads, whose locks would be held for
/// ever in the child.
pub(crate) fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there is more than one thread"));
    }
    // SAFETY: this is the only thread, so that the child is a whole copy of the process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Moves this process into new namespaces. Must be called before there are other threads, which
/// would stay behind.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe only because of flags that take descriptors away from under other threads,
    // such as CLONE_FILES; the callers pass namespaces only.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Sets what signals do back to the default. The host program may have left them ignored, and an
/// ignored SIGCHLD, for one, makes waiting for a child impossible.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // A broken pipe stays an error of the call, as in every Rust program; so does a file that
        // may not grow further, since a log that cannot be written must not end the sandbox.
        let ignored = matches!(signal, libc::SIGPIPE | libc::SIGXFSZ);
        let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: no handler of ours is involved; signals that cannot be set are refused.
        unsafe { libc::signal(signal, action) };
    }
}

/// Takes over a descriptor that the library passed, and keeps it from being passed on.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only looks whether the number is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the agreement with the library it belongs to nothing else here.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Closes every descriptor from `first` on: what the host program has not closed itself is none
/// of the sandbox's business. Must be called before any of them is in use.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // By its number: glibc has had the function since 2.34 only.
    // SAFETY: called first of all, when nothing has been opened yet.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The rate of the processor's time stamp counter in kHz; `None` where it is not steady.
///
/// A guest that is emulated reads this counter, and the small machine has no other clock by which
/// it could find out how fast it goes.
pub(crate) fn tsc_khz() -> Option<u64> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "constant_tsc") {
        return None;
    }
    let (start, from) = (std::time::Instant::now(), counter()?);
    // Long enough for an error below a thousandth, short enough for a start.
    std::thread::sleep(std::time::Duration::from_millis(10));
    let (time, to) = (start.elapsed(), counter()?);
    let nanos = u64::try_from(time.as_nanos()).ok()?;
    to.checked_sub(from)?.checked_mul(1_000_000)?.checked_div(nanos)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and it touches nothing.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}
