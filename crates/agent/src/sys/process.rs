//! Descriptors that were inherited, signals, and waiting for children.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How many descriptors a process of the sandbox may have at most.
const MAX_DESCRIPTORS: u64 = 1_048_576;

/// What the runner left open for the agent.
#[derive(Debug)]
pub struct Inherited {
    /// Where connections come in.
    pub listener: UnixListener,
    /// A pipe that ends when the runner does.
    pub leash: Option<OwnedFd>,
}

/// Takes over the inherited descriptors, once, before anything else opens any.
///
/// Returns the directory of a cgroup as well, where one was passed.
pub fn adopt(
    listen: i32,
    leash: Option<i32>,
    cgroup: Option<i32>,
) -> io::Result<(Inherited, Option<OwnedFd>)> {
    let listener = UnixListener::from(own(listen)?);
    let leash = leash.map(own).transpose()?;
    let cgroup = cgroup.map(own).transpose()?;
    Ok((Inherited { listener, leash }, cgroup))
}

fn own(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `fcntl` with `F_SETFD` touches no memory; a descriptor that is not open is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open (checked above), and `adopt` runs once before anything else opens or owns
    // descriptors above 2, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Settings of the agent's own process: nobody in the sandbox may trace it or look into it, and it
/// may open as many descriptors as the system allows.
pub fn be_init() -> io::Result<()> {
    // SAFETY: `prctl` with these arguments touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let inherited = at_most(getrlimit(Resource::Nofile), MAX_DESCRIPTORS);
    let raised = Rlimit { current: inherited.maximum, maximum: inherited.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        // Commands get the limit that the agent was given, not the one that it needs.
        let _ = DESCRIPTORS.set(inherited);
    }
    Ok(())
}

/// Bounds how many processes each user of the sandbox may have, the agent's included.
pub fn limit_processes(count: Option<i32>) -> io::Result<()> {
    let Some(count) = count.and_then(|count| u64::try_from(count).ok()) else { return Ok(()) };
    setrlimit(Resource::Nproc, at_most(getrlimit(Resource::Nproc), count))?;
    Ok(())
}

fn at_most(limit: Rlimit, count: u64) -> Rlimit {
    let least = |value: Option<u64>| Some(value.map_or(count, |value| value.min(count)));
    Rlimit { current: least(limit.current), maximum: least(limit.maximum) }
}

/// From now on commands are told that clone3(2) does not exist. For where a filter of system calls
/// keeps them from making namespaces by clone(2): it cannot see what clone3 is asked for, which
/// only the agent is to use.
pub fn forbid_clone3() {
    FORBIDS_CLONE3.store(true, Ordering::Relaxed);
}

static FORBIDS_CLONE3: AtomicBool = AtomicBool::new(false);

/// Whether [`forbid_clone3`] was called.
pub(crate) fn forbids_clone3() -> bool {
    FORBIDS_CLONE3.load(Ordering::Relaxed)
}

static DESCRIPTORS: OnceLock<Rlimit> = OnceLock::new();

/// The limit on descriptors that commands are to have, where the agent's own is another one.
pub(crate) fn descriptor_limit() -> Option<Rlimit> {
    DESCRIPTORS.get().copied()
}

/// From now on the agent dies with its parent. Only once that is the runner: a container's process
/// is made by an OCI runtime, which goes before the runner says hello.
pub(crate) fn die_with_parent() {
    // SAFETY: `prctl` with these arguments touches no memory. The leash stands in should it fail.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives, and the `AsyncFd`
    // owns it from here on.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// A descriptor that polls readable when a child has ended. Blocks SIGCHLD in this thread.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: the set is initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A child that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) core_dumped: bool,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) max_rss: u64,
}

/// Takes the next child that has ended, whoever's it was; `None` when there is none now.
pub(crate) fn reap() -> Option<Reaped> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live storage of the right types.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    if pid <= 0 {
        return None;
    }
    // SAFETY: plain numbers, zeroed before and filled by the call that succeeded.
    let usage = unsafe { usage.assume_init() };
    Some(Reaped {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // In kibibytes on Linux (getrusage(2)).
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Whether `signal` is one that can be sent: 1 to the last real-time signal.
pub(crate) fn valid_signal(signal: i32) -> bool {
    (1..=libc::SIGRTMAX()).contains(&signal)
}

/// Signals one process. The caller knows that it was not reaped, so the number is still its own.
pub(crate) fn kill_process(pid: i32, signal: i32) -> io::Result<()> {
    send(pid, signal)
}

/// Signals a process group.
pub(crate) fn kill_group(group: i32, signal: i32) -> io::Result<()> {
    send(-group, signal)
}

/// Signals every process in the sandbox but the agent. Only for PID 1: elsewhere "every process"
/// would be the whole machine, so it refuses there.
pub(crate) fn kill_all(signal: i32) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    send(-1, signal)
}

fn send(target: i32, signal: i32) -> io::Result<()> {
    // SAFETY: `kill` touches no memory.
    if unsafe { libc::kill(target, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// How many bytes can be read from a pipe right now.
pub(crate) fn bytes_waiting(fd: BorrowedFd<'_>) -> u64 {
    let mut count: libc::c_int = 0;
    // SAFETY: `FIONREAD` writes one int, which `count` is.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { u64::try_from(count).unwrap_or(0) }
}

/// Whether nobody holds the other end any more.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::empty())];
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut poll, Some(&now)).is_ok()
        && poll.iter().any(|fd| fd.revents().contains(rustix::event::PollFlags::HUP))
}
