//! From a finished plan to a running program.
//!
//! Everything that allocates, looks up or can wait happens before the fork; between fork and exec
//! there are only async-signal-safe calls (signal-safety(7)), and raw ones where libc's wrapper
//! would synchronise with threads that the child does not have (setuid and its kin, nptl(7)).

use super::confine::{self, restricts_commands};
use super::machine;
use super::process::forbids_clone3;
use msb_wire::{Rlimit, Stage};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// All that the child needs, ready for use.
pub(crate) struct Plan<'a> {
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// What become 0, 1 and 2. All above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether 0 is a terminal to take as the controlling one.
    pub(crate) terminal: bool,
    /// The directory of the cgroup to run in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is to see no cgroup but this one.
    pub(crate) own_cgroup_namespace: bool,
}

/// What the child writes when a step fails; nothing when the program runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
    /// Whether one of the candidates exists, for the user and from the directory of the command. The
    /// child looks, since a file system of the guest may never answer.
    pub(crate) exists: bool,
}

impl Report {
    /// Length of a report in the pipe.
    pub(crate) const LEN: usize = 12;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let [s0, s1, s2, s3] = (self.stage as u32).to_ne_bytes();
        let [e0, e1, e2, e3] = self.errno.to_ne_bytes();
        [s0, s1, s2, s3, e0, e1, e2, e3, u8::from(self.exists), 0, 0, 0]
    }

    /// Reads what came through the pipe; `None` when it ended empty.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Report> {
        let (stage, rest) = bytes.split_at_checked(4)?;
        let (errno, rest) = rest.split_at_checked(4)?;
        let stage = u32::from_ne_bytes(stage.try_into().ok()?);
        let errno = i32::from_ne_bytes(errno.try_into().ok()?);
        let exists = rest.first().is_some_and(|exists| *exists != 0);
        let known = [
            Stage::Pipe,
            Stage::Setsid,
            Stage::Chdir,
            Stage::Rlimit,
            Stage::Setgroups,
            Stage::Setgid,
            Stage::Setuid,
            Stage::Execve,
        ];
        let stage = known.into_iter().find(|known| *known as u32 == stage)?;
        Some(Report { stage, errno, exists })
    }
}

/// Forks. On success, the child's process id and the pipe through which a [`Report`] comes, or
/// nothing once the program runs. Waits for nothing.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<(i32, OwnedFd), (Stage, i32)> {
    let (report_read, report_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| (Stage::Pipe, error.raw_os_error()))?;
    rustix::fs::fcntl_setfl(&report_read, rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| (Stage::Pipe, error.raw_os_error()))?;
    let argv = pointers(&plan.argv);
    let env = pointers(&plan.env);
    // The child runs only `child`, which keeps to async-signal-safe calls and never returns.
    let (pid, is_inside) = fork_into(plan.cgroup);
    match pid {
        -1 => Err((Stage::Fork, last_errno())),
        0 => {
            let (report, pipe) = child(plan, &argv, &env, is_inside, report_write.as_raw_fd());
            let bytes = report.to_bytes();
            // SAFETY: writes from live storage; so few bytes into an empty pipe are written whole.
            unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
            // SAFETY: ends the child at once, without running anything of the parent's.
            unsafe { libc::_exit(127) }
        }
        pid => Ok((pid, report_read)),
    }
}

/// As fork(2), and whether the child begins in the cgroup.
///
/// To join one later, by writing to its `cgroup.procs`, takes a lock over all processes of the system,
/// which waits for the kernel's RCU: 10 ms, unless somebody had it a moment ago.
fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> (i32, bool) {
    if let Some(cgroup) = cgroup {
        match clone_into(cgroup) {
            // Not because of the cgroup: a fork would fail as well.
            -1 if matches!(last_errno(), libc::EAGAIN | libc::ENOMEM) => return (-1, false),
            // A kernel before 5.7, or a filter that does not know the call.
            -1 => {}
            pid => return (pid, true),
        }
    }
    // SAFETY: touches no memory of the caller's; what the child may do is said there.
    (unsafe { libc::fork() }, false)
}

