//! Inherited descriptors, signals, and children.

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Largest number of descriptors of a process in the sandbox.
const MAX_DESCRIPTORS: u64 = 1_048_576;

/// The descriptors that the runner passes to the agent.
#[derive(Debug)]
pub struct Inherited {
    /// The socket that accepts connections.
    pub listener: UnixListener,
    /// A pipe that the runner holds open: its end means that the runner has exited.
    pub lifeline: Option<OwnedFd>,
}

/// Takes ownership of the inherited descriptors. Called once, before anything else opens one. Also
/// returns the directory of a cgroup, if one was passed.
pub fn adopt(
    listen: i32,
    lifeline: Option<i32>,
    cgroup: Option<i32>,
) -> io::Result<(Inherited, Option<OwnedFd>)> {
    let listener = UnixListener::from(own(listen)?);
    let lifeline = lifeline.map(own).transpose()?;
    let cgroup = cgroup.map(own).transpose()?;
    Ok((Inherited { listener, lifeline }, cgroup))
}

/// Takes ownership of an inherited connected socket. Called once, instead of [`adopt`].
pub fn adopt_socket(fd: i32) -> io::Result<UnixStream> {
    Ok(UnixStream::from(own(fd)?))
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
    // descriptors above 2, so it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Applies the settings of the agent's process: no process in the sandbox may trace or inspect it,
/// and it may open as many descriptors as the system allows.
pub fn be_init() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let inherited = at_most(getrlimit(Resource::Nofile), MAX_DESCRIPTORS);
    let raised = Rlimit { current: inherited.maximum, maximum: inherited.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        // Commands get the limit that the agent inherited, not the raised one.
        let _ = DESCRIPTORS.set(inherited);
    }
    Ok(())
}

/// Limits the number of processes of each user in the sandbox, the agent's included.
pub fn limit_processes(count: Option<i32>) -> io::Result<()> {
    let Some(count) = count.and_then(|count| u64::try_from(count).ok()) else { return Ok(()) };
    setrlimit(Resource::Nproc, at_most(getrlimit(Resource::Nproc), count))?;
    Ok(())
}

fn at_most(limit: Rlimit, count: u64) -> Rlimit {
    let least = |value: Option<u64>| Some(value.map_or(count, |value| value.min(count)));
    Rlimit { current: least(limit.current), maximum: least(limit.maximum) }
}

/// Makes clone3(2) fail with `ENOSYS` for commands from now on. Needed where a seccomp filter
/// forbids new namespaces by clone(2): it cannot inspect the arguments of clone3, which only the
/// agent may use.
pub fn forbid_clone3() {
    FORBIDS_CLONE3.store(true, Ordering::Relaxed);
}

static FORBIDS_CLONE3: AtomicBool = AtomicBool::new(false);

/// Returns whether [`forbid_clone3`] was called.
pub(crate) fn forbids_clone3() -> bool {
    FORBIDS_CLONE3.load(Ordering::Relaxed)
}

static DESCRIPTORS: OnceLock<Rlimit> = OnceLock::new();

/// Returns the limit on descriptors for commands, where the agent's own differs.
pub(crate) fn descriptor_limit() -> Option<Rlimit> {
    DESCRIPTORS.get().copied()
}

/// Kills the agent when its parent exits, from now on. Called once the parent is the runner: the
/// OCI runtime that creates a container's process exits before the runner connects.
pub(crate) fn die_with_parent() {
    // The lifeline has the same effect if this fails.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives, and the `AsyncFd`
    // owns it from here on.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Returns a descriptor that is readable when a child has exited. Blocks SIGCHLD in this thread.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD) };
    // SAFETY: the set is initialised; the old mask is not requested.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the set is initialised; -1 requests a new descriptor.
    let fd = unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A reaped child.
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

/// Reaps the next child that has exited, of any origin; `None` when there is none now.
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

/// Returns whether `signal` is valid: 1 to the last real-time signal.
pub(crate) fn valid_signal(signal: i32) -> bool {
    (1..=libc::SIGRTMAX()).contains(&signal)
}

/// Signals one process. The caller knows that it was not reaped, so the number is its own.
pub(crate) fn kill_process(pid: i32, signal: i32) -> io::Result<()> {
    send(pid, signal)
}

/// Signals a process group.
pub(crate) fn kill_group(group: i32, signal: i32) -> io::Result<()> {
    send(-group, signal)
}

/// Signals every process in the sandbox but the agent. Fails unless the agent is PID 1: elsewhere
/// it would signal the whole machine.
pub(crate) fn kill_all(signal: i32) -> io::Result<()> {
    if std::process::id() != 1 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    send(-1, signal)
}

fn send(target: i32, signal: i32) -> io::Result<()> {
    // Not by rustix, whose safe calls know no real-time signals and no target of -1.
    // SAFETY: `kill` touches no memory.
    if unsafe { libc::kill(target, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Closes a descriptor. Returns an error that the file system reports only now.
pub(crate) fn close(fd: OwnedFd) -> rustix::io::Result<()> {
    // SAFETY: the descriptor was owned, and its owner is gone. Linux frees the number also when it
    // returns an error.
    match unsafe { libc::close(fd.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Returns how many bytes a pipe holds.
pub(crate) fn bytes_pending(fd: BorrowedFd<'_>) -> u64 {
    rustix::io::ioctl_fionread(fd).unwrap_or(0)
}

/// Returns whether the other end is closed.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut poll = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::empty())];
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut poll, Some(&now)).is_ok()
        && poll.iter().any(|fd| fd.revents().contains(rustix::event::PollFlags::HUP))
}
