//! Removes what a sandbox leaves on the host.

use crate::upper;
use msb_driver::Driver;
use msb_state::{Failure, SandboxDir, remove_tree};
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;
use std::{fs, io};

/// Removes everything but the sandbox's configuration, files and logs.
///
/// The link to the directory of the sockets goes last: while it exists, the next call cleans up.
pub(crate) async fn clean(
    drivers: &[Box<dyn Driver>],
    dir: &SandboxDir,
    mounted: Option<&Path>,
) -> Result<(), Failure> {
    for driver in drivers {
        driver.sweep(dir).await?;
    }
    if let Some(rootfs) = mounted {
        unmount(rootfs, UnmountFlags::DETACH)
            .map_err(|error| Failure::boot_io("unmount", rootfs, error))?;
    }
    upper::release(dir)?;
    let text = |error: msb_state::Error| Failure::boot(error.to_string());
    for tree in [dir.work(), dir.rootfs(), dir.bundle()] {
        remove_tree(&tree).map_err(text)?;
    }
    let link = dir.run();
    match fs::read_link(&link) {
        Ok(run) => {
            remove_tree(&run).map_err(text)?;
            fs::remove_file(&link).map_err(|error| Failure::boot_io("remove", &link, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::boot_io("read", &link, error)),
    }
}