/// clone3(2) as a fork whose child is in a cgroup from its first moment.
fn clone_into(cgroup: BorrowedFd<'_>) -> i32 {
    /// `struct clone_args` of Linux 5.7, as far as it is used.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let number = |value: i32| u64::from(value.unsigned_abs());
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: number(libc::SIGCHLD),
        cgroup: number(cgroup.as_raw_fd()),
        ..CloneArgs::default()
    };
    // SAFETY: reads `args`, whose size it is told; without CLONE_VM the child has a copy of this
    // stack, as after a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    i32::try_from(pid).unwrap_or(-1)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs in the child. Returns only what went wrong, and the descriptor to report it through.
fn child(
    plan: &Plan<'_>,
    argv: &[*const c_char],
    env: &[*const c_char],
    is_inside: bool,
    report: RawFd,
) -> (Report, RawFd) {
    if let (Some(cgroup), false) = (plan.cgroup, is_inside) {
        join(cgroup.as_raw_fd());
    }
    let streams = take_streams(plan);
    let report = keep_only(report);
    match streams.and_then(|()| prepare(plan)) {
        Ok(()) => {
            let errno = execute(plan, argv, env);
            let exists = errno == libc::ENOENT && any_exists(plan);
            (Report { stage: Stage::Execve, errno, exists }, report)
        }
        Err(failed) => (failed, report),
    }
}

fn check(stage: Stage, result: libc::c_long) -> Result<(), Report> {
    if result < 0 { Err(Report { stage, errno: last_errno(), exists: false }) } else { Ok(()) }
}

fn take_streams(plan: &Plan<'_>) -> Result<(), Report> {
    for (target, source) in (0..).zip(plan.stdio) {
        // SAFETY: touches no memory. The sources are above 2, so none is overwritten, and the
        // copies lose the close-on-exec flag.
        check(Stage::Pipe, unsafe { libc::dup2(source.as_raw_fd(), target) }.into())?;
    }
    Ok(())
}

/// Closes every descriptor but the streams and the one for the report, and returns the latter. A
/// command whose directory or program is on a file system that does not answer stays here, and with
/// the agent's descriptors it would keep other sessions' pipes and the connections open.
fn keep_only(report: RawFd) -> RawFd {
    const KEPT: RawFd = 3;
    // SAFETY: touches no memory. What 3 was is the agent's, and close-on-exec anyway.
    if report != KEPT && unsafe { libc::dup3(report, KEPT, libc::O_CLOEXEC) } < 0 {
        return report;
    }
    // SAFETY: touches no memory. Refused before Linux 5.9; then the exec closes them.
    unsafe { libc::syscall(libc::SYS_close_range, KEPT + 1, u32::MAX, 0) };
    KEPT
}

fn prepare(plan: &Plan<'_>) -> Result<(), Report> {
    reset_signals();
    // SAFETY: touches no memory.
    check(Stage::Setsid, unsafe { libc::setsid() }.into())?;
    if plan.terminal {
        // SAFETY: TIOCSCTTY takes a number and touches no memory.
        check(Stage::Setsid, unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into())?;
    }
    for limit in &plan.rlimits {
        let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
        let none = ptr::null_mut::<libc::rlimit64>();
        let resource = libc::c_long::from(limit.resource);
        // SAFETY: reads `value`, which lives; the old limit is not asked for.
        let result =
            unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const value, none) };
        check(Stage::Rlimit, result)?;
    }
    if machine::is_raised() {
        // SAFETY: touches no memory. To lower it is always allowed.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
    }
    if plan.own_cgroup_namespace {
        // A mount of cgroups that the command makes shows none but its own: it cannot leave it.
        // Refused where the kernel has no such namespaces.
        // SAFETY: touches no memory.
        unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    }
    if restricts_commands() {
        // Before the change of user: only root may limit what later programs get.
        check(Stage::Setuid, confine::drop_capabilities())?;
    }
    become_user(plan)?;
    // After the change of user: it is the user who has to be able to be there.
    // SAFETY: the path is NUL-terminated and lives.
    check(Stage::Chdir, unsafe { libc::chdir(plan.cwd.as_ptr()) }.into())?;
    if restricts_commands() {
        check(Stage::Execve, confine::filter())?;
    }
    if forbids_clone3() {
        filter_clone3()?;
    }
    Ok(())
}

