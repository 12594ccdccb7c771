//! The seccomp filter of a container.
//!
//! The profile is that of other container engines, as data (`seccomp/README.md`), for the
//! capabilities that a container has here. Some calls that it allows are denied: those for
//! namespaces, mounts and keys, sockets outside of the container's network, and asynchronous I/O,
//! whose contexts are counted per host. Runtimes skip names that their architecture or library
//! does not know.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;
use std::collections::HashSet;

/// The profile.
const PROFILE: &str = include_str!("../seccomp/profile.json");

const EPERM: u32 = 1;
const EINVAL: u32 = 22;
const ENOSYS: u32 = 38;

/// Flags of `clone` that create a namespace: mount, cgroup, uts, ipc, user, pid and net.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Denied regardless of the profile.
const DENIED: [&str; 22] = [
    "add_key",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "keyctl",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pidfd_getfd",
    "pivot_root",
    "reboot",
    "request_key",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// Fail with `ENOSYS`, so that programs fall back.
///
/// `socketcall` is the multiplexer of 32-bit x86, whose arguments no filter can see. libseccomp
/// would allow it for every socket call; only a rule of its own denies it, and only with another
/// errno than the default, since runtimes drop a rule that changes nothing.
const NOT_IMPLEMENTED: [&str; 3] = ["io_setup", "io_uring_setup", "socketcall"];

/// Calls that the rules below replace.
const OWN: [&str; 3] = ["clone", "clone3", "socket"];

/// Allowed socket families as mask and value of the lower 32 bits, the only ones that the kernel
/// reads: below 64 without netlink (16), AF_ALG (38) and AF_VSOCK (40), which reaches the
/// hypervisor if the host itself is a guest.
const FAMILIES: [(u64, u64); 12] = [
    (0xffff_fff0, 0),
    (0xffff_ffff, 17),
    (0xffff_fffe, 18),
    (0xffff_fffc, 20),
    (0xffff_fff8, 24),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
    (0xffff_fff0, 48),
];
const NETLINK: u64 = 16;
/// Allowed netlink protocols likewise: below 32 without audit (9).
const NETLINK_PROTOCOLS: [(u64, u64); 5] =
    [(0xffff_fff8, 0), (0xffff_ffff, 8), (0xffff_fffe, 10), (0xffff_fffc, 12), (0xffff_fff0, 16)];
const NETLINK_AUDIT: u64 = 9;
const LOWER_HALF: u64 = 0xffff_ffff;

/// The format of the profile.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// What the profile's conditions are evaluated for.
#[derive(Debug)]
struct Subject {
    capabilities: HashSet<String>,
    architecture: &'static str,
    kernel: (u32, u32),
}

impl Subject {
    fn new(capabilities: &[Capability]) -> Subject {
        Subject {
            capabilities: capabilities.iter().map(|one| format!("CAP_{one}")).collect(),
            architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            kernel: kernel().unwrap_or_default(),
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        let newer = |text: &String| version(text).is_some_and(|least| self.kernel >= least);
        let arch = |arch: &String| arch == self.architecture;
        let Condition { caps, arches, min_kernel } = &rule.includes;
        let included = caps.iter().all(|cap| self.capabilities.contains(cap))
            && (arches.is_empty() || arches.iter().any(arch))
            && min_kernel.as_ref().is_none_or(newer);
        let Condition { caps, arches, min_kernel } = &rule.excludes;
        let excluded = caps.iter().any(|cap| self.capabilities.contains(cap))
            || arches.iter().any(arch)
            || min_kernel.as_ref().is_some_and(newer);
        included && !excluded
    }
}

/// Returns the version of the running kernel.
pub(crate) fn kernel() -> Option<(u32, u32)> {
    version(&rustix::system::uname().release().to_string_lossy())
}

/// Parses the first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Returns the filter for the build's architecture.
pub(crate) fn filter(capabilities: &[Capability]) -> Result<LinuxSeccomp, OciSpecError> {
    let profile: Profile = serde_json::from_str(PROFILE)
        .map_err(|error| OciSpecError::Other(format!("seccomp profile: {error}")))?;
    let mut rules = own_rules()?;
    rules.extend(profile_rules(&profile, &Subject::new(capabilities))?);
    let architectures = if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    };
    LinuxSeccompBuilder::default()
        // Not the profile's ENOSYS, which needs a rule for each call that is EPERM: each rule costs
        // time at every start. Runtimes answer ENOSYS for calls newer than the profile.
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures)
        .syscalls(rules)
        .build()
}

/// Returns the profile's rules for a container, without the calls that are handled here.
fn profile_rules(profile: &Profile, subject: &Subject) -> Result<Vec<LinuxSyscall>, OciSpecError> {
    let own: HashSet<&str> = DENIED.into_iter().chain(NOT_IMPLEMENTED).chain(OWN).collect();
    let mut seen = HashSet::new();
    let mut rules = Vec::new();
    for rule in profile.syscalls.iter().filter(|rule| subject.has(rule)) {
        let arguments = rule.args.as_deref().unwrap_or_default();
        let is_new = |name: &&String| {
            // Of two rules for a call without arguments, the first one counts.
            !own.contains(name.as_str())
                && (!arguments.is_empty() || seen.insert(String::clone(name)))
        };
        let names: Vec<String> = rule.names.iter().filter(is_new).cloned().collect();
        let is_default =
            rule.action == LinuxSeccompAction::ScmpActErrno && rule.errno_ret == Some(EPERM);
        if names.is_empty() || is_default {
            continue;
        }
        let arguments = arguments.iter().map(|Argument { index, value, value_two, op }| {
            LinuxSeccompArgBuilder::default()
                .index(*index)
                .value(*value)
                .value_two(*value_two)
                .op(*op)
                .build()
        });
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        rules.push(build(names, rule.action, rule.errno_ret, arguments)?);
    }
    Ok(rules)
}

