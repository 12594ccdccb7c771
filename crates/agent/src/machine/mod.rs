//! The agent as the first process of a virtual machine: what an init system does elsewhere.
//!
//! ```text
//!  initramfs or a filesystem of libkrun's, with nothing in it but the agent
//!    └ /msb  tmpfs:  lower  the image, by virtiofs, read-only
//!                    disk   the sandbox's own layer, ext4 on the first block device
//!                    root   both in an overlay; becomes /
//! ```
//!
//! Owns: mounts, host name, loopback, clock, the way to the host, and the power-off. Does not own:
//! what is done once the host can connect, which is the same in every kind of sandbox.
//!
//! Invariant: the machine ends when the agent does, and the host is told before that it was wanted;
//! an end that was not announced is a crash.

mod entrance;
mod mounts;

use crate::sys;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

pub use entrance::Way;
pub(crate) use entrance::{Entrance, Farewell};

/// What the host tells the machine through the kernel's command line, which hands it on as the
/// first process's environment.
#[derive(Debug)]
pub struct Settings {
    /// How the host is reached.
    pub way: Way,
    /// The machine's host name.
    pub hostname: Option<OsString>,
    /// Whether commands get what a container's get, and not all that root may.
    pub restricted: bool,
}

impl Settings {
    /// Reads them; `None` in a process that is no machine's first.
    pub fn from_environment() -> Option<Self> {
        if std::process::id() != 1 {
            return None;
        }
        let way = match std::env::var("MSB_MACHINE").ok()?.as_str() {
            "serial" => Way::Serial,
            "vsock" => Way::Vsock,
            _ => return None,
        };
        let restricted = std::env::var_os("MSB_SECURITY").is_some_and(|word| word == "restricted");
        Some(Settings { way, hostname: std::env::var_os("MSB_HOSTNAME"), restricted })
    }
}

/// Makes a machine of a booted kernel: mounts, devices, names. What failed comes back in words;
/// the host shows the console to whoever wants to know.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    mounts::kernel_filesystems().map_err(|error| error.to_string())?;
    entrance::hold_devices().map_err(|error| format!("the devices: {error}"))?;
    sys::open_standard_streams().map_err(|error| format!("standard streams: {error}"))?;
    mounts::load_modules().map_err(|error| error.to_string())?;
    settings.way.check().map_err(|error| format!("the way to the host: {error}"))?;
    mounts::root(settings.restricted).map_err(|error| error.to_string())?;
    sys::loopback_up().map_err(|error| format!("the loopback interface: {error}"))?;
    sys::limit_descriptors();
    if let Some(name) = &settings.hostname {
        let name = name.clone().into_vec();
        rustix::system::sethostname(&name).map_err(|error| format!("the host name: {error}"))?;
        mounts::hosts(&name).map_err(|error| error.to_string())?;
    }
    if settings.restricted {
        mounts::close_kernel_files().map_err(|error| error.to_string())?;
        sys::restrict_commands();
    }
    // Before any thread is made, so that all have it.
    sys::raise_priority();
    Ok(())
}

/// Ends the machine. By a reset: neither kernel can switch the power off on the machines that they
/// run on, and both engines take a reset for the end.
pub fn end() -> ! {
    rustix::fs::sync();
    loop {
        // Fails only without the right to, which the first process has.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
        std::thread::park_timeout(std::time::Duration::from_secs(1));
    }
}
