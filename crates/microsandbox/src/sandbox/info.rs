//! What is known about sandboxes and what runs in them.

use crate::output::ExitStatus;
use msb_state::{Bounds, Info, Isolation, Reason, Status};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known about a sandbox.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SandboxInfo {
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// What it was made from: the name of an image, or the path of a directory or an archive.
    pub image: PathBuf,
    /// What its image runs when nobody names a command; empty when it names none.
    pub default_command: Vec<String>,
    /// The driver that runs it, or ran it last.
    pub driver: Option<String>,
    /// What isolates it.
    pub isolation: Option<Isolation>,
    /// Whether every process of it on the host, but its supervisor, is in a jail with all of its
    /// walls; `None` when it never came up.
    pub jailed: Option<bool>,
    /// The walls of the jail that are missing, each with the reason.
    pub missing_walls: Vec<String>,
    /// The bounds in force; `None` when it never came up.
    pub bounds: Option<Bounds>,
    /// How many processors were asked for.
    pub cpus: Option<f64>,
    /// How much memory was asked for, in MiB.
    pub memory: Option<u32>,
    /// Whether it outlives the process that created it.
    pub detached: bool,
    /// The caller's own notes.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: SystemTime,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// Why it ended, when it is not running.
    pub end_reason: Option<Reason>,
    /// More about its end, for people.
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
            // A runner that was killed had no time to say so.
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
    /// Program and arguments, cut when they are very long.
    pub command: Vec<Vec<u8>>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// How it ended; `None` while it runs.
    pub status: Option<ExitStatus>,
    /// How long ago it started.
    pub age: Duration,
    /// Bytes of output so far.
    pub output_total: u64,
    /// How many readers follow it.
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
