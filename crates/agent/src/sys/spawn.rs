//! Creates a process from a plan.
//!
//! Everything that allocates, looks up or blocks happens before the fork. Between fork and exec
//! only async-signal-safe calls happen (signal-safety(7)), and raw ones where libc's wrapper would
//! synchronise with threads that the child does not have (setuid and its kin, nptl(7)).

use super::confine;
use super::machine;
use super::process::forbids_clone3;
use msb_wire::{Rlimit, Stage};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// Everything that the child needs, ready for use.
pub(crate) struct Plan<'a> {
    pub(crate) candidates: Vec<CString>,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// What become descriptors 0, 1 and 2. All above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether descriptor 0 becomes the controlling terminal.
    pub(crate) terminal: bool,
    /// The directory of the cgroup for the process.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether the process sees no other cgroup.
    pub(crate) own_cgroup_namespace: bool,
}

/// What the child writes when a step fails. It writes nothing when the program runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
    /// Whether one of the candidates exists, for the user and in the directory of the command. The
    /// child checks it, since a file system of the guest may never answer.
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

    /// Parses the content of the pipe; `None` when it is empty.
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

/// Forks. Returns the child's process id and the pipe that gets a [`Report`], or end of file once
/// the program runs. Waits for nothing.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<(i32, OwnedFd), (Stage, i32)> {
    let (report_read, report_write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| (Stage::Pipe, error.raw_os_error()))?;
    rustix::fs::fcntl_setfl(&report_read, rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| (Stage::Pipe, error.raw_os_error()))?;
    let argv = pointers(&plan.argv);
    let env = pointers(&plan.env);
    // The child runs only `child`, with async-signal-safe calls, and never returns.
    let (pid, is_in_cgroup) = fork_into(plan.cgroup);
    match pid {
        -1 => Err((Stage::Fork, last_errno())),
        0 => {
            let (report, pipe) = child(plan, &argv, &env, is_in_cgroup, report_write.as_raw_fd());
            let bytes = report.to_bytes();
            // SAFETY: writes from live storage; an empty pipe accepts so few bytes at once.
            unsafe { libc::write(pipe, bytes.as_ptr().cast(), bytes.len()) };
            // SAFETY: ends the child at once, without exit handlers of the parent.
            unsafe { libc::_exit(127) }
        }
        pid => Ok((pid, report_read)),
    }
}

/// Forks. Returns the process id as fork(2) does, and whether the child starts in the cgroup.
///
/// Joining later by `cgroup.procs` takes a global lock that waits for the kernel's RCU: up to 10
/// ms.
fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> (i32, bool) {
    if let Some(cgroup) = cgroup {
        match clone_into(cgroup) {
            // Unrelated to the cgroup: fork would fail as well.
            -1 if matches!(last_errno(), libc::EAGAIN | libc::ENOMEM) => return (-1, false),
            // Linux before 5.7, or a seccomp filter without this call.
            -1 => {}
            pid => return (pid, true),
        }
    }
    // SAFETY: touches no memory of the caller; see the module for what the child may do.
    (unsafe { libc::fork() }, false)
}

