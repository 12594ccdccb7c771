//! The upper layer of a container's root filesystem, and its size limit.
//!
//! If the runner is root, the layer is a filesystem in a sparse file: a guest that fills it gets
//! ENOSPC, and it is removed as one file. Otherwise its size is not limited.

use crate::disk_image::{AttachError, Image, create};
use msb_driver::probe_disk;
use msb_state::{DEFAULT_DISK_MIB, Failure, SandboxConfig, SandboxDir};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The size limit of the upper layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskBound {
    /// A number of bytes.
    Bytes(u64),
    /// None, for this reason.
    None(String),
}

/// Returns the upper directory and the work directory of the overlay.
pub(crate) fn paths(dir: &SandboxDir) -> (PathBuf, PathBuf) {
    if dir.layers_image().exists() {
        return (dir.layers().join("upper"), dir.layers().join("work"));
    }
    (dir.upper(), dir.work())
}

/// Prepares the upper layer of a sandbox, with the mode and owner of the image's root directory, and
/// returns its size limit.
pub(crate) fn prepare(
    dir: &SandboxDir,
    config: &SandboxConfig,
    cache: &Path,
) -> Result<DiskBound, Failure> {
    let mib = config.disk_mib.unwrap_or(DEFAULT_DISK_MIB);
    let bound = match find_mkfs(dir) {
        Ok(mkfs) => bounded(dir, cache, &mkfs, mib),
        Err(why) => Ok(DiskBound::None(why)),
    }?;
    let (upper, work) = paths(dir);
    let image = config.image.as_path();
    for path in [&upper, &work] {
        fs::create_dir_all(path)
            .map_err(|error| Failure::boot_io("create directory", path, error))?;
    }
    let mut entries =
        fs::read_dir(&upper).map_err(|error| Failure::boot_io("read", &upper, error))?;
    if entries.next().is_none() {
        // The root directory has the mode of the upper directory; users other than root need it.
        let like =
            fs::metadata(image).map_err(|error| Failure::boot_io("inspect", image, error))?;
        // Fails for an owner that the user namespace does not have: the directory stays root's.
        let _ = chown(&upper, Some(like.uid()), Some(like.gid()));
        fs::set_permissions(&upper, Permissions::from_mode(like.mode() & 0o7777))
            .map_err(|error| Failure::boot_io("set the mode of", &upper, error))?;
    }
    Ok(bound)
}

/// Unmounts the upper layer, if it is mounted here.
pub(crate) fn release(dir: &SandboxDir) -> Result<(), Failure> {
    match unmount(dir.layers(), UnmountFlags::DETACH) {
        // No mount, or no such directory.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => Ok(()),
        Err(error) => Err(Failure::boot_io("unmount", &dir.layers(), error)),
    }
}

/// Returns the mkfs program, or why the size cannot be limited.
fn find_mkfs(dir: &SandboxDir) -> Result<PathBuf, String> {
    if !is_root_of_host() {
        return Err("only root can mount a bounded upper layer".to_owned());
    }
    let has_layer =
        |path: PathBuf| fs::read_dir(path).is_ok_and(|mut found| found.next().is_some());
    if has_layer(dir.upper()) {
        return Err("an earlier version made the upper layer".to_owned());
    }
    if dir.layers_image().exists() {
        // It exists: mkfs is not needed, and the layer must not be lost without it.
        return Ok(PathBuf::new());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("/dev/loop-control does not exist".to_owned());
    }
    probe_disk().map_err(|(why, remedy)| format!("{why}; {remedy}"))
}

/// Returns whether this process is root outside of every user namespace.
pub(crate) fn is_root_of_host() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all: Vec<&str> = map.split_whitespace().collect();
    rustix::process::geteuid().is_root() && all == ["0", "0", "4294967295"]
}

fn bounded(dir: &SandboxDir, cache: &Path, mkfs: &Path, mib: u64) -> Result<DiskBound, Failure> {
    let (image, bytes) = (dir.layers_image(), mib.saturating_mul(1024 * 1024));
    let fresh = !image.exists();
    if fresh {
        create(&image, cache, mkfs, mib)?;
    }
    match attach(dir, &image, bytes) {
        Err(error) if fresh && error.is_outside => {
            fs::remove_file(&image).map_err(|error| Failure::boot_io("remove", &image, error))?;
            Ok(DiskBound::None(error.failure.message))
        }
        Err(error) => Err(error.failure),
        Ok(()) => Ok(DiskBound::Bytes(bytes)),
    }
}

fn attach(dir: &SandboxDir, image: &Path, bytes: u64) -> Result<(), AttachError> {
    let file = Image::open(image).map_err(AttachError::own)?;
    if file.bytes != bytes {
        let (name, mib) = (dir.name(), file.bytes >> 20);
        let text = format!("cannot change the disk of sandbox {name}: it has {mib} MiB");
        let failure = Failure::invalid_config(text).hint("remove it and create it again");
        return Err(AttachError::own(failure));
    }
    file.mount(&dir.layers())
}