/// Has clone3(2) answered as unknown (`ENOSYS`), for this process and all that come of it: C
/// libraries then go back to clone(2). Needs `no_new_privs`, or the right to administer the system.
fn filter_clone3() -> Result<(), Report> {
    /// Its number on every architecture, 32-bit ones as well; x32 sets a bit of its own.
    const CLONE3: u32 = 435;
    const X32_BIT: u32 = 0x4000_0000;
    const ENOSYS: u32 = 38;
    const RET_ERRNO: u32 = 0x0005_0000;
    const RET_ALLOW: u32 = 0x7fff_0000;
    const MODE_FILTER: libc::c_long = 1;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(0x20, 0, 0),        // load the number
        step(0x54, 0, !X32_BIT), // without that bit
        step(0x15, 1, CLONE3),   // unless it is this one, skip the next
        step(0x06, 0, RET_ERRNO | ENOSYS),
        step(0x06, 0, RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 5, filter: steps.as_mut_ptr() };
    // SAFETY: reads the filter and its five steps, which live.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, MODE_FILTER, 0, &raw const filter) };
    check(Stage::Execve, result)
}

/// Puts every signal back to its default and unblocks all: the agent ignores and blocks some.
fn reset_signals() {
    // Raw calls, since libc's keep two signals for themselves. All zeros is the default action, no
    // flags and an empty mask, in the kernel's form of the structure.
    let default = [0u64; 4];
    for signal in 1..=64 {
        let nothing = ptr::null_mut::<u64>();
        // SAFETY: reads `default`, which is as long as the structure; the old action is not asked
        // for; numbers that cannot be set are refused and left alone.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, 8usize) };
    }
    let empty = 0u64;
    // SAFETY: reads eight bytes from `empty`, the size of the kernel's set.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, 0usize, 8usize)
    };
    // SAFETY: touches no memory.
    unsafe { libc::umask(0o022) };
}

/// Joins a cgroup. A refusal only means that a kill reaches less, so it does not stop the program.
fn join(cgroup: RawFd) {
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated and static.
    let procs = unsafe { libc::openat(cgroup, c"cgroup.procs".as_ptr(), flags) };
    // SAFETY: writes one byte from a static. The descriptor is closed by the exec.
    unsafe { libc::write(procs, b"0".as_ptr().cast(), 1) };
}

fn become_user(plan: &Plan<'_>) -> Result<(), Report> {
    // SAFETY: touches no memory.
    let current = (unsafe { libc::geteuid() }, plan.uid);
    // SAFETY: reads as many numbers as it is told, from a live vector.
    let result =
        unsafe { libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr()) };
    // In a user namespace that maps one id, setgroups is forbidden (user_namespaces(7)); whoever
    // stays who they are loses nothing by it.
    if result < 0 && !(last_errno() == libc::EPERM && current.0 == current.1) {
        return check(Stage::Setgroups, result);
    }
    let (gid, uid) = (plan.gid, plan.uid);
    // SAFETY: touches no memory.
    check(Stage::Setgid, unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: touches no memory.
    check(Stage::Setuid, unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Whether a file is there: then it names an interpreter that is not.
fn any_exists(plan: &Plan<'_>) -> bool {
    plan.candidates.iter().any(|path| {
        // SAFETY: the path is NUL-terminated and lives.
        unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
    })
}

/// Tries each candidate as execvp would, and returns the errno to report.
fn execute(plan: &Plan<'_>, argv: &[*const c_char], env: &[*const c_char]) -> i32 {
    let (mut result, mut denied) = (libc::ENOENT, false);
    for path in &plan.candidates {
        // SAFETY: the path is NUL-terminated, both lists are NULL-terminated, and all of it lives.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        result = last_errno();
        match result {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return result,
        }
    }
    if denied { libc::EACCES } else { result }
}
