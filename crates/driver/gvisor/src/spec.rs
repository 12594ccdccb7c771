//! The sandbox's OCI configuration.

use crate::runsc::{AGENT, ROOT};
use msb_driver::PlacedMount;
use msb_driver::oci::{self, ExtraOptions};
use msb_state::{Failure, SandboxConfig};
use oci_spec::OciSpecError;
use oci_spec::runtime::{Capability, LinuxBuilder, LinuxNamespaceType, Mount, Spec};
use std::path::Path;

/// Where the agent finds the cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the configuration of a sandbox whose first process is the agent with `arguments`.
pub(crate) fn describe(
    config: &SandboxConfig,
    arguments: Vec<String>,
    memory_bytes: Option<u64>,
    mounts: &[PlacedMount],
) -> Result<Spec, Failure> {
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
    let namespaces = oci::namespaces([Pid, MountNamespace, Ipc, Uts, Network])?;
    // Of the agent, in the sandbox's own kernel: it drops the last one, with which it unmounts the
    // cgroups, for every command.
    let capabilities = oci::CAPABILITIES.into_iter().chain([Capability::SysAdmin]);
    let extra = ExtraOptions { devices: &[], terminals: &["gid=5"], shm: &[] };
    let mut mounts = oci::mounts(Path::new(AGENT), shm, extra)?;
    mounts.push(oci::mount(CGROUPS, "cgroup", "cgroup", &oci::CLOSED)?);
    for one in placed {
        mounts.push(own_mount(one)?);
    }
    let process = oci::agent(arguments, capabilities)?;
    let linux = LinuxBuilder::default().namespaces(namespaces).build()?;
    oci::spec(config, Path::new(ROOT), process, mounts, linux)
}

/// Describes a mount of the sandbox, whose source is at its place below the root already.
fn own_mount(placed: &PlacedMount) -> Result<Mount, OciSpecError> {
    let restricted = [("ro", placed.readonly), ("noexec", placed.noexec)];
    let options = restricted.into_iter().filter_map(|(option, is_set)| is_set.then_some(option));
    let options: Vec<&str> = ["rbind", "nosuid", "nodev"].into_iter().chain(options).collect();
    let (target, source) = (Path::new("/").join(&placed.path), Path::new(ROOT).join(&placed.path));
    oci::mount(target, "bind", source, &options)
}
