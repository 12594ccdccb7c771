//! The list of drivers.

use crate::sys;
use msb_driver::{Driver, Users};
use msb_driver_gvisor::GvisorDriver;
use msb_driver_krun::KrunDriver;
use msb_driver_oci::ContainerDriver;
use msb_driver_qemu::QemuDriver;
use msb_state::SandboxDir;
use std::path::{Path, PathBuf};

/// Returns every driver, in the order in which `auto` tries them.
pub(crate) fn drivers(cache: &Path, agent: &Path, users: Users) -> Vec<Box<dyn Driver>> {
    let program = std::env::current_exe().ok();
    // Without a launcher a half-made container may appear after a sweep; the next sweep removes it.
    let launcher = |task: [&str; 2]| match &program {
        Some(program) => vec![program.clone(), task[0].into(), task[1].into()],
        None => Vec::new(),
    };
    let pid = std::process::id().to_string();
    let home = cache.parent().unwrap_or(Path::new("/nonexistent"));
    let qemu = msb_driver_qemu::Settings {
        home: home.to_path_buf(),
        cache: cache.to_path_buf(),
        launcher: launcher(["jail", "--"]),
        tsc_khz: sys::tsc_khz,
    };
    let krun = msb_driver_krun::Settings { vmm: program.clone().unwrap_or_default() };
    let gvisor = msb_driver_gvisor::Settings {
        home: home.to_path_buf(),
        cache: cache.to_path_buf(),
        agent: agent.to_path_buf(),
        launcher: launcher(["jail", "--"]),
        users,
    };
    let container = msb_driver_oci::Settings {
        cache: cache.to_path_buf(),
        agent: agent.to_path_buf(),
        launcher: launcher(["bound", &pid]),
        users,
    };
    vec![
        Box::new(KrunDriver::new(krun)),
        Box::new(QemuDriver::new(qemu)),
        Box::new(GvisorDriver::new(gvisor)),
        Box::new(ContainerDriver::new(container)),
    ]
}

/// Returns the cache directory of a sandbox's home.
pub(crate) fn cache_of(dir: &SandboxDir) -> PathBuf {
    let home = dir.path().parent().and_then(Path::parent);
    home.unwrap_or(Path::new("/nonexistent")).join("cache")
}
