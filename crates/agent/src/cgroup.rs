//! One cgroup (version 2) for each session, so that a kill reaches everything that it started.
//!
//! The runner hands the agent a subtree where it can; where it cannot, sessions do without.

use msb_wire::SessionId;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the runner mounts the subtree that is the agent's to use.
const ROOT: &str = "/.msb/cgroup";

/// A session's cgroup. The directory goes with the value, as soon as no process is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup of a session; `None` where there is no subtree, or it is full.
    pub(crate) fn create(session: SessionId) -> Option<Cgroup> {
        if !Path::new(ROOT).join("cgroup.procs").exists() {
            return None;
        }
        let path = Path::new(ROOT).join(session.to_string());
        std::fs::create_dir(&path).ok()?;
        Some(Cgroup { path })
    }

    /// A descriptor of its directory, by which a process gets into it.
    pub(crate) fn directory(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty()).ok()
    }

    /// Kills every process in it (cgroup-v2.rst, `cgroup.kill`; Linux 5.14). False when it could not.
    pub(crate) fn kill(&self) -> bool {
        std::fs::write(self.path.join("cgroup.kill"), "1").is_ok()
    }

    /// The processes in it. That they cannot be listed does not mean that there are none.
    pub(crate) fn members(&self) -> std::io::Result<Vec<i32>> {
        let text = std::fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Removes the directory if nothing is in it any more.
    pub(crate) fn remove_if_empty(&self) -> bool {
        // Children's own cgroups below it would keep it; they can only exist if somebody with
        // rights on the subtree made them, and then the sandbox's end removes them.
        std::fs::remove_dir(&self.path).is_ok() || !self.path.exists()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove_if_empty();
    }
}
