//! The container's configuration, in the runtimes' common format.

use crate::seccomp;
use crate::stage::Stage;
use msb_driver::{Failure, SandboxConfig, Users};
use msb_jail::IDS_PER_SLOT;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxDeviceCgroupBuilder, LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Where the agent is inside.
pub(crate) const AGENT: &str = "/.msb/agent";

/// How many processes and threads a container may have, so that one cannot exhaust the host's.
const PIDS_LIMIT: i64 = 4096;
/// The period over which processor time is shared out, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Least processor time in a period, in microseconds.
const MIN_QUOTA: u64 = 1000;

/// What a container may do beyond an ordinary user: the set that container engines have settled
/// on. The kernel confines each of them to the container.
const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Files of the kernel that tell about the host; they are hidden.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of the kernel that would change the host; they cannot be written.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container is made from.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) config: &'a SandboxConfig,
    pub(crate) users: Users,
    pub(crate) rootfs: &'a Path,
    pub(crate) agent: &'a Path,
    pub(crate) args: Vec<String>,
    /// The file to show as `/etc/hosts`, where the root has none that could be written.
    pub(crate) hosts: Option<PathBuf>,
    /// The absolute path of its control groups.
    pub(crate) cgroup: Option<String>,
}

impl Container<'_> {
    pub(crate) fn spec(&self) -> Result<Spec, Failure> {
        self.refuse_what_cannot_be_had()?;
        self.build()
            .map_err(|error| Failure::boot(format!("cannot describe the container: {error}")))
    }

    fn refuse_what_cannot_be_had(&self) -> Result<(), Failure> {
        if self.config.network {
            return Err(Failure::invalid_config(
                "driver container cannot give a sandbox network access yet",
            )
            .hint("leave network off"));
        }
        let limited = self.config.cpus.is_some() || self.config.memory_mib.is_some();
        if limited && self.cgroup.is_none() {
            return Err(Failure::invalid_config(
                "cpus and memory cannot be limited by driver container without control groups, \
                 which an ordinary user does not have",
            )
            .hint("leave cpus and memory out, or run as root"));
        }
        Ok(())
    }

    fn build(&self) -> Result<Spec, OciSpecError> {
        let hostname = self.config.hostname.clone();
        // A host name has at most 64 bytes, a sandbox's name may have more.
        let hostname =
            hostname.unwrap_or_else(|| self.config.name.as_str().chars().take(64).collect());
        SpecBuilder::default()
            .version("1.0.2")
            .hostname(hostname)
            .root(RootBuilder::default().path(self.rootfs).readonly(false).build()?)
            .process(self.process()?)
            .mounts(self.mounts()?)
            .linux(self.linux()?)
            .build()
    }

    fn process(&self) -> Result<Process, OciSpecError> {
        let capabilities: HashSet<_> = CAPABILITIES.into_iter().collect();
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(capabilities.clone())
            .effective(capabilities.clone())
            .permitted(capabilities)
            .inheritable(HashSet::new())
            .ambient(HashSet::new())
            .build()?;
        let mut process = ProcessBuilder::default()
            .terminal(false)
            .user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?)
            .cwd("/")
            .args(self.args.clone())
            .env(Vec::<String>::new())
            .capabilities(capabilities)
            .no_new_privileges(true)
            .build()?;
        // The default limits the number of open files to 1024; the agent needs the runner's own.
        process.set_rlimits(None);
        Ok(process)
    }

    fn mounts(&self) -> Result<Vec<Mount>, OciSpecError> {
        let terminals: &[&str] = match self.users {
            // The group that owns terminals, by old custom 5, has to exist.
            Users::Host | Users::Mapped(_) | Users::Range => {
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
            }
            Users::RootOnly => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        };
        let closed = ["nosuid", "noexec", "nodev"];
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &closed)?,
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
            mount("/dev/pts", "devpts", "devpts", terminals)?,
            mount(
                "/dev/shm",
                "tmpfs",
                "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            )?,
            mount("/dev/mqueue", "mqueue", "mqueue", &closed)?,
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        ];
        if self.cgroup.is_some() {
            let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
            mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)?);
        }
        if let Some(hosts) = &self.hosts {
            mounts.push(bind("/etc/hosts", hosts, &["ro", "nosuid", "nodev", "noexec"])?);
        }
        mounts.push(bind(AGENT, self.agent, &["ro", "nosuid", "nodev"])?);
        Ok(mounts)
    }

    fn linux(&self) -> Result<Linux, OciSpecError> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let linux = LinuxBuilder::default()
            .namespaces(namespaces(self.users)?)
            .resources(self.resources()?)
            .seccomp(seccomp::filter(&CAPABILITIES)?)
            .masked_paths(owned(&MASKED))
            .readonly_paths(owned(&READ_ONLY));
        let linux = match &self.cgroup {
            Some(path) => linux.cgroups_path(path),
            None => linux,
        };
        let Users::Mapped(start) = self.users else { return linux.build() };
        let ids = LinuxIdMappingBuilder::default()
            .container_id(0_u32)
            .host_id(start)
            .size(IDS_PER_SLOT)
            .build()?;
        linux.uid_mappings(vec![ids]).gid_mappings(vec![ids]).build()
    }

    fn resources(&self) -> Result<LinuxResources, OciSpecError> {
        let resources = LinuxResourcesBuilder::default();
        if self.cgroup.is_none() {
            return resources.build();
        }
        // The runtimes add the harmless devices, such as /dev/null, themselves.
        let no_device = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
        let mut resources = resources
            .devices(vec![no_device])
            .pids(LinuxPidsBuilder::default().limit(PIDS_LIMIT).build()?);
        if let Some(cpus) = self.config.cpus {
            // The kernel refuses less than a thousandth of a second (sched-bwc.rst).
            let share = u64::from(cpus.millis()) * CPU_PERIOD / 1000;
            let quota = share.max(MIN_QUOTA).cast_signed();
            resources =
                resources.cpu(LinuxCpuBuilder::default().period(CPU_PERIOD).quota(quota).build()?);
        }
        if let Some(memory) = self.config.memory_mib {
            let bytes = i64::from(memory) * 1024 * 1024;
            // Memory and swap together: no more than the memory alone, so no swap.
            resources =
                resources.memory(LinuxMemoryBuilder::default().limit(bytes).swap(bytes).build()?);
        }
        resources.build()
    }
}