/// Forks by clone3(2), with the child in a cgroup from the start.
fn clone_into(cgroup: BorrowedFd<'_>) -> i32 {
    /// `struct clone_args` of Linux 5.7.
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
    // SAFETY: reads `args` with its size; without CLONE_VM the child has a copy of this stack, as
    // after a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    i32::try_from(pid).unwrap_or(-1)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs in the child. Returns only on failure, with the report and the descriptor to write it to.
fn child(
    plan: &Plan<'_>,
    argv: &[*const c_char],
    env: &[*const c_char],
    is_in_cgroup: bool,
    report: RawFd,
) -> (Report, RawFd) {
    if let (Some(cgroup), false) = (plan.cgroup, is_in_cgroup) {
        join(cgroup.as_raw_fd());
    }
    let streams = set_streams(plan);
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

fn set_streams(plan: &Plan<'_>) -> Result<(), Report> {
    for (target, source) in (0..).zip(plan.stdio) {
        // SAFETY: touches no memory. The sources are above 2, so none is overwritten, and the
        // copies lose the close-on-exec flag.
        check(Stage::Pipe, unsafe { libc::dup2(source.as_raw_fd(), target) }.into())?;
    }
    Ok(())
}

/// Closes every descriptor but the streams and the one for the report, and returns the latter. A
/// child that an unresponsive file system blocks would otherwise keep pipes and connections of
/// other sessions open.
fn keep_only(report: RawFd) -> RawFd {
    const KEPT: RawFd = 3;
    // SAFETY: touches no memory. The old descriptor 3 is the agent's and close-on-exec.
    if report != KEPT && unsafe { libc::dup3(report, KEPT, libc::O_CLOEXEC) } < 0 {
        return report;
    }
    // SAFETY: touches no memory. Fails before Linux 5.9; the exec then closes them.
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
        // SAFETY: reads `value`, which lives; the old limit is not requested.
        let result =
            unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const value, none) };
        check(Stage::Rlimit, result)?;
    }
    if machine::is_raised() {
        // SAFETY: touches no memory. Lowering it is always allowed.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
    }
    if plan.own_cgroup_namespace {
        // A cgroup mount of the command then shows only its own cgroup, which it cannot leave.
        // Fails on kernels without such namespaces. SAFETY: touches no memory.
        unsafe { libc::unshare(libc::CLONE_NEWCGROUP) };
    }
    let confinement = confine::confinement();
    if confinement.is_some() {
        // Before the change of user: only root may reduce the bounding set.
        check(Stage::Setuid, confine::drop_capabilities())?;
    }
    become_user(plan)?;
    // After the change of user, who must have access to the directory.
    // SAFETY: the path is NUL-terminated and lives.
    check(Stage::Chdir, unsafe { libc::chdir(plan.cwd.as_ptr()) }.into())?;
    if let Some(confinement) = confinement {
        check(Stage::Execve, confine::filter(confinement))?;
    }
    if forbids_clone3() {
        filter_clone3()?;
    }
    Ok(())
}

/// Makes clone3(2) fail with `ENOSYS` for this process and its descendants: C libraries then use
/// clone(2). Needs `no_new_privs` or CAP_SYS_ADMIN.
fn filter_clone3() -> Result<(), Report> {
    /// Its number on every architecture, also 32-bit ones; x32 sets an extra bit.
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

/// Resets every signal to its default and unblocks all: the agent ignores and blocks some.
fn reset_signals() {
    // Raw calls, since libc reserves two signals. All zeros is the default action, no flags and an
    // empty mask, in the kernel's structure.
    let default = [0u64; 4];
    for signal in 1..=64 {
        let nothing = ptr::null_mut::<u64>();
        // SAFETY: reads `default`, which is as long as the structure; the old action is not
        // requested. The kernel refuses numbers that cannot be set.
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

/// Joins a cgroup. Ignores a failure: a kill then reaches fewer processes.
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
    // SAFETY: reads as many numbers as the length says, from a live vector.
    let result =
        unsafe { libc::syscall(libc::SYS_setgroups, plan.groups.len(), plan.groups.as_ptr()) };
    // In a user namespace that maps one id, setgroups is forbidden (user_namespaces(7)), and not
    // needed without a change of user.
    if result < 0 && !(last_errno() == libc::EPERM && current.0 == current.1) {
        return check(Stage::Setgroups, result);
    }
    let (gid, uid) = (plan.gid, plan.uid);
    // SAFETY: touches no memory.
    check(Stage::Setgid, unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: touches no memory.
    check(Stage::Setuid, unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

/// Returns whether a candidate exists: then its interpreter is missing.
fn any_exists(plan: &Plan<'_>) -> bool {
    plan.candidates.iter().any(|path| {
        // SAFETY: the path is NUL-terminated and lives.
        unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
    })
}

/// Returns whether the arguments may be beyond a limit, which gVisor reports by the errno for paths.
fn has_long_arguments(plan: &Plan<'_>) -> bool {
    /// The limit on a single one, and less than the limit on all (execve(2)).
    const LONG: usize = 128 << 10;
    plan.argv.iter().chain(&plan.env).map(|text| text.count_bytes() + 1).sum::<usize>() > LONG
}

/// Executes the first possible candidate, as execvp does. Returns the errno to report.
fn execute(plan: &Plan<'_>, argv: &[*const c_char], env: &[*const c_char]) -> i32 {
    let (mut result, mut denied) = (libc::ENOENT, false);
    for path in &plan.candidates {
        // SAFETY: the path is NUL-terminated, both lists are NULL-terminated, and all of it lives.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
        result = last_errno();
        if result == libc::ENAMETOOLONG && has_long_arguments(plan) {
            return libc::E2BIG;
        }
        match result {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return result,
        }
    }
    if denied { libc::EACCES } else { result }
}
