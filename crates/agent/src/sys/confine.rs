//! Restricts the commands of a machine, or under gVisor, to the rights of a container's commands.
//!
//! The capabilities are the ten of the container driver. The seccomp filter is a deny list: mounts,
//! namespaces, tracing and reading other processes' memory, BPF and kernel modules, keys, I/O
//! ports, clocks, and the socket families of hypervisors and kernel cryptography fail with `EPERM`,
//! as in a container. clone3(2), whose arguments a filter cannot inspect, and calls of other
//! architectures fail with `ENOSYS`. Stricter than a container: ptrace(2) and process_vm_readv(2)
//! are denied.
//!
//! Under gVisor the list has mounts and namespaces only: in a user namespace of its own a command
//! could mount the cgroups, and leave its own. Its kernel protects itself from the other calls.

use libc::{c_long, sock_filter};
use std::sync::OnceLock;

/// What commands may not do, besides what their user may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// Whatever a container's commands may not do, in a machine.
    Container,
    /// Mount file systems and create namespaces, under gVisor.
    Namespaces,
}

static CONFINEMENT: OnceLock<Confinement> = OnceLock::new();

/// Confines commands from now on. Called once at most.
pub fn confine_commands(confinement: Confinement) {
    // Set once.
    let _ = CONFINEMENT.set(confinement);
}

/// Returns how commands are confined, if they are.
pub(crate) fn confinement() -> Option<Confinement> {
    CONFINEMENT.get().copied()
}

/// Gives this thread the capabilities of commands, permanently. Returns whether it has no others.
pub(crate) fn drop_thread_capabilities() -> bool {
    confinement().is_none() || drop_capabilities() >= 0
}

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE and
/// SYS_CHROOT (linux/capability.h).
const KEPT: u32 =
    1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;

/// Drops every other capability permanently. Async-signal-safe. Returns a negative number and sets
/// errno on failure.
pub(super) fn drop_capabilities() -> c_long {
    /// `struct __user_cap_header_struct` with `_LINUX_CAPABILITY_VERSION_3`, for this process.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `struct __user_cap_data_struct`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    for capability in (0..64).filter(|capability| u64::from(KEPT) & 1 << capability == 0) {
        // SAFETY: touches no memory. The kernel refuses an unknown number.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    // All of them are in the low word.
    let data = [KEPT, 0].map(|set| Data { effective: set, permitted: set, inheritable: 0 });
    // SAFETY: reads the header and two structures, as version 3 defines them; all live.
    unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }
}

/// Installs the filter for this thread and its descendants, and disables privileges from program
/// files. Async-signal-safe. Returns a negative number and sets errno on failure.
pub(super) fn filter(confinement: Confinement) -> c_long {
    const MODE_FILTER: c_long = 1;
    // SAFETY: touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if result < 0 {
        return c_long::from(result);
    }
    // The kernel only reads the program.
    let (steps, len) = match confinement {
        Confinement::Container => (FILTER.as_ptr(), length(LENGTH)),
        Confinement::Namespaces => (NAMESPACE_FILTER.as_ptr(), length(NAMESPACE_LENGTH)),
    };
    let filter = libc::sock_fprog { len, filter: steps.cast_mut() };
    // SAFETY: reads the filter and its steps, which live.
    unsafe { libc::syscall(libc::SYS_seccomp, MODE_FILTER, 0, &raw const filter) }
}

/// The architecture in seccomp (linux/audit.h).
const ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") { 0xc000_00b7 } else { 0xc000_003e };
/// Calls of the x32 ABI have this bit.
const X32_BIT: u32 = 0x4000_0000;
/// The flags of clone(2) that create a namespace: mount, cgroup, uts, ipc, user, pid and net.
const NAMESPACES: u32 = 0x7e02_0000;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;

/// Calls that mount or create namespaces, which are denied with any arguments.
const NAMESPACE_CALLS: &[c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    OPEN_TREE_ATTR,
];