fn namespaces(users: Users) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    // An ordinary user's runner is in one already.
    let user = matches!(users, Users::Mapped(_))
        .then(|| LinuxNamespaceBuilder::default().typ(User).path(Stage::namespace()).build());
    let others = [Pid, Mount, Ipc, Uts, Network, Cgroup].into_iter();
    user.into_iter()
        .chain(others.map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()))
        .collect()
}

fn mount(
    destination: &str,
    kind: &str,
    source: &str,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

fn bind(destination: &str, source: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .source(source)
        .options(
            ["bind", "private"]
                .iter()
                .chain(options)
                .map(|option| (*option).to_owned())
                .collect::<Vec<_>>(),
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(config: &SandboxConfig, users: Users) -> Container<'_> {
        Container {
            config,
            users,
            rootfs: Path::new("/r"),
            agent: Path::new("/a"),
            args: vec![AGENT.to_owned()],
            hosts: None,
            cgroup: (users == Users::Host).then(|| "/c".to_owned()),
        }
    }

    fn config() -> SandboxConfig {
        SandboxConfig::new("n".parse().unwrap(), "/")
    }

    #[test]
    fn limits_become_control_group_settings() {
        let mut config = config();
        (config.cpus, config.memory_mib) = (Some(2.into()), Some(64));
        let spec = container(&config, Users::Host).spec().unwrap();
        let json = serde_json::to_value(&spec).unwrap();
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["cpu"]["quota"], 200_000);
        assert_eq!(resources["memory"]["limit"], 67_108_864);
        assert_eq!(resources["memory"]["swap"], 67_108_864);
        assert_eq!(resources["pids"]["limit"], 4096);
        assert_eq!(json["process"]["noNewPrivileges"], true);
        assert_eq!(json["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_what_to_do() {
        let mut limited = config();
        limited.memory_mib = Some(64);
        let failure = container(&limited, Users::RootOnly).spec().unwrap_err();
        assert!(failure.to_string().contains("run as root"), "{failure}");
        let mut networked = config();
        networked.network = true;
        let failure = container(&networked, Users::Host).spec().unwrap_err();
        assert!(failure.to_string().contains("leave network off"), "{failure}");
    }

    #[test]
    fn nothing_asked_for_works_without_control_groups() {
        let config = config();
        let spec = container(&config, Users::RootOnly).spec().unwrap();
        let json = serde_json::to_value(&spec).unwrap();
        assert!(json["linux"]["cgroupsPath"].is_null());
        assert!(!json.to_string().contains("gid=5"));
    }
}
