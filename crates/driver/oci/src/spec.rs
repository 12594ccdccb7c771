//! The container's OCI runtime configuration.

use crate::seccomp;
use crate::stage::Stage;
use msb_driver::oci::{self, ExtraOptions};
use msb_driver::{Controllers, MissingBounds, Users};
use msb_jail::IDS_PER_SLOT;
use msb_state::{Bounds, Cpus, DEFAULT_PIDS, Failure, SandboxConfig, memory_mib};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxIdMappingBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, Mount, Spec,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Public name of the driver.
pub(crate) const NAME: &str = "container";

/// Period of the CPU quota, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Least CPU quota, in microseconds.
const MIN_QUOTA: u64 = 1000;

/// Kernel files that reveal the host; they are masked.
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

/// Kernel files that would change the host; they are read-only.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Writes a configuration into a bundle.
pub(crate) fn save(spec: &Spec, bundle: &Path) -> Result<(), Failure> {
    let path = bundle.join("config.json");
    // The error of `Spec::save` does not say what failed.
    let bytes = serde_json::to_vec(spec)
        .map_err(|error| Failure::boot_io("write", &path, std::io::Error::from(error)))?;
    std::fs::write(&path, bytes).map_err(|error| Failure::boot_io("write", &path, error))
}

/// What a container is created from.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) config: &'a SandboxConfig,
    pub(crate) users: Users,
    pub(crate) rootfs: &'a Path,
    pub(crate) agent: &'a Path,
    /// The agent's arguments.
    pub(crate) args: Vec<String>,
    /// The file to bind to `/etc/hosts`, if the root's cannot be written.
    pub(crate) hosts: Option<PathBuf>,
    /// The absolute path of its cgroup.
    pub(crate) cgroup: Option<String>,
    /// The available controllers.
    pub(crate) controllers: Controllers,
    /// Its limits.
    pub(crate) bounds: Bounds,
}

impl Container<'_> {
    pub(crate) fn spec(&self) -> Result<Spec, Failure> {
        oci::refuse_unsupported(NAME, self.config)?;
        let shm = self.config.shm_bytes(self.bounds.memory_bytes)?;
        self.build(shm)
            .map_err(|error| Failure::boot(format!("cannot describe the container: {error}")))
    }

    fn build(&self, shm: u64) -> Result<Spec, OciSpecError> {
        let process = oci::agent(self.args.clone(), oci::CAPABILITIES)?;
        oci::spec(self.config, self.rootfs, process, self.mounts(shm)?, self.linux()?)
    }

    fn mounts(&self, shm: u64) -> Result<Vec<Mount>, OciSpecError> {
        let own = ["newinstance", "ptmxmode=0666", "max=1024"];
        // Group 5, by convention the owner of terminals, must be mapped.
        let group: &[&str] = if self.users == Users::RootOnly { &[] } else { &["gid=5"] };
        let extra = ExtraOptions {
            devices: &["strictatime", "nr_inodes=4k"],
            terminals: &[&own, group].concat(),
            shm: &["nr_inodes=16k"],
        };
        let mut mounts = oci::mounts(self.agent, shm, extra)?;
        mounts.push(oci::mount("/dev/mqueue", "mqueue", "mqueue", &oci::CLOSED)?);
        if self.cgroup.is_some() {
            let options = [&oci::CLOSED[..], &["relatime", "ro"]].concat();
            mounts.push(oci::mount("/sys/fs/cgroup", "cgroup", "cgroup", &options)?);
        }
        if let Some(hosts) = &self.hosts {
            let options = [&oci::CLOSED[..], &["ro"]].concat();
            mounts.push(oci::bind("/etc/hosts", hosts, &options)?);
        }
        Ok(mounts)
    }

    fn linux(&self) -> Result<Linux, OciSpecError> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        // As container engines do: any user can listen on any port of the sandbox.
        let sysctl = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())];
        let linux = LinuxBuilder::default()
            .sysctl(HashMap::from(sysctl))
            .namespaces(namespaces(self.users)?)
            .resources(self.resources()?)
            .seccomp(seccomp::filter(&oci::CAPABILITIES)?)
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
        let mut resources = resources.devices(vec![no_device]);
        if let Some(pids) = self.bounds.pids.filter(|_| self.controllers.pids) {
            let limit = i64::try_from(pids).unwrap_or(i64::MAX);
            resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
        }
        if let Some(millis) = self.bounds.cpu_millis {
            // The kernel refuses less than 1 ms (sched-bwc.rst).
            let share = u64::from(millis) * CPU_PERIOD / 1000;
            let quota = share.max(MIN_QUOTA).cast_signed();
            resources =
                resources.cpu(LinuxCpuBuilder::default().period(CPU_PERIOD).quota(quota).build()?);
        }
        if let Some(bytes) = self.bounds.memory_bytes {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            let memory = LinuxMemoryBuilder::default().limit(bytes);
            // Limit of memory and swap together, so no swap.
            let memory = if self.controllers.swap { memory.swap(bytes) } else { memory };
            resources = resources.memory(memory.build()?);
        }
        resources.build()
    }
}

