//! System calls that have no safe wrapper.

#[cfg(feature = "old-glibc")]
mod old_glibc;

pub(crate) mod loop_device;

use rustix::io::FdFlags;
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The process that continues after a fork.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The parent, with the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

/// Forks. Refused if there are other threads, whose locks would stay locked in the child.
pub(crate) fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("there is more than one thread"));
    }
    // SAFETY: this is the only thread, so the child is a complete copy of the process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Moves this process into new namespaces. Call it before there are other threads, which would stay
/// behind.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe only because of flags that take descriptors away from under other threads,
    // such as CLONE_FILES; the callers pass namespaces only.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Unblocks every signal: the thread that started this program may have blocked them, and child
/// processes would inherit that.
pub(crate) fn unblock_signals() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set, which lives.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised; the old mask is not requested. Fails for no valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
}

/// Resets the signal dispositions to the defaults. The host program may ignore signals, and an
/// ignored SIGCHLD makes waiting for a child impossible.
pub(crate) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // A broken pipe stays an error of the call, as in every Rust program; so does a file at its
        // size limit: a log that cannot be written must not end the sandbox.
        let ignored = matches!(signal, libc::SIGPIPE | libc::SIGXFSZ);
        let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: installs no handler; signals that cannot be set are refused.
        unsafe { libc::signal(signal, action) };
    }
}

/// Takes ownership of an inherited descriptor and sets its close-on-exec flag.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only reads a flag of the descriptor, if it is open.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and by the contract with the library nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Closes every descriptor from `first` on, which the host program may have leaked. Call it before
/// any of them is in use.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // By number: glibc has the function since 2.34 only.
    // SAFETY: called first, when nothing has been opened yet.
    match unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the rate of the processor's time stamp counter in kHz; `None` if it is not constant.
///
/// An emulated guest reads this counter, and the microvm machine has no other clock to calibrate it
/// with.
pub(crate) fn tsc_khz() -> Option<u64> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "constant_tsc") {
        return None;
    }
    let (start, from) = (std::time::Instant::now(), counter()?);
    // Long enough for an error below 0.1 %, short enough for a start.
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
