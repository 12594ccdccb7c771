//! The protection of a machine: the walls around its host processes, and its limits.

use crate::driver::MachineSpec;
use crate::guest::Guest;
use msb_jail::{Group, GroupLimits, Started};
use msb_state::{Bounds, DEFAULT_DISK_MIB, Failure, Protection, SandboxDir};
use std::path::Path;

/// Limits the memory of a machine's processes to the guest's and `own_mib` of their own, if there
/// is a cgroup for it, and returns the machine's walls and limits.
pub fn apply_limits(
    spec: &MachineSpec,
    guest: &Guest,
    own_mib: u64,
    processes: &[&Started],
) -> Protection {
    let mut missing: Vec<String> =
        processes.iter().flat_map(|started| started.missing.iter().cloned()).collect();
    missing.sort();
    missing.dedup();
    if spec.users.runner_is_root() {
        limit_memory(&spec.dir, guest, own_mib, processes);
    }
    let bounds = Bounds {
        // Enforced by the machine; the cgroup is for a compromised VMM.
        memory_bytes: Some(u64::from(guest.memory_mib) << 20),
        disk_bytes: Some(spec.config.disk_mib.unwrap_or(DEFAULT_DISK_MIB) << 20),
        cpu_millis: Some(guest.cpus * 1000),
        ..Bounds::default()
    };
    Protection { jailed: missing.is_empty(), missing, bounds }
}

fn limit_memory(dir: &SandboxDir, guest: &Guest, own_mib: u64, processes: &[&Started]) {
    let bytes = (u64::from(guest.memory_mib) + own_mib) << 20;
    let limit = || {
        let limits = GroupLimits { memory: Some(bytes), ..GroupLimits::default() };
        let group = Group::create(&group_name(dir), limits)?;
        processes.iter().try_for_each(|process| group.add(process.pid))
    };
    if let Err(error) = limit() {
        tracing::warn!(%error, "cannot limit the memory of the machine's processes");
    }
}

/// Returns the size of the largest file that a machine's process writes, in bytes: the disk or the
/// guest's memory, which is a file as well.
pub fn largest_file(spec: &MachineSpec, guest: &Guest) -> u64 {
    let disk_mib = spec.config.disk_mib.unwrap_or(DEFAULT_DISK_MIB);
    disk_mib.max(u64::from(guest.memory_mib)) << 20
}

/// Removes the cgroup of a machine's processes, after the machine has exited.
pub fn remove_limits(dir: &SandboxDir) -> Result<(), Failure> {
    let name = group_name(dir);
    Group::remove(&name).map_err(|error| Failure::boot_io("remove cgroup", Path::new(&name), error))
}

/// Returns the name of the cgroup of a machine's processes, which differs from a container's.
pub fn group_name(dir: &SandboxDir) -> String {
    format!("microsandbox-machine-{}", dir.id())
}
