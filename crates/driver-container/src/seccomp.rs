//! Which system calls a container may make.
//!
//! The set is the one that container engines have settled on as their default: what ordinary
//! programs need and what the kernel itself confines to the container. Everything else fails as
//! not permitted. Names that an architecture or an older library does not know are skipped by
//! the runtimes.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const EPERM: u32 = 1;

/// The flags of `clone` that make a namespace: mount, cgroup, uts, ipc, user, pid and net.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The address family of sockets that reach the hypervisor, if the host itself is a guest.
const AF_VSOCK: u64 = 40;

/// The personalities that programs ask for: Linux, 32-bit Linux, both with the release number of
/// a 2.6 kernel, and the question which one is in force.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const FILES: &str = "
    access chdir chmod chown chown32 chroot close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat
    fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
    futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch ioctl landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr
    lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
    name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat
    renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64
    statx symlink symlinkat sync sync_file_range sync_file_range2 arm_sync_file_range
    arm_fadvise64_64 syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev cachestat";

const WAITING: &str = "
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit pipe pipe2 poll ppoll ppoll_time64 pselect6
    pselect6_time64 select _newselect signalfd signalfd4 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64";

const SOCKETS: &str = "
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair";

const MEMORY: &str = "
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
    mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
    process_mrelease remap_file_pages";

const PROCESSES: &str = "
    arch_prctl capget capset execve execveat exit exit_group fork vfork futex futex_requeue
    futex_time64 futex_wait futex_waitv futex_wake get_robust_list set_robust_list get_thread_area
    set_thread_area set_tls cacheflush breakpoint getcpu getpgid getpgrp getpid getppid
    getpriority getrlimit ugetrlimit getrusage getsid gettid ioprio_get ioprio_set kill membarrier
    modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv
    process_vm_writev ptrace restart_syscall rseq sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp set_tid_address setpgid setpriority setrlimit setsid tgkill tkill uname
    wait4 waitid waitpid rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack
    sigpending sigprocmask sigreturn sigsuspend signal uretprobe";

const IDENTITY: &str = "
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid
    getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32
    setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setuid setuid32";

const TIME: &str = "
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
    timer_settime timer_settime64 times";

const REST: &str = "
    getrandom ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop
    semtimedop semtimedop_time64 shmat shmctl shmdt shmget sysinfo";

/// The filter for the architecture that this was built for.
pub(crate) fn filter() -> Result<LinuxSeccomp, OciSpecError> {
    let lists = [FILES, WAITING, SOCKETS, MEMORY, PROCESSES, IDENTITY, TIME, REST];
    let names = lists.iter().flat_map(|list| list.split_whitespace()).map(str::to_owned);
    let mut rules = vec![allow(names.collect::<Vec<_>>(), None)?];
    rules.push(allow(vec!["clone".to_owned()], Some(masked_equal(CLONE_NAMESPACES, 0)?))?);
    // A filter cannot look into the structure that clone3 takes, so commands are not to have it. The
    // agent is, which starts them with it, and adds a filter of its own to them that answers that
    // it does not exist: `--forbid-clone3`. Nobody in the container can trace the agent.
    rules.push(allow(vec!["clone3".to_owned()], None)?);
    for personality in PERSONALITIES {
        let is = argument(LinuxSeccompOperator::ScmpCmpEq, personality)?;
        rules.push(allow(vec!["personality".to_owned()], Some(is))?);
    }
    let not_vsock = argument(LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK)?;
    rules.push(allow(vec!["socket".to_owned()], Some(not_vsock))?);
    let architectures = if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures)
        .syscalls(rules)
        .build()
}

fn allow(
    names: Vec<String>,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => rule.args(vec![argument]).build(),
        None => rule.build(),
    }
}

fn argument(operator: LinuxSeccompOperator, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(0_usize).value(value).op(operator).build()
}

fn masked_equal(mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_call_is_named_twice_and_none_that_reaches_the_host_is_allowed() {
        let filter = filter().unwrap();
        let rules = filter.syscalls().as_ref().unwrap();
        let mut seen = HashSet::new();
        for name in rules.iter().filter(|rule| rule.args().is_none()).flat_map(|r| r.names()) {
            assert!(seen.insert(name.as_str()), "{name} is named twice");
        }
        let closed = [
            "mount",
            "umount2",
            "pivot_root",
            "unshare",
            "setns",
            "bpf",
            "perf_event_open",
            "init_module",
            "finit_module",
            "kexec_load",
            "reboot",
            "swapon",
            "keyctl",
            "add_key",
            "open_by_handle_at",
            "userfaultfd",
            "io_uring_setup",
            "clone",
            "socket",
            "acct",
        ];
        for name in closed {
            assert!(!seen.contains(name), "{name} is open");
        }
        assert!(seen.contains("clone3"), "the agent's");
    }
}