fn own_rules() -> Result<Vec<LinuxSyscall>, OciSpecError> {
    let mut rules = vec![refuse(&NOT_IMPLEMENTED, ENOSYS, Vec::new())?];
    rules.push(allow("clone", vec![masked_equal(0, CLONE_NAMESPACES, 0)?])?);
    // A filter cannot read the structure that clone3 takes, so commands must not call it. The agent
    // may, to start them, and sets a second filter for them that answers ENOSYS: `--forbid-clone3`.
    // Nothing in the container can trace the agent.
    rules.push(allow("clone3", Vec::new())?);
    for (mask, family) in FAMILIES {
        rules.push(allow("socket", vec![masked_equal(0, mask, family)?])?);
    }
    let netlink = || masked_equal(0, LOWER_HALF, NETLINK);
    for (mask, protocol) in NETLINK_PROTOCOLS {
        rules.push(allow("socket", vec![netlink()?, masked_equal(2, mask, protocol)?])?);
    }
    let audit = vec![netlink()?, masked_equal(2, LOWER_HALF, NETLINK_AUDIT)?];
    rules.push(refuse(&["socket"], EINVAL, audit)?);
    Ok(rules)
}

fn allow(name: &str, arguments: Vec<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    build(vec![name.to_owned()], LinuxSeccompAction::ScmpActAllow, None, arguments)
}

fn refuse(
    names: &[&str],
    errno: u32,
    arguments: Vec<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    build(names, LinuxSeccompAction::ScmpActErrno, Some(errno), arguments)
}

fn build(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    arguments: Vec<LinuxSeccompArg>,
) -> Result<LinuxSyscall, OciSpecError> {
    let mut rule = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        rule = rule.errno_ret(errno);
    }
    if !arguments.is_empty() {
        rule = rule.args(arguments);
    }
    rule.build()
}

fn masked_equal(index: usize, mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(mask)
        .value_two(value)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the calls that are allowed with any arguments.
    fn open(filter: &LinuxSeccomp) -> HashSet<String> {
        let rules = filter.syscalls().as_ref().unwrap().iter();
        let rules = rules.filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow);
        let rules = rules.filter(|rule| rule.args().as_ref().is_none_or(Vec::is_empty));
        rules.flat_map(|rule| rule.names().iter().cloned()).collect()
    }

    #[test]
    fn j3_calls_that_reach_the_host_are_denied() {
        let open = open(&filter(&[Capability::SysChroot]).unwrap());
        let closed = "mount umount2 pivot_root unshare setns bpf perf_event_open init_module \
            finit_module kexec_load reboot swapon keyctl add_key request_key open_by_handle_at \
            userfaultfd io_uring_setup io_setup clone socket socketcall acct syslog fsopen \
            open_tree move_mount mount_setattr pidfd_getfd process_madvise kcmp";
        for name in closed.split_whitespace() {
            assert!(!open.contains(name), "{name} is allowed");
        }
        for name in ["clone3", "read", "execve", "chroot", "ptrace", "openat2", "bind"] {
            assert!(open.contains(name), "{name} is denied");
        }
    }

    #[test]
    fn j3_conditions_of_the_profile_apply() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["z"],"action":"SCMP_ACT_ERRNO","errnoRet":1},
            {"names":["a"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_CHROOT"]}},
            {"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["c"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_CHROOT"]}},
            {"names":["d"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["e"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"6.0"}},
            {"names":["f"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["amd64"]}},
            {"names":["g"],"action":"SCMP_ACT_ALLOW","excludes":{"arches":["amd64"]}},
            {"names":["a", "io_setup", "z"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let profile: Profile = serde_json::from_str(text).unwrap();
        let subject = Subject {
            capabilities: ["CAP_SYS_CHROOT".to_owned()].into(),
            architecture: "amd64",
            kernel: version("5.10.0-8-amd64").unwrap(),
        };
        let rules = profile_rules(&profile, &subject).unwrap();
        let names: Vec<_> = rules.iter().flat_map(|rule| rule.names()).collect();
        assert_eq!(names, ["a", "d", "f"]);
    }

    #[test]
    fn j3_capability_names_match_the_profile() {
        let subject = Subject::new(&[Capability::SysChroot, Capability::NetBindService]);
        for name in ["CAP_SYS_CHROOT", "CAP_NET_BIND_SERVICE"] {
            assert!(subject.capabilities.contains(name), "{subject:?}");
        }
        assert!(subject.kernel > (3, 0));
    }

    #[test]
    fn j3_every_family_but_two_is_allowed_once() {
        let allowing = |family: u64| {
            FAMILIES.iter().filter(|(mask, value)| family & LOWER_HALF & mask == *value).count()
        };
        for family in 0..64 {
            let expected = usize::from(![NETLINK, 38, 40].contains(&family));
            assert_eq!(allowing(family), expected, "{family}");
            // The kernel ignores the upper half.
            assert_eq!(allowing(family | 1 << 32), expected, "{family}");
        }
        assert_eq!(allowing(64), 0);
    }
}
