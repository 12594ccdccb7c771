//! The sandbox's OCI configuration.

use crate::runsc::{AGENT, ROOT};
use msb_driver::{PlacedMount, check_mounts};
use msb_state::{Failure, SandboxConfig};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    Mount, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use std::collections::HashSet;
use std::path::Path;

/// The path of the agent in the sandbox.
pub(crate) const INIT: &str = "/.msb/agent";

/// Where the agent finds the cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Capabilities of the agent, in the sandbox's own kernel: those of a container, to which it confines
/// every command, and one to unmount the cgroups.
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysChroot,
];

/// Refuses what no sandbox of this driver has.
pub(crate) fn refuse_unsupported(config: &SandboxConfig) -> Result<(), Failure> {
    check_mounts(config)?;
    match config.network {
        true => {
            Err(Failure::invalid_config("driver gvisor cannot give a sandbox network access yet")
                .hint("leave network off"))
        }
        false => Ok(()),
    }
}

/// Returns the configuration of a sandbox whose first process is the agent with `arguments`.
pub(crate) fn describe(
    config: &SandboxConfig,
    arguments: Vec<String>,
    memory_bytes: Option<u64>,
    mounts: &[PlacedMount],
) -> Result<Spec, Failure> {
    refuse_unsupported(config)?;
    let shm = config.shm_bytes(memory_bytes)?;
    build(config, arguments, shm, mounts)
        .map_err(|error| Failure::boot(format!("cannot describe the sandbox: {error}")))
}

fn build(
    config: &SandboxConfig,
    arguments: Vec<String>,
    shm: u64,
    placed: &[PlacedMount],
) -> Result<Spec, OciSpecError> {
    use LinuxNamespaceType::{Ipc, Mount as MountNamespace, Network, Pid, Uts};
    let hostname = config.hostname.clone();
    // A host name has at most 64 bytes, a sandbox's name may have more.
    let hostname = hostname.unwrap_or_else(|| config.name.as_str().chars().take(64).collect());
    let namespaces = [Pid, MountNamespace, Ipc, Uts, Network]
        .into_iter()
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
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
        .args([vec![INIT.to_owned()], arguments].concat())
        .env(Vec::<String>::new())
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()?;
    process.set_rlimits(None);
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(hostname)
        .root(RootBuilder::default().path(ROOT).readonly(false).build()?)
        .process(process)
        .mounts(mounts(shm, placed)?)
        .linux(LinuxBuilder::default().namespaces(namespaces).build()?)
        .build()
}

fn mounts(shm: u64, placed: &[PlacedMount]) -> Result<Vec<Mount>, OciSpecError> {
    let closed = ["nosuid", "noexec", "nodev"];
    let size = format!("size={shm}");
    let shared = ["nosuid", "noexec", "nodev", "mode=1777", &size];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &closed)?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"])?,
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "mode=0620", "gid=5"])?,
        mount("/dev/shm", "tmpfs", "shm", &shared)?,
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])?,
        mount(CGROUPS, "cgroup", "cgroup", &closed)?,
        mount(INIT, "bind", AGENT, &["bind", "ro", "nosuid", "nodev"])?,
    ];
    for one in placed {
        mounts.push(own_mount(one)?);
    }
    Ok(mounts)
}

/// Describes a mount of the sandbox, whose source is at its place below the root already.
fn own_mount(placed: &PlacedMount) -> Result<Mount, OciSpecError> {
    let restricted = [("ro", placed.readonly), ("noexec", placed.noexec)];
    let options = restricted.into_iter().filter_map(|(option, is_set)| is_set.then_some(option));
    MountBuilder::default()
        .destination(Path::new("/").join(&placed.path))
        .typ("bind")
        .source(Path::new(ROOT).join(&placed.path))
        .options(
            ["rbind", "nosuid", "nodev"]
                .into_iter()
                .chain(options)
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
        .build()
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
