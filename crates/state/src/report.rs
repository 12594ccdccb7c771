//! What a host offers: its drivers and the walls of the jail.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What stands between a sandbox and the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Isolation {
    /// A virtual machine that the processor isolates.
    Hardware,
    /// A virtual machine in software.
    Emulated,
    /// A container: the kernel is shared.
    Container,
    /// A virtual machine on a host that was told to skip the check for hardware isolation.
    Unchecked,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::Hardware => "hardware",
            Isolation::Emulated => "emulated",
            Isolation::Container => "container",
            Isolation::Unchecked => "unchecked",
        })
    }
}

/// Whether a driver can be used on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// It can; the text says on what it stands.
    Usable(String),
    /// It cannot.
    Unusable {
        /// Why not.
        reason: String,
        /// The command that would make it usable, where there is one.
        remedy: Option<String>,
    },
}

/// What a host offers; what `doctor` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// Every driver, in the order in which they are chosen.
    pub drivers: Vec<DriverReport>,
    /// Every wall of the jail.
    pub walls: Vec<WallReport>,
}

/// Whether a driver can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverReport {
    /// The driver's name.
    pub name: String,
    /// What it isolates with.
    pub isolation: Isolation,
    /// Whether it can be used.
    pub probe: Probe,
    /// What it cannot bound on this host, each with the reason.
    pub unbounded: Vec<String>,
}

/// Whether a wall of the jail can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallReport {
    /// What it is called.
    pub name: String,
    /// Why it cannot be had; `None` when it can.
    pub missing: Option<String>,
    /// What would help, where that is known.
    pub remedy: Option<String>,
}
