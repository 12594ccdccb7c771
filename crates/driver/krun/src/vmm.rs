//! The command line of the VMM's process.

use std::ffi::OsString;
use std::path::PathBuf;

/// The guest's port for the library's connections.
pub const AGENT_PORT: u32 = 1024;
/// The host's port of the control connection.
pub const CONTROL_PORT: u32 = 1025;

/// The image in the VMM's jail.
pub const IMAGE: &str = "/image";
/// The disk of the upper layer in the jail.
pub const DISK: &str = "/disk";
/// The directory of the sockets in the jail.
pub const SOCKETS: &str = "/run";
/// The agent's socket in it, which libkrun creates.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The control connection's socket in it, which exists.
pub const CONTROL_SOCKET: &str = "control.sock";

/// A machine for libkrun, in a jail of the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmm {
    /// The library with the guest's kernel.
    pub krunfw: PathBuf,
    /// Processors.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The agent, which is the guest's first process.
    pub agent: PathBuf,
    /// The agent's options, as `NAME=value`.
    pub options: Vec<String>,
}

impl Vmm {
    /// Returns the arguments of `msb-runner vmm`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["vmm".into()];
        let mut pair = |option: &str, value: OsString| {
            all.push(option.into());
            all.push(value);
        };
        pair("--krunfw", self.krunfw.clone().into());
        pair("--cpus", self.cpus.to_string().into());
        pair("--memory", self.memory_mib.to_string().into());
        pair("--agent", self.agent.clone().into());
        self.options.iter().for_each(|value| pair("--tell", value.into()));
        all
    }
}
