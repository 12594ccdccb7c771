//! Which drivers and which walls of the jail can be had on this host.

use crate::client::completion;
use crate::error::{Error, MicrosandboxResult};
use crate::sandbox::Isolation;
use crate::{library, runtime};
use msb_state::{Home, Probe};
use std::path::PathBuf;

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostReport {
    /// Every driver, in the order in which they are chosen.
    pub drivers: Vec<DriverReport>,
    /// Every wall of the jail.
    pub walls: Vec<WallReport>,
}

/// Whether a wall of the jail can be had on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WallReport {
    /// What it is called, such as `seccomp`.
    pub name: String,
    /// Why it cannot be had; `None` when it can.
    pub missing: Option<String>,
    /// What would help, where that is known.
    pub hint: Option<String>,
}

/// What is known about one driver on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverReport {
    /// Its name, by which it is asked for.
    pub driver: String,
    /// What it isolates with.
    pub isolation: Isolation,
    /// Whether it can be used.
    pub usable: bool,
    /// Backend details if usable, else the reason.
    pub why: String,
    /// What would make it usable, where that is known.
    pub hint: Option<String>,
    /// What it cannot bound, each with the reason.
    pub unbounded: Vec<String>,
}

/// Tries every driver and every wall of the jail, and tells which can be had. Nothing that was
/// remembered from earlier trials counts.
pub async fn doctor() -> MicrosandboxResult<HostReport> {
    let home = Home::from_env()?;
    let companions = library::companions()?;
    let (promise, pending) = completion();
    runtime::get()?;
    runtime::spawn_thread("msb-control", move || {
        let report = msb_state::doctor(&home, &companions).map_err(Error::from);
        promise.complete(report.map(HostReport::from));
    })?;
    pending.await
}

/// Fetches a guest kernel for the driver `qemu` from Debian's packages, without installing anything
/// and without rights, and returns its path. It is unpacked into `to`, else where the driver looks
/// for it. Takes as long as a download of 30 MB.
pub async fn setup_kernel(to: Option<PathBuf>) -> MicrosandboxResult<PathBuf> {
    let (promise, pending) = completion();
    runtime::get()?;
    runtime::spawn_thread("msb-control", move || {
        let folder = to.map_or_else(|| Home::from_env().map(|home| home.kernel()), Ok);
        let fetched = folder.and_then(|folder| msb_state::fetch_kernel(&folder));
        promise.complete(fetched.map_err(Error::from));
    })?;
    pending.await
}

impl From<msb_state::HostReport> for HostReport {
    fn from(report: msb_state::HostReport) -> Self {
        HostReport {
            drivers: report.drivers.into_iter().map(DriverReport::from).collect(),
            walls: report.walls.into_iter().map(WallReport::from).collect(),
        }
    }
}

impl From<msb_state::WallReport> for WallReport {
    fn from(report: msb_state::WallReport) -> Self {
        WallReport { name: report.name, missing: report.missing, hint: report.remedy }
    }
}

impl From<msb_state::DriverReport> for DriverReport {
    fn from(report: msb_state::DriverReport) -> Self {
        let (usable, why, hint) = match report.probe {
            Probe::Usable(why) => (true, why, None),
            Probe::Unusable { reason, remedy } => (false, reason, remedy),
        };
        let (isolation, unbounded) = (report.isolation, report.unbounded);
        DriverReport { driver: report.name, isolation, usable, why, hint, unbounded }
    }
}
