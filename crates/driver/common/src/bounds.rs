//! What a host can bound of a sandbox, and what is said where it cannot.

use crate::driver::Users;
use msb_jail::hierarchies;
use msb_state::Failure;

/// The resources that cgroups can limit on this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Processes and threads.
    pub pids: bool,
    /// Memory.
    pub memory: bool,
    /// Memory and swap together.
    pub swap: bool,
    /// Processor time.
    pub cpu: bool,
}

impl Controllers {
    /// Returns the controllers that this runner's sandboxes have: none for an ordinary user.
    pub fn of(users: Users) -> Controllers {
        let mut found = Controllers::default();
        if !users.runner_is_root() {
            return found;
        }
        for hierarchy in hierarchies().unwrap_or_default() {
            found.pids |= hierarchy.has("pids");
            found.cpu |= hierarchy.has("cpu");
            if hierarchy.has("memory") {
                found.memory = true;
                // cgroup v1 counts swap only with a kernel option.
                let file = hierarchy.path.join("memory.memsw.limit_in_bytes");
                found.swap = hierarchy.unified || file.exists();
            }
        }
        found
    }
}

/// Collects the bounds that are missing on this host.
#[derive(Debug)]
pub struct MissingBounds {
    driver: &'static str,
    why: String,
    remedy: &'static str,
    missing: Vec<String>,
}

impl MissingBounds {
    /// Creates an empty collection, for bounds that need cgroups.
    pub fn new(driver: &'static str, users: Users) -> MissingBounds {
        match users.runner_is_root() {
            true => {
                let why = "this host has no cgroup controller for it".to_owned();
                MissingBounds { driver, why, remedy: "mount its controller", missing: Vec::new() }
            }
            false => {
                let why = "an ordinary user has no cgroups".to_owned();
                MissingBounds { driver, why, remedy: "run as root", missing: Vec::new() }
            }
        }
    }

    /// Creates an empty collection for a host whose cgroups cannot be used.
    pub fn without_cgroups(driver: &'static str, why: String) -> MissingBounds {
        let remedy = "make the host's cgroups writable";
        MissingBounds { driver, why, remedy, missing: Vec::new() }
    }

    /// Returns `enforced`. A bound that was asked for and is not enforced is an error; another one
    /// is noted.
    pub fn check(&mut self, name: &str, asked: bool, enforced: bool) -> Result<bool, Failure> {
        let MissingBounds { driver, why, remedy, .. } = self;
        if !enforced && asked {
            let text = format!("cannot bound {name} with driver {driver}: {why}");
            let hint = format!("leave {name} out, or {remedy}");
            return Err(Failure::invalid_config(text).hint(hint));
        }
        if !enforced {
            self.missing.push(format!("{name}: {why}"));
        }
        Ok(enforced)
    }

    /// Returns the missing bounds, each with the reason.
    pub fn into_list(self) -> Vec<String> {
        self.missing
    }
}

/// Returns the reason why the upper layer of a sandbox on the host's file system is not bounded.
pub fn unbounded_disk(users: Users) -> Option<String> {
    let why = "disk: only root can mount a bounded upper layer";
    (!users.runner_is_root()).then(|| why.to_owned())
}
