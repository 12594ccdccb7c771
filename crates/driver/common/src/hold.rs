//! How a machine is held: the walls around its processes on the host, and its bounds.

use crate::driver::MachineSpec;
use crate::guest::Guest;
use msb_jail::{MemoryGroup, Started};
use msb_state::{Bounds, DEFAULT_DISK_MIB, Failure, Protection, SandboxDir};
use std::path::Path;

/// Bounds the memory of a machine's processes to the guest's and `own_mib` of their own, where there
/// is a cgroup for it, and describes how the machine is held: by the walls that none of its
/// processes lacks.
pub fn hold(spec: &MachineSpec, guest: &Guest, own_mib: u64, processes: &[&Started]) -> Protection {
    let mut missing: Vec<String> =
        processes.iter().flat_map(|started| started.missing.iter().cloned()).collect();
    missing.sort();
    missing.dedup();
    if spec.users.runner_is_root() {
        bound_memory(&spec.dir, guest, own_mib, processes);
    }
    let bounds = Bounds {
        // By the machine itself; the group is for a VMM that was taken over.
        memory_bytes: Some(u64::from(guest.memory_mib) << 20),
        disk_bytes: Some(spec.config.disk_mib.unwrap_or(DEFAULT_DISK_MIB) << 20),
        cpu_millis: Some(guest.cpus * 1000),
        ..Bounds::default()
    };
    Protection { jailed: missing.is_empty(), missing, bounds }
}

fn bound_memory(dir: &SandboxDir, guest: &Guest, own_mib: u64, processes: &[&Started]) {
    let bytes = (u64::from(guest.memory_mib) + own_mib) << 20;
    let bound = || {
        let group = MemoryGroup::create(&group_name(dir), bytes)?;
        processes.iter().try_for_each(|process| group.add(process.pid))
    };
    if let Err(error) = bound() {
        tracing::warn!(%error, "the memory of the machine's processes is not bounded");
    }
}

/// The size of the largest file that a machine's process writes, in bytes: of the disk, or of the
/// guest's memory, which is a file as well.
pub fn largest_file(spec: &MachineSpec, guest: &Guest) -> u64 {
    let disk_mib = spec.config.disk_mib.unwrap_or(DEFAULT_DISK_MIB);
    disk_mib.max(u64::from(guest.memory_mib)) << 20
}

/// Removes what [`hold`] made for a machine that has ended.
pub fn let_go(dir: &SandboxDir) -> Result<(), Failure> {
    let name = group_name(dir);
    MemoryGroup::remove(&name)
        .map_err(|error| Failure::boot_io("remove cgroup", Path::new(&name), error))
}

/// Another name than a container has.
fn group_name(dir: &SandboxDir) -> String {
    format!("microsandbox-machine-{}", dir.id())
}
