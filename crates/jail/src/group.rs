//! A cgroup that limits the memory, the processors and the number of a sandbox's host processes.

use crate::hierarchy::{Hierarchy, hierarchies};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cgroup may stay busy after its last process was killed, and the pause between two
/// attempts.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Period of the processor limit, and the least share in it, in microseconds (sched-bwc.rst).
const CPU_PERIOD: u64 = 100_000;
const LEAST_QUOTA: u64 = 1000;

/// The limits of a [`Group`]; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Memory and swap in bytes.
    pub memory: Option<u64>,
    /// Processor time, in thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u64>,
}

/// A cgroup that limits a sandbox's host processes: one directory in the hierarchy of each
/// controller.
#[derive(Debug)]
pub struct Group(Vec<PathBuf>);

impl Group {
    /// Creates the cgroup of a name, as root of the host. It is an error if a limit cannot be set.
    pub fn create(name: &str, limits: GroupLimits) -> io::Result<Group> {
        let mut group = Group(Vec::new());
        if let Some(bytes) = limits.memory {
            group.limit_memory(name, bytes)?;
        }
        if let Some(millis) = limits.cpu_millis {
            group.limit_processors(name, millis)?;
        }
        if let Some(tasks) = limits.tasks {
            let (group, _) = group.directory(name, "pids")?;
            fs::write(group.join("pids.max"), tasks.to_string())?;
        }
        Ok(group)
    }

    fn limit_memory(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let (group, unified) = self.directory(name, "memory")?;
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(group.join(file), bytes.to_string())?;
        // Without swap accounting the file does not exist, and swap is not limited.
        let (swap, most) =
            if unified { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", bytes) };
        let _ = fs::write(group.join(swap), most.to_string());
        Ok(())
    }

    fn limit_processors(&mut self, name: &str, millis: u32) -> io::Result<()> {
        let (group, unified) = self.directory(name, "cpu")?;
        let quota = (u64::from(millis) * CPU_PERIOD / 1000).max(LEAST_QUOTA);
        if unified {
            return fs::write(group.join("cpu.max"), format!("{quota} {CPU_PERIOD}"));
        }
        fs::write(group.join("cpu.cfs_period_us"), CPU_PERIOD.to_string())?;
        fs::write(group.join("cpu.cfs_quota_us"), quota.to_string())
    }

    /// Creates the directory in the hierarchy of a controller. Returns it, and whether it is of
    /// version 2.
    fn directory(&mut self, name: &str, controller: &str) -> io::Result<(PathBuf, bool)> {
        let Hierarchy { path: hierarchy, unified, .. } =
            find(hierarchies()?, |hierarchy| hierarchy.has(controller)).ok_or_else(|| {
                io::Error::other(format!("no cgroup hierarchy has the {controller} controller"))
            })?;
        if unified {
            fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        let group = hierarchy.join(name);
        match fs::create_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !self.0.contains(&group) {
            self.0.push(group.clone());
        }
        Ok((group, unified))
    }

    /// Moves a process into the cgroup. Processes that it creates later are in it as well.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        self.0.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
    }

    /// Removes the cgroup of a name, if it exists. Its processes have been killed.
    pub fn remove(name: &str) -> io::Result<()> {
        // Without hierarchies nothing was created.
        let all = hierarchies().unwrap_or_default();
        let controllers = ["memory", "cpu", "pids"];
        let used = all.iter().filter(|found| controllers.iter().any(|name| found.has(name)));
        used.map(|hierarchy| hierarchy.path.join(name)).try_for_each(|group| remove(&group))
    }
}

fn remove(group: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir(group) {
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

fn find(all: Vec<Hierarchy>, has: impl Fn(&Hierarchy) -> bool) -> Option<Hierarchy> {
    all.into_iter().find(has)
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
