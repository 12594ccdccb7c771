//! The JSON records in a sandbox's directory.

use crate::bounds::Protection;
use crate::clock::now_ms;
use crate::config::SandboxConfig;
use crate::dirs::write_atomically;
use crate::error::{Error, Result};
use crate::home::SandboxDir;
use crate::report::Isolation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::Path;
use std::{fs, io};

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// Never started.
    Created,
    /// Its runner holds the lock.
    Running,
    /// It ended on request or by its options.
    Stopped,
    /// Its machine exited unexpectedly, or its runner was killed.
    Crashed,
}

/// The content of `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its configuration.
    pub config: SandboxConfig,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// The process that created or last started it.
    pub creator: Creator,
}

/// A process, identified independently of the reuse of its pid.
///
/// Only used to decide whether the leftovers of an attached sandbox may be removed; whether a
/// sandbox runs never depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Creator {
    boot: String,
    pid_namespace: String,
    pid: u32,
    start: u64,
}

impl Creator {
    /// Returns the calling process.
    pub fn this_process() -> Result<Self> {
        let pid = std::process::id();
        let stat = Path::new("/proc/self/stat");
        let start = start_time(pid).map_err(|error| Error::io("read", stat, error))?;
        let (boot, pid_namespace) = environment()?;
        Ok(Creator { boot, pid_namespace, pid, start })
    }

    /// Returns whether the process is known to have ended. One in another PID namespace is not.
    pub fn is_gone(&self) -> bool {
        let Ok((boot, pid_namespace)) = environment() else { return false };
        if boot != self.boot {
            return true;
        }
        if pid_namespace != self.pid_namespace {
            return false;
        }
        match start_time(self.pid) {
            Ok(start) => start != self.start,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn environment() -> Result<(String, String)> {
    let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
    let boot =
        fs::read_to_string(boot_path).map_err(|error| Error::io("read", boot_path, error))?;
    let ns_path = Path::new("/proc/self/ns/pid");
    let ns = fs::read_link(ns_path).map_err(|error| Error::io("read", ns_path, error))?;
    Ok((boot.trim().to_owned(), ns.to_string_lossy().into_owned()))
}

/// Returns the start time of a process in clock ticks since boot. A zombie is not found.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed /proc/<pid>/stat");
    // The program's name, in parentheses, may contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(malformed)?;
    let mut fields = rest.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Field 22 of proc_pid_stat(5); the state was field 3.
    fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(malformed)
}

/// The content of `started.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The driver and its isolation, once it was ready.
    pub machine: Option<(String, Isolation)>,
    /// Its protection, once it was ready.
    #[serde(default)]
    pub protection: Option<Protection>,
}

/// The content of `outcome.json`: how the sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why.
    pub reason: Reason,
    /// Details for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// It was stopped on request.
    Stopped,
    /// It was killed on request.
    Killed,
    /// It was attached, and the process that created it ended.
    CreatorGone,
    /// Its maximum duration passed.
    MaxDuration,
    /// It was idle for too long.
    Idle,
    /// The machine exited unexpectedly.
    Crashed,
    /// It failed to boot.
    BootFailed,
}

impl Outcome {
    /// Returns an outcome of now.
    pub fn now(reason: Reason, detail: Option<String>) -> Self {
        Outcome { reason, detail, at_ms: now_ms() }
    }

    /// Returns the sandbox's state after this outcome.
    pub fn status(&self) -> Status {
        match self.reason {
            Reason::Crashed | Reason::BootFailed => Status::Crashed,
            _ => Status::Stopped,
        }
    }
}

impl SandboxDir {
    /// Reads `config.json`; `None` if the sandbox does not exist.
    pub fn read_config(&self) -> Result<Option<Stored>> {
        read_json(&self.config())
    }

    /// Writes `config.json`.
    pub fn write_config(&self, stored: &Stored) -> Result<()> {
        write_json(&self.config(), stored)
    }

    /// Reads `started.json`.
    pub fn read_started(&self) -> Result<Option<Started>> {
        read_json(&self.started())
    }

    /// Writes `started.json`.
    pub fn write_started(&self, started: &Started) -> Result<()> {
        write_json(&self.started(), started)
    }

    /// Reads `outcome.json`.
    pub fn read_outcome(&self) -> Result<Option<Outcome>> {
        read_json(&self.outcome())
    }

    /// Writes `outcome.json`.
    pub fn write_outcome(&self, outcome: &Outcome) -> Result<()> {
        write_json(&self.outcome(), outcome)
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::io("read", path, error))
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|error| Error::io("write", path, error))?;
    bytes.push(b'\n');
    write_atomically(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaped_child_is_gone_this_process_is_not() {
        let mut creator = Creator::this_process().unwrap();
        assert!(!creator.is_gone());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        creator.pid = child.id();
        assert!(creator.is_gone(), "same pid, other start time");
        child.wait().unwrap();
        assert!(creator.is_gone());
        creator.pid_namespace = "pid:[1]".into();
        assert!(!creator.is_gone(), "a process of another namespace is not gone");
        creator.boot = "another".into();
        assert!(creator.is_gone());
    }

    #[test]
    fn only_crashes_and_failed_boots_are_crashed() {
        let status = |reason| Outcome::now(reason, None).status();
        for reason in [Reason::Crashed, Reason::BootFailed] {
            assert_eq!(status(reason), Status::Crashed);
        }
        let ended = [Reason::Stopped, Reason::Killed, Reason::CreatorGone, Reason::MaxDuration];
        for reason in ended {
            assert_eq!(status(reason), Status::Stopped);
        }
    }
}
