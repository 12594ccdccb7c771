//! The capabilities of a host: its drivers and the walls of the jail.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The boundary between a sandbox and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// A virtual machine with hardware virtualisation.
    Hardware,
    /// An emulated virtual machine.
    Emulated,
    /// gVisor: a kernel in user space, without hardware virtualisation.
    Gvisor,
    /// A container: the kernel is shared.
    Container,
    /// A virtual machine without the check for hardware virtualisation.
    Unchecked,
}

impl Isolation {
    /// Returns whether it holds against a hostile guest: what `auto` considers.
    pub fn is_strong(self) -> bool {
        matches!(self, Isolation::Hardware | Isolation::Gvisor)
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::Hardware => "hardware",
            Isolation::Emulated => "emulated",
            Isolation::Gvisor => "gvisor",
            Isolation::Container => "container",
            Isolation::Unchecked => "unchecked",
        })
    }
}

/// The result of a driver's probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// The driver is usable; the text has backend details.
    Usable(String),
    /// The driver is not usable.
    Unusable {
        /// Why not.
        reason: String,
        /// The command that makes it usable, if there is one.
        remedy: Option<String>,
    },
}

/// The capabilities of a host, which `doctor` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Every driver, in the order of preference.
    pub drivers: Vec<DriverReport>,
    /// Every wall of the jail.
    pub walls: Vec<WallReport>,
}

/// The report on a driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverReport {
    /// The driver's name.
    pub name: String,
    /// Its isolation.
    pub isolation: Isolation,
    /// The result of its probe.
    pub probe: Probe,
    /// The resources that it cannot limit on this host, each with the reason.
    pub unbounded: Vec<String>,
}

/// The report on a wall of the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallReport {
    /// The wall's name.
    pub name: String,
    /// Why it is missing; `None` if it is not.
    pub missing: Option<String>,
    /// The remedy, if known.
    pub remedy: Option<String>,
}
