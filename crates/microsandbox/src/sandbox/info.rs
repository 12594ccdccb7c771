//! Information about sandboxes and their sessions.

use crate::output::ExitStatus;
use msb_state::{Bounds, Info, Isolation, Mount, Reason, Status};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A sandbox as it is on disk.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// Its image: a name, or the path of a directory or an archive.
    pub image: PathBuf,
    /// The default command of its image; empty if it has none.
    pub default_command: Vec<String>,
    /// The driver that runs it, or ran it last.
    pub driver: Option<String>,
    /// How it is isolated.
    pub isolation: Option<Isolation>,
    /// Whether every process of it on the host, except its supervisor, is in a jail with all walls;
    /// `None` if it never started.
    pub jailed: Option<bool>,
    /// The unavailable walls of the jail, each with the reason.
    pub missing_walls: Vec<String>,
    /// The enforced bounds; `None` if it never started.
    pub bounds: Option<Bounds>,
    /// The requested number of processors.
    pub cpus: Option<f64>,
    /// The requested memory in MiB.
    pub memory: Option<u32>,
    /// Its mounts, parents before children.
    pub mounts: Vec<Mount>,
    /// Whether it outlives the process that created it.
    pub detached: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: SystemTime,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// Why it ended, if it is not running.
    pub end_reason: Option<Reason>,
    /// Details of its end, for users.
    pub end_detail: Option<String>,
}

impl From<Info> for SandboxInfo {
    fn from(info: Info) -> Self {
        let Info { status, config, created_ms, started, outcome, .. } = info;
        let started_at = started.as_ref().map(|started| time(started.at_ms));
        let (machine, protection) =
            started.map_or((None, None), |started| (started.machine, started.protection));
        let (driver, isolation) = machine.unzip();
        let jailed = protection.as_ref().map(|protection| protection.jailed);
        let bounds = protection.as_ref().map(|protection| protection.bounds);
        let (end_reason, end_detail) = match outcome {
            Some(outcome) => (Some(outcome.reason), outcome.detail),
            // A killed runner records no outcome.
            None if status == Status::Crashed => (Some(Reason::Crashed), None),
            None => (None, None),
        };
        SandboxInfo {
            name: config.name.into(),
            status,
            image: config
                .image_name
                .map_or_else(|| config.image.as_path().to_path_buf(), PathBuf::from),
            default_command: config.entrypoint.into_iter().chain(config.cmd).collect(),
            driver,
            isolation,
            jailed,
            missing_walls: protection.map(|protection| protection.missing).unwrap_or_default(),
            bounds,
            cpus: config.cpus.map(msb_state::Cpus::count),
            memory: config.memory_mib,
            mounts: config.mounts,
            detached: config.detached,
            labels: config.labels,
            created_at: time(created_ms),
            started_at,
            end_reason,
            end_detail,
        }
    }
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// One run of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// Its process id in the guest.
    pub pid: u32,
    /// Program and arguments, truncated if very long.
    pub command: Vec<Vec<u8>>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Its exit status; `None` while it runs.
    pub status: Option<ExitStatus>,
    /// Time since its start.
    pub age: Duration,
    /// Size of its output so far, in bytes.
    pub output_total: u64,
    /// Number of readers that follow it.
    pub followers: u32,
}

impl From<msb_wire::SessionInfo> for SessionInfo {
    fn from(info: msb_wire::SessionInfo) -> Self {
        SessionInfo {
            id: info.session.to_string(),
            pid: info.pid,
            command: info.argv.into_iter().map(Into::into).collect(),
            tty: info.tty,
            status: info.exited.as_ref().map(ExitStatus::from),
            age: Duration::from_nanos(info.age_ns),
            output_total: info.total,
            followers: info.followers,
        }
    }
}