/// Others that are denied with any arguments.
const DENIED: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fanotify_init,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];
/// Not in libc yet; the same on every architecture.
const OPEN_TREE_ATTR: c_long = 467;

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_uselib, libc::SYS_sysfs, libc::SYS_ustat];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[c_long] = &[];

/// Instructions of classic BPF (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`: number, architecture, low half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT: u32 = 16;
const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0000 | libc::EPERM.unsigned_abs();
const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS.unsigned_abs();

const fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of system calls are small and positive"
)]
const fn call(number: c_long) -> u32 {
    number as u32
}

/// The checks of arguments. Ends with the number of the call loaded.
const HEAD: [sock_filter; 28] = [
    step(LOAD, 0, 0, ARCH),
    step(EQUAL, 1, 0, ARCHITECTURE),
    step(RETURN, 0, 0, UNKNOWN),
    step(LOAD, 0, 0, NUMBER),
    step(AT_LEAST, 0, 1, X32_BIT),
    step(RETURN, 0, 0, UNKNOWN),
    step(EQUAL, 0, 1, call(libc::SYS_clone3)),
    step(RETURN, 0, 0, UNKNOWN),
    step(EQUAL, 0, 4, call(libc::SYS_clone)),
    step(LOAD, 0, 0, ARGUMENT),
    step(ANY_BIT, 0, 1, NAMESPACES),
    step(RETURN, 0, 0, DENY),
    step(RETURN, 0, 0, ALLOW),
    step(EQUAL, 0, 5, call(libc::SYS_socket)),
    step(LOAD, 0, 0, ARGUMENT),
    step(EQUAL, 1, 0, AF_ALG),
    step(EQUAL, 0, 1, AF_VSOCK),
    step(RETURN, 0, 0, DENY),
    step(RETURN, 0, 0, ALLOW),
    step(EQUAL, 0, 8, call(libc::SYS_personality)),
    step(LOAD, 0, 0, ARGUMENT),
    // Linux, 32-bit Linux, both with a 2.6 release number, and the query of the current one.
    step(EQUAL, 5, 0, 0x0),
    step(EQUAL, 4, 0, 0x8),
    step(EQUAL, 3, 0, 0x2_0000),
    step(EQUAL, 2, 0, 0x2_0008),
    step(EQUAL, 1, 0, 0xffff_ffff),
    step(RETURN, 0, 0, DENY),
    step(RETURN, 0, 0, ALLOW),
];
const NAMESPACE_LENGTH: usize = HEAD.len() + NAMESPACE_CALLS.len() + 2;
const LENGTH: usize = NAMESPACE_LENGTH + DENIED.len() + DENIED_HERE.len();

static FILTER: [sock_filter; LENGTH] = steps(&[NAMESPACE_CALLS, DENIED, DENIED_HERE]);
static NAMESPACE_FILTER: [sock_filter; NAMESPACE_LENGTH] = steps(&[NAMESPACE_CALLS]);

/// Returns the head, one jump to the last step for each denied call, and the two results.
const fn steps<const N: usize>(denied: &[&[c_long]]) -> [sock_filter; N] {
    let mut steps = [step(RETURN, 0, 0, DENY); N];
    let mut at = 0;
    while at < HEAD.len() {
        steps[at] = HEAD[at];
        at += 1;
    }
    let mut list = 0;
    while list < denied.len() {
        let mut listed = 0;
        while listed < denied[list].len() {
            steps[at] = step(EQUAL, distance(N - 2 - at), 0, call(denied[list][listed]));
            at += 1;
            listed += 1;
        }
        list += 1;
    }
    assert!(at == N - 2, "the length is that of the lists");
    steps[at] = step(RETURN, 0, 0, ALLOW);
    steps
}

#[allow(clippy::cast_possible_truncation, reason = "checked")]
const fn length(steps: usize) -> u16 {
    assert!(steps <= u16::MAX as usize, "a filter has at most 65,535 steps");
    steps as u16
}

