//! The seccomp filters of a jailed program.
//!
//! The first filters fail calls that programs try and can do without; the last one allows a list
//! and kills the process at any other call. The lists were recorded with strace over the driver
//! suite, and are generous within calls that affect only memory, time, threads and descriptors.
//! Missing on purpose: mounts, namespaces, ptrace, other processes' memory, bpf, perf events,
//! userfaultfd, io_uring, keys, modules, open_by_handle_at.

use crate::error::JailError;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The variable that logs a call that is not allowed instead of killing the process.
pub const LOG_VARIABLE: &str = "MSB_JAIL_LOG";

/// The program that a filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A VMM in `msb-runner` itself.
    Vmm,
    /// QEMU.
    Emulator,
    /// virtiofsd.
    FileServer,
    /// The program that unpacks images.
    Unpacker,
}

/// Memory, descriptors, polling, threads, signals, time, and a process's own properties.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_msync,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_copy_file_range,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_umask,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_restart_syscall,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_times,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_prlimit64,
    libc::SYS_getrusage,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_prctl,
    libc::SYS_seccomp,
];

/// Older forms of common calls.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_arch_prctl,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_alarm,
    libc::SYS_pause,
    libc::SYS_time,
    libc::SYS_getpgrp,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Changes of files: a guest's request to a read-only file server has to fail, not to kill it.
const CHANGES: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// Older forms of changes.
#[cfg(target_arch = "x86_64")]
const OLDER_CHANGES: &[i64] = &[
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_symlink,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_creat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CHANGES: &[i64] = &[];

/// Calls with which virtiofsd confines itself and acts as the user of a request.
const SERVER: &[i64] = &[
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

/// Calls that programs try, and the error with which they fail.
const REFUSED: &[(i64, i32)] = &[
    // Its flags are in memory, which a filter cannot read; libraries fall back to `clone`.
    (libc::SYS_clone3, libc::ENOSYS),
    (libc::SYS_io_uring_setup, libc::ENOSYS),
    (libc::SYS_io_setup, libc::ENOSYS),
    // virtiofsd tries it, for migrations.
    (libc::SYS_userfaultfd, libc::ENOSYS),
    (libc::SYS_get_mempolicy, libc::ENOSYS),
    (libc::SYS_set_mempolicy, libc::ENOSYS),
    (libc::SYS_mbind, libc::ENOSYS),
    (libc::SYS_name_to_handle_at, libc::EOPNOTSUPP),
    (libc::SYS_open_by_handle_at, libc::EPERM),
    (libc::SYS_sched_setscheduler, libc::EPERM),
    (libc::SYS_sched_setattr, libc::EPERM),
];

/// Flags of `clone` that create a namespace.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// The compiled filters of a program.
#[derive(Debug)]
pub(crate) struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Compiles the filters. `exec` allows `execve`, for a launcher.
    pub(crate) fn new(program: Program, exec: bool, log: bool) -> Result<Filters, JailError> {
        let failed = |error: seccompiler::BackendError| {
            JailError::of(format!("cannot compile the seccomp filter: {error}"))
        };
        let refusals = refusals().map_err(failed)?;
        let allowed = allowed(program, exec).map_err(failed)?;
        let otherwise = if log { SeccompAction::Log } else { SeccompAction::KillProcess };
        let filter = |rules, mismatch, matched| {
            let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
            let filter = SeccompFilter::new(rules, mismatch, matched, arch).map_err(failed)?;
            BpfProgram::try_from(filter).map_err(failed)
        };
        let mut filters = Vec::new();
        for (rules, errno) in refusals {
            filters.push(filter(rules, SeccompAction::Allow, SeccompAction::Errno(errno))?);
        }
        filters.push(filter(allowed, otherwise, SeccompAction::Allow)?);
        Ok(Filters(filters))
    }

    /// Sets the filters for this thread and its children.
    pub(crate) fn set(&self) -> Result<(), JailError> {
        for filter in &self.0 {
            seccompiler::apply_filter(filter).map_err(|error| {
                JailError::of(format!("cannot set the seccomp filter: {error}"))
            })?;
        }
        Ok(())
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Returns one rule set for each errno, since a filter has one action only.
fn refusals() -> Result<Vec<(Rules, u32)>, seccompiler::BackendError> {
    let mut by_errno: BTreeMap<i32, Rules> = BTreeMap::new();
    for (call, errno) in REFUSED {
        by_errno.entry(*errno).or_default().insert(*call, Vec::new());
    }
    let unix = u64::from(libc::AF_UNIX.cast_unsigned());
    let other_family = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix)?;
    let family = by_errno.entry(libc::EAFNOSUPPORT).or_default();
    family.insert(libc::SYS_socket, vec![SeccompRule::new(vec![other_family])?]);
    Ok(by_errno.into_iter().map(|(errno, rules)| (rules, errno.cast_unsigned())).collect())
}

fn allowed(program: Program, exec: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    let mut add =
        |calls: &[i64]| calls.iter().for_each(|call| drop(rules.insert(*call, Vec::new())));
    add(COMMON);
    add(OLDER);
    REFUSED.iter().for_each(|(call, _)| add(&[*call]));
    match program {
        // libkrun has its file server in the same process.
        Program::Vmm => [CHANGES, OLDER_CHANGES, SERVER].into_iter().for_each(add),
        Program::FileServer => [CHANGES, OLDER_CHANGES, SERVER].into_iter().for_each(add),
        Program::Unpacker => [CHANGES, OLDER_CHANGES].into_iter().for_each(add),
        Program::Emulator => {}
    }
    if exec {
        rules.insert(libc::SYS_execve, Vec::new());
    }
    let word = |value: i32| u64::from(value.cast_unsigned());
    let only = |op, value| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, word(value))?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    // No namespaces.
    let mask = SeccompCmpOp::MaskedEq(word(NAMESPACES));
    rules.insert(libc::SYS_clone, only(mask, 0)?);
    // virtiofsd gives each thread its own working directory.
    if let Some(rule) = rules.get_mut(&libc::SYS_unshare) {
        *rule = only(SeccompCmpOp::Eq, libc::CLONE_FS)?;
    }
    // The parent-death signal cannot be changed.
    rules.insert(libc::SYS_prctl, only(SeccompCmpOp::Ne, libc::PR_SET_PDEATHSIG)?);
    Ok(rules)
}
