//! What the OCI configurations of containers and of gVisor's sandboxes share.

use crate::check_mounts;
use msb_state::{Failure, SandboxConfig};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec,
    SpecBuilder, UserBuilder,
};
use std::collections::HashSet;
use std::path::Path;

/// Path of the agent in a sandbox.
pub const AGENT: &str = "/.msb/agent";

/// Capabilities of commands: the default set of container engines, without device nodes, raw
/// packets, file capabilities and the audit log. The kernel confines each to the sandbox.
pub const CAPABILITIES: [Capability; 10] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Options of the mounts of kernel file systems.
pub const CLOSED: [&str; 3] = ["nosuid", "noexec", "nodev"];

/// Options of mounts that only some kernels have.
#[derive(Debug, Clone, Copy)]
pub struct ExtraOptions<'a> {
    /// Of `/dev`.
    pub devices: &'a [&'a str],
    /// Of `/dev/pts`.
    pub terminals: &'a [&'a str],
    /// Of `/dev/shm`.
    pub shm: &'a [&'a str],
}

/// Refuses what no container of a driver has.
pub fn refuse_unsupported(driver: &str, config: &SandboxConfig) -> Result<(), Failure> {
    check_mounts(config)?;
    match config.network {
        true => Err(Failure::invalid_config(format!(
            "driver {driver} cannot give a sandbox network access yet"
        ))
        .hint("leave network off")),
        false => Ok(()),
    }
}

/// Returns the text of `/etc/hosts`.
pub fn hosts(config: &SandboxConfig) -> String {
    let name = config.hostname.as_deref().unwrap_or(config.name.as_str());
    format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n")
}

/// Returns a configuration.
pub fn spec(
    config: &SandboxConfig,
    root: &Path,
    process: Process,
    mounts: Vec<Mount>,
    linux: Linux,
) -> Result<Spec, OciSpecError> {
    let hostname = config.hostname.clone();
    // A host name has at most 64 bytes, a sandbox's name may have more.
    let hostname = hostname.unwrap_or_else(|| config.name.as_str().chars().take(64).collect());
    SpecBuilder::default()
        .version("1.0.2")
        .hostname(hostname)
        .root(RootBuilder::default().path(root).readonly(false).build()?)
        .process(process)
        .mounts(mounts)
        .linux(linux)
        .build()
}

/// Returns the first process: the agent with its arguments.
pub fn agent(
    arguments: Vec<String>,
    capabilities: impl IntoIterator<Item = Capability>,
) -> Result<Process, OciSpecError> {
    let capabilities: HashSet<_> = capabilities.into_iter().collect();
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
        .args([vec![AGENT.to_owned()], arguments].concat())
        .env(Vec::<String>::new())
        .capabilities(capabilities)
        .no_new_privileges(true)
        .build()?;
    // Inherited from the runner and lowered by the agent: to set them here takes
    // CAP_SYS_RESOURCE over a process in another user namespace, which not every root has.
    process.set_rlimits(None);
    Ok(process)
}

/// Returns new namespaces.
pub fn namespaces(
    kinds: impl IntoIterator<Item = LinuxNamespaceType>,
) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    kinds.into_iter().map(new).collect()
}

/// Returns the mounts of every sandbox but its cgroups. `agent` is the binary on the host.
pub fn mounts(agent: &Path, shm: u64, extra: ExtraOptions<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let size = format!("size={shm}");
    let devices = [&["nosuid", "mode=755", "size=65536k"], extra.devices].concat();
    let terminals = [&["nosuid", "noexec", "mode=0620"], extra.terminals].concat();
    let shared = [&CLOSED[..], &["mode=1777", &size], extra.shm].concat();
    let read_only = [&CLOSED[..], &["ro"]].concat();
    Ok(vec![
        mount("/proc", "proc", "proc", &CLOSED)?,
        mount("/dev", "tmpfs", "tmpfs", &devices)?,
        mount("/dev/pts", "devpts", "devpts", &terminals)?,
        mount("/dev/shm", "tmpfs", "shm", &shared)?,
        mount("/sys", "sysfs", "sysfs", &read_only)?,
        bind(AGENT, agent, &["ro", "nosuid", "nodev"])?,
    ])
}

/// Returns a mount.
pub fn mount(
    destination: impl AsRef<Path>,
    kind: &str,
    source: impl AsRef<Path>,
    options: &[&str],
) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination.as_ref())
        .typ(kind)
        .source(source.as_ref())
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
}

/// Returns a bind mount.
pub fn bind(destination: &str, source: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    mount(destination, "bind", source, &[&["bind", "private"], options].concat())
}