/// Returns a container's limits, and the walls and limits that are missing. An explicit limit that
/// cannot be enforced is an error. `counts_apart`: the kernel counts processes per user namespace.
pub(crate) fn bounds(
    config: &SandboxConfig,
    users: Users,
    controllers: Controllers,
    counts_apart: bool,
) -> Result<(Bounds, Vec<String>), Failure> {
    let mut missing = MissingBounds::new(NAME, users);
    let counted = controllers.pids || (users != Users::Host && counts_apart);
    let pids = missing.check("pids_limit", config.pids_limit.is_some(), counted)?;
    let memory = missing.check("memory", config.memory_mib.is_some(), controllers.memory)?;
    if config.cpus.is_some() {
        missing.check("cpus", true, controllers.cpu)?;
    }
    let mut missing = missing.into_list();
    if users == Users::Host {
        missing.push("user namespace: switched off by MSB_CONTAINER_USERNS=off".to_owned());
    }
    let bounds = Bounds {
        pids: pids.then(|| u64::from(config.pids_limit.unwrap_or(DEFAULT_PIDS))),
        memory_bytes: memory.then(|| memory_mib(config.memory_mib) << 20),
        cpu_millis: config.cpus.map(Cpus::millis),
        ..Bounds::default()
    };
    Ok((bounds, missing))
}

/// Returns whether the kernel counts processes per user namespace: since Linux 5.14.
pub(crate) fn counts_apart() -> bool {
    seccomp::kernel().is_some_and(|version| version >= (5, 14))
}

