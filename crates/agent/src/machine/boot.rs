//! The steps from a booted kernel to a machine that runs commands.

use super::host::{self, HostLink};
use super::mounts;
use crate::sys;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The settings of a machine, from the kernel's command line, which the kernel passes to the init
/// process as its environment.
#[derive(Debug)]
pub struct Settings {
    /// How the host is reached.
    pub link: HostLink,
    /// The machine's host name.
    pub hostname: Option<OsString>,
    /// Size of `/dev/shm` in bytes; the kernel's default without it.
    pub shm_bytes: Option<u64>,
    /// Whether commands have the rights of a container's commands only.
    pub restricted: bool,
}

impl Settings {
    /// Reads the settings; `None` in a process that is not the init process of a machine.
    pub fn from_environment() -> Option<Self> {
        if std::process::id() != 1 {
            return None;
        }
        let link = match std::env::var("MSB_MACHINE").ok()?.as_str() {
            "serial" => HostLink::Serial,
            "vsock" => HostLink::Vsock,
            _ => return None,
        };
        let restricted = std::env::var_os("MSB_SECURITY").is_some_and(|word| word == "restricted");
        let shm_bytes = std::env::var("MSB_SHM").ok().and_then(|text| text.parse().ok());
        let hostname = std::env::var_os("MSB_HOSTNAME");
        Some(Settings { link, hostname, shm_bytes, restricted })
    }
}

/// Prepares the machine: mounts, devices, names. Returns an error text for the console.
pub fn prepare(settings: &Settings) -> Result<(), String> {
    mounts::mount_kernel_file_systems().map_err(|error| error.to_string())?;
    host::open_devices().map_err(|error| format!("cannot open /dev: {error}"))?;
    sys::open_standard_streams()
        .map_err(|error| format!("cannot open the standard streams: {error}"))?;
    mounts::load_modules().map_err(|error| error.to_string())?;
    settings.link.check().map_err(|error| format!("cannot use the link to the host: {error}"))?;
    mounts::mount_root(settings.restricted, settings.shm_bytes)
        .map_err(|error| error.to_string())?;
    sys::loopback_up().map_err(|error| format!("cannot enable the loopback interface: {error}"))?;
    // Every user may listen on every port, as in a container. Fails on kernels without IPv4.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    sys::limit_descriptors();
    if let Some(name) = &settings.hostname {
        let name = name.clone().into_vec();
        rustix::system::sethostname(&name)
            .map_err(|error| format!("cannot set the host name: {error}"))?;
        mounts::mount_hosts(&name).map_err(|error| error.to_string())?;
    }
    if settings.restricted {
        mounts::protect_kernel_files().map_err(|error| error.to_string())?;
        sys::confine_commands(sys::Confinement::Container);
    }
    // Before any thread starts, so that all have it.
    sys::raise_priority();
    Ok(())
}

/// Ends the machine by a reset: neither kernel can switch the power off, and both VMMs take a reset
/// for the end.
pub fn reset() -> ! {
    rustix::fs::sync();
    loop {
        // Fails only without CAP_SYS_BOOT, which the init process has.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
        std::thread::park_timeout(std::time::Duration::from_secs(1));
    }
}
