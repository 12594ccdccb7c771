//! Which drivers and walls of the jail are available on this host.

use crate::completion::completion;
use crate::error::{Error, MicrosandboxResult};
use crate::sandbox::Isolation;
use crate::{library, runtime};
use msb_state::{Home, Probe};
use std::path::PathBuf;

/// The result of [`doctor`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostReport {
    /// Every driver, in order of preference.
    pub drivers: Vec<DriverReport>,
    /// Every wall of the jail.
    pub walls: Vec<WallReport>,
}

/// Whether a wall of the jail is available on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WallReport {
    /// Its name, such as `seccomp`.
    pub name: String,
    /// Why it is unavailable; `None` if it is available.
    pub missing: Option<String>,
    /// A remedy, if one is known.
    pub hint: Option<String>,
}

/// Whether a driver is usable on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverReport {
    /// Its name, as in [`SandboxBuilder::driver`](crate::SandboxBuilder::driver).
    pub driver: String,
    /// How it isolates.
    pub isolation: Isolation,
    /// Whether it is usable.
    pub usable: bool,
    /// Backend details if usable, else the reason.
    pub why: String,
    /// A remedy, if one is known.
    pub hint: Option<String>,
    /// The bounds that it cannot enforce, each with the reason.
    pub unbounded: Vec<String>,
}

/// Probes every driver and every wall of the jail. Does not use cached results of earlier probes.
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

/// Downloads a guest kernel for the driver `qemu` from Debian's packages, about 30 MB, and returns
/// its path. It is unpacked into `to`, or where the driver looks for it; nothing is installed, and
/// no privileges are needed.
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

/// The program `runsc` of the driver `gvisor`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GvisorSetup {
    /// Its path.
    pub program: PathBuf,
    /// Whether it was built just now.
    pub built: bool,
}

/// Builds `runsc` for the driver `gvisor` from gVisor's Go module, without rights, where the driver
/// looks for it; not if one is there already. Needs Go 1.24 or newer. Takes minutes.
pub async fn setup_gvisor() -> MicrosandboxResult<GvisorSetup> {
    let (promise, pending) = completion();
    runtime::get()?;
    runtime::spawn_thread("msb-control", move || {
        let made = Home::from_env().and_then(|home| msb_state::build_gvisor(&home));
        let made = made.map(|made| GvisorSetup { program: made.program, built: made.built });
        promise.complete(made.map_err(Error::from));
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