fn namespaces(users: Users) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let mut namespaces = oci::namespaces([Pid, Mount, Ipc, Uts, Network, Cgroup])?;
    // An ordinary user's runner is in a user namespace already.
    if matches!(users, Users::Mapped(_)) {
        let user = LinuxNamespaceBuilder::default().typ(User).path(Stage::namespace());
        namespaces.insert(0, user.build()?);
    }
    Ok(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Controllers = Controllers { pids: true, memory: true, swap: true, cpu: true };

    fn container(config: &SandboxConfig, users: Users) -> Container<'_> {
        let controllers = if users.runner_is_root() { ALL } else { Controllers::default() };
        let (bounds, _) = bounds(config, users, controllers, true).unwrap();
        Container {
            config,
            users,
            rootfs: Path::new("/r"),
            agent: Path::new("/a"),
            args: Vec::new(),
            hosts: None,
            cgroup: users.runner_is_root().then(|| "/c".to_owned()),
            controllers,
            bounds,
        }
    }

    fn config() -> SandboxConfig {
        SandboxConfig::new("n".parse().unwrap(), "/")
    }

    fn json(container: &Container<'_>) -> serde_json::Value {
        serde_json::to_value(container.spec().unwrap()).unwrap()
    }

    #[test]
    fn j4_limits_become_cgroup_settings() {
        let mut config = config();
        (config.cpus, config.memory_mib) = (Some(0.5.into()), Some(64));
        (config.pids_limit, config.shm_size) = (Some(100), Some(32 << 20));
        let json = json(&container(&config, Users::Mapped(7_000_000)));
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["cpu"]["quota"], 50_000);
        assert_eq!(resources["memory"]["limit"], 67_108_864);
        assert_eq!(resources["memory"]["swap"], 67_108_864);
        assert_eq!(resources["pids"]["limit"], 100);
        let mounts = json["mounts"].as_array().unwrap();
        let shm = mounts.iter().find(|mount| mount["destination"] == "/dev/shm").unwrap();
        assert!(shm["options"].as_array().unwrap().contains(&"size=33554432".into()), "{shm}");
    }

    #[test]
    fn j3_roots_container_has_few_rights_and_own_ids() {
        let json = json(&container(&config(), Users::Mapped(7_000_000)));
        assert_eq!(json["process"]["noNewPrivileges"], true);
        assert_eq!(json["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 10);
        assert_eq!(json["linux"]["uidMappings"][0]["hostID"], 7_000_000);
        assert_eq!(json["linux"]["gidMappings"][0]["size"], IDS_PER_SLOT);
        let namespaces = json["linux"]["namespaces"].as_array().unwrap();
        assert!(namespaces.iter().any(|namespace| namespace["type"] == "user"));
    }

    #[test]
    fn j4_default_limits_apply() {
        let json = json(&container(&config(), Users::Host));
        let resources = &json["linux"]["resources"];
        assert_eq!(resources["pids"]["limit"], 4096);
        assert!(resources["memory"]["limit"].as_u64().unwrap() <= 2048 << 20);
        assert!(resources["cpu"].is_null());
    }

    #[test]
    fn unsupported_options_are_refused_with_a_hint() {
        let none = Controllers::default();
        let mut limited = config();
        limited.memory_mib = Some(64);
        let failure = bounds(&limited, Users::RootOnly, none, true).unwrap_err();
        assert!(failure.to_string().contains("run as root"), "{failure}");
        let failure = bounds(&limited, Users::Host, none, true).unwrap_err();
        assert!(failure.to_string().contains("controller"), "{failure}");
        let mut limited = config();
        limited.pids_limit = Some(64);
        let failure = bounds(&limited, Users::RootOnly, none, false).unwrap_err();
        assert!(failure.to_string().contains("pids_limit"), "{failure}");
        let mut shared = config();
        (shared.memory_mib, shared.shm_size) = (Some(64), Some(65 << 20));
        let failure = container(&shared, Users::Mapped(1)).spec().unwrap_err();
        assert!(failure.to_string().contains("more than the memory"), "{failure}");
        let mut networked = config();
        networked.network = true;
        let failure = container(&networked, Users::Host).spec().unwrap_err();
        assert!(failure.to_string().contains("leave network off"), "{failure}");
    }

    #[test]
    fn j4_missing_limits_are_named() {
        let none = Controllers::default();
        let (bounds, missing) = bounds(&config(), Users::RootOnly, none, true).unwrap();
        assert_eq!((bounds.pids, bounds.memory_bytes), (Some(4096), None));
        assert!(missing.iter().any(|text| text.contains("memory")), "{missing:?}");
        let (_, missing) = super::bounds(&config(), Users::Host, ALL, true).unwrap();
        assert!(missing.iter().any(|text| text.contains("user namespace")), "{missing:?}");
        let (_, missing) = super::bounds(&config(), Users::Mapped(1), ALL, true).unwrap();
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn defaults_work_without_cgroups() {
        let json = json(&container(&config(), Users::RootOnly));
        assert!(json["linux"]["cgroupsPath"].is_null());
        assert!(!json.to_string().contains("gid=5"));
    }
}
