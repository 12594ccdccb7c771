//! A cgroup that limits the memory of a sandbox's host processes.

use crate::hierarchy::{Hierarchy, hierarchies};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a cgroup may stay busy after its last process was killed, and the pause between two
/// attempts.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// A cgroup with a memory limit.
#[derive(Debug)]
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Creates a cgroup in the hierarchy with the memory controller, as root of the host.
    pub fn create(name: &str, bytes: u64) -> io::Result<MemoryGroup> {
        let Hierarchy { path: hierarchy, unified, .. } = hierarchy()?;
        if unified {
            fs::write(hierarchy.join("cgroup.subtree_control"), "+memory")?;
        }
        let group = hierarchy.join(name);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(group.join(file), bytes.to_string())?;
        // Without swap accounting the file does not exist, and swap is not limited.
        let (swap, most) =
            if unified { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", bytes) };
        let _ = fs::write(group.join(swap), most.to_string());
        Ok(MemoryGroup(group))
    }

    /// Moves a process into the cgroup.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// Removes the cgroup of a name, if it exists. Its processes have been killed.
    pub fn remove(name: &str) -> io::Result<()> {
        // Without a hierarchy nothing was created.
        let Ok(hierarchy) = hierarchy() else { return Ok(()) };
        let begun = Instant::now();
        loop {
            match fs::remove_dir(hierarchy.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error)
                    if error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
                        && begun.elapsed() < BUSY_LIMIT =>
                {
                    // A killed process is counted for a moment longer, without an event.
                    std::thread::sleep(BUSY_PAUSE);
                }
                result => return result,
            }
        }
    }
}

/// Returns the hierarchy with the memory controller.
fn hierarchy() -> io::Result<Hierarchy> {
    find(hierarchies()?, |hierarchy| hierarchy.has("memory"))
        .ok_or_else(|| io::Error::other("no cgroup hierarchy has the memory controller"))
}

fn find(all: Vec<Hierarchy>, has_memory: impl Fn(&Hierarchy) -> bool) -> Option<Hierarchy> {
    all.into_iter().find(has_memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hierarchy::parse_mounts;

    #[test]
    fn j4_memory_controller_is_found() {
        let found = |mounts: &str, unified_has_memory: bool| {
            let has = |hierarchy: &Hierarchy| match hierarchy.unified {
                true => unified_has_memory,
                false => hierarchy.has("memory"),
            };
            find(parse_mounts(mounts.as_bytes()), has).map(|found| (found.path, found.unified))
        };
        let mounts = "29 25 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
            31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found(mounts, false), Some(("/sys/fs/cgroup/memory".into(), false)));
        let mounts = "29 25 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(found(mounts, true), Some(("/sys/fs/cgroup".into(), true)));
        assert_eq!(found(mounts, false), None);
    }
}