#[allow(clippy::cast_possible_truncation, reason = "checked")]
const fn distance(steps: usize) -> u8 {
    assert!(steps <= u8::MAX as usize, "a jump skips at most 255 steps");
    steps as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the result of a filter for a call.
    fn result(filter: &[sock_filter], architecture: u32, number: c_long, argument: u32) -> u32 {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            let taken = match step.code {
                LOAD => {
                    loaded = match step.k {
                        NUMBER => call(number),
                        ARCH => architecture,
                        _ => argument,
                    };
                    continue;
                }
                RETURN => return step.k,
                EQUAL => loaded == step.k,
                AT_LEAST => loaded >= step.k,
                _ => loaded & step.k != 0,
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    #[test]
    fn j1_filter_has_a_result_for_each_call() {
        let result_here = |number, argument| result(&FILTER, ARCHITECTURE, number, argument);
        for number in NAMESPACE_CALLS.iter().chain(DENIED).chain(DENIED_HERE) {
            assert_eq!(result_here(*number, 0), DENY, "{number}");
            let foreign = result(&FILTER, 0x4000_0003, *number, 0);
            assert_eq!(foreign, UNKNOWN, "{number} of i386");
            assert_eq!(result_here(*number | 0x4000_0000, 0), UNKNOWN, "{number} of x32");
        }
        for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_futex] {
            assert_eq!(result_here(number, 0), ALLOW, "{number}");
        }
        assert_eq!(result_here(libc::SYS_clone3, 0), UNKNOWN);
        let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
        assert_eq!(result_here(libc::SYS_clone, thread.unsigned_abs()), ALLOW);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET] {
            assert_eq!(result_here(libc::SYS_clone, flag.unsigned_abs() | 17), DENY);
        }
        for (family, expected) in [(1, ALLOW), (2, ALLOW), (38, DENY), (39, ALLOW), (40, DENY)] {
            assert_eq!(result_here(libc::SYS_socket, family), expected, "family {family}");
        }
        for (personality, expected) in [(0, ALLOW), (u32::MAX, ALLOW), (0x0004_0000, DENY)] {
            assert_eq!(result_here(libc::SYS_personality, personality), expected);
        }
    }

    #[test]
    fn j7_namespace_filter_denies_no_other_call() {
        let result_here =
            |number, argument| result(&NAMESPACE_FILTER, ARCHITECTURE, number, argument);
        for number in NAMESPACE_CALLS {
            assert_eq!(result_here(*number, 0), DENY, "{number}");
        }
        for number in DENIED.iter().chain(DENIED_HERE) {
            assert_eq!(result_here(*number, 0), ALLOW, "{number}");
        }
        let namespace = libc::CLONE_NEWUSER.unsigned_abs() | 17;
        assert_eq!(result_here(libc::SYS_clone, namespace), DENY);
        assert_eq!(result_here(libc::SYS_clone3, 0), UNKNOWN);
    }

    #[test]
    fn j1_kernel_accepts_filter_and_capabilities() {
        // In a thread, since both apply to one.
        let thread = std::thread::spawn(|| {
            if rustix::process::geteuid().is_root() {
                assert_eq!(drop_capabilities(), 0);
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                for name in ["CapPrm", "CapEff", "CapBnd"] {
                    let set = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                    let set = u64::from_str_radix(set.trim_start_matches(':').trim(), 16).unwrap();
                    assert_eq!(set & !u64::from(KEPT), 0, "{name} {set:x}");
                }
            }
            assert_eq!(filter(Confinement::Container), 0);
            // SAFETY: touches no memory, and is denied.
            let result = unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUTS) };
            assert_eq!((result, last_errno()), (-1, libc::EPERM));
            // SAFETY: touches no memory, and is denied.
            let result = unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
            assert_eq!((result, last_errno()), (-1, libc::ENOSYS));
            // SAFETY: touches no memory, and is denied.
            let result = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) };
            assert_eq!((result, last_errno()), (-1, libc::EPERM));
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
        });
        thread.join().unwrap();
    }

    fn last_errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }
}
