//! What the process that becomes the VMM is told.

use std::ffi::OsString;
use std::path::PathBuf;

/// The guest's port that the library's connections go to.
pub const AGENT_PORT: u32 = 1024;
/// The host's port on which the agent says that it is there, and that it goes.
pub const CONTROL_PORT: u32 = 1025;

/// Where things are in the VMM's jail.
pub const IMAGE: &str = "/image";
/// The disk of the sandbox's own layer.
pub const DISK: &str = "/disk";
/// The directory of the sockets.
pub const SOCKETS: &str = "/run";
/// The socket of the agent in it, which libkrun makes.
pub const AGENT_SOCKET: &str = "agent.sock";
/// The socket in it on which the agent reports, which is there.
pub const CONTROL_SOCKET: &str = "control.sock";

/// A machine for libkrun to run, in the jail that the runner describes.
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
    /// What the agent is told, as `NAME=value`.
    pub words: Vec<String>,
}

impl Vmm {
    /// The arguments of `msb-runner vmm`.
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
        self.words.iter().for_each(|word| pair("--tell", word.into()));
        all
    }
}
