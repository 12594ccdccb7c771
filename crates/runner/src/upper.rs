//! The upper layer of a container's root filesystem, and its size limit.
//!
//! If the runner is root, the layer is a filesystem in a sparse file: a guest that fills it gets
//! ENOSPC, and it is removed as one file. Otherwise its size is not limited.
//!
//! While the file is mounted, the loop device holds a lock on it, and the next start waits for
//! that: it is never mounted twice.

use crate::sys::loop_device;
use msb_driver::{on_path, probe_disk};
use msb_state::{
    DEFAULT_DISK_MIB, Failure, SandboxConfig, SandboxDir, check_trusted, create_private_dir,
};
use rustix::fs::{FlockOperation, SeekFrom, copy_file_range, flock, ioctl_ficlone, seek};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the file may stay in use after the sandbox has ended.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
const RELEASE_PAUSE: Duration = Duration::from_millis(2);
/// Options of mkfs. No journal: the layer is temporary, and `e2fsck` repairs it after a crash of
/// the host. All metadata at the start, so that a copy has few extents. No blocks reserved for
/// root.
const OPTIONS: [&str; 8] = [
    "-q",
    "-F",
    "-m",
    "0",
    "-O",
    "^has_journal,^resize_inode",
    "-E",
    "lazy_itable_init=1,nodiscard,root_owner=0:0,packed_meta_blocks=1",
];
/// The inode tables of a sparse file are zero already: no lazy initialisation. No barriers: without
/// a journal the order of writes does not matter, and they would flush the host's disk at each
/// mount and unmount.
const MOUNT_OPTIONS: &std::ffi::CStr = c"noinit_itable,nobarrier,errors=remount-ro";

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

fn is_root_of_host() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all: Vec<&str> = map.split_whitespace().collect();
    rustix::process::geteuid().is_root() && all == ["0", "0", "4294967295"]
}

fn bounded(dir: &SandboxDir, cache: &Path, mkfs: &Path, mib: u64) -> Result<DiskBound, Failure> {
    let (image, bytes) = (dir.layers_image(), mib.saturating_mul(1024 * 1024));
    let fresh = !image.exists();
    if fresh {
        let template = template(cache, mkfs, mib)?;
        copy(&template, &image).map_err(|error| Failure::boot_io("create", &image, error))?;
    }
    match attach(dir, &image, bytes) {
        Err(error) if fresh && error.kind == AttachErrorKind::Loop => {
            fs::remove_file(&image).map_err(|error| Failure::boot_io("remove", &image, error))?;
            Ok(DiskBound::None(error.failure.message))
        }
        Err(error) => Err(error.failure),
        Ok(()) => Ok(DiskBound::Bytes(bytes)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum AttachErrorKind {
    /// No loop device is available, or it cannot be mounted.
    Loop,
    /// The file itself is at fault.
    Image,
}

#[derive(Debug)]
struct AttachError {
    kind: AttachErrorKind,
    failure: Failure,
}

fn attach(dir: &SandboxDir, image: &Path, bytes: u64) -> Result<(), AttachError> {
    let own = |failure| AttachError { kind: AttachErrorKind::Image, failure };
    let failed = |action: &str, error: io::Error| own(Failure::boot_io(action, image, error));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(image)
        .map_err(|error| failed("open", error))?;
    lock(&file).map_err(|error| failed("lock", error.into()))?;
    let length = file.metadata().map_err(|error| failed("inspect", error))?.len();
    if length != bytes {
        let (name, mib) = (dir.name(), length >> 20);
        let text = format!("cannot change the disk of sandbox {name}: it has {mib} MiB");
        return Err(own(Failure::invalid_config(text).hint("remove it and create it anew")));
    }
    check(&file, image).map_err(own)?;
    let outside = |action: &str, error: io::Error| AttachError {
        kind: AttachErrorKind::Loop,
        failure: Failure::boot_io(action, image, error),
    };
    let (device, path) =
        loop_device::attach(&file).map_err(|error| outside("attach a loop device to", error))?;
    create_private_dir(&dir.layers()).map_err(|error| own(Failure::boot(error.to_string())))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount(&path, dir.layers(), "ext4", flags, MOUNT_OPTIONS)
        .map_err(|error| outside("mount", error.into()))?;
    // The mount holds the device from here on.
    drop(device);
    Ok(())
}

/// Waits until the file is mounted nowhere else. The loop device keeps the lock with the open file.
fn lock(file: &File) -> Result<(), Errno> {
    let deadline = Instant::now() + RELEASE_LIMIT;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(RELEASE_PAUSE);
            }
            Err(Errno::WOULDBLOCK) => return Err(Errno::BUSY),
            result => return result,
        }
    }
}

/// Repairs a filesystem that was mounted when the host crashed: `EXT4_VALID_FS` is not set in
/// `s_state` of the superblock.
fn check(file: &File, image: &Path) -> Result<(), Failure> {
    let mut state = [0; 2];
    file.read_exact_at(&mut state, 1024 + 0x3A)
        .map_err(|error| Failure::boot_io("read", image, error))?;
    if u16::from_le_bytes(state) & 1 != 0 {
        return Ok(());
    }
    let program = on_path("e2fsck", &["/usr/sbin", "/sbin"]).ok_or_else(|| {
        let text = format!("cannot repair {}: e2fsck is not installed", image.display());
        Failure::boot(text).hint("apt-get install e2fsprogs")
    })?;
    check_trusted(&program).map_err(|error| Failure::boot(error.to_string()))?;
    let status = Command::new(program)
        .args(["-p", "-f"])
        .arg(image)
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failure::boot_io("repair", image, error))?;
    // 0: nothing to do, 1: repaired.
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(Failure::boot_io("repair", image, io::Error::other(format!("e2fsck {status}")))),
    }
}

/// Returns the template of an empty filesystem of a size, created on first use.
fn template(cache: &Path, mkfs: &Path, mib: u64) -> Result<PathBuf, Failure> {
    let path = cache.join(format!("layers-1-{mib}.img"));
    if path.exists() {
        return Ok(path);
    }
    create_private_dir(cache).map_err(|error| Failure::boot(error.to_string()))?;
    let half = cache.join(format!("layers-1-{mib}.img.{}", std::process::id()));
    let made = create(&half, mkfs, mib).and_then(|()| {
        fs::rename(&half, &path).map_err(|error| Failure::boot_io("create", &path, error))
    });
    if made.is_err() {
        let _ = fs::remove_file(&half);
    }
    made.map(|()| path)
}

fn create(path: &Path, mkfs: &Path, mib: u64) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::boot_io("create", path, error);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.set_len(mib.saturating_mul(1024 * 1024)).map_err(failed)?;
    let output = Command::new(mkfs)
        .args(OPTIONS)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::boot_io("run", mkfs, error))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = format!("cannot create a filesystem of {mib} MiB: {}: {stderr}", output.status);
    Err(Failure::boot(text))
}

/// Copies a sparse file: by reflink if the filesystem can, else extent by extent.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let half = to.with_extension("new");
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)?;
    if ioctl_ficlone(&target, &source).is_err() {
        copy_data(&source, &target)?;
    }
    fs::rename(&half, to)
}

fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut at = 0;
    loop {
        let start = match seek(source, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(()),
            found => found?,
        };
        let end = seek(source, SeekFrom::Hole(start))?;
        let (mut from, mut to) = (start, start);
        while from < end {
            let count = usize::try_from(end - from).unwrap_or(usize::MAX);
            if copy_file_range(source, Some(&mut from), target, Some(&mut to), count)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_template_is_sparse_and_so_is_its_copy() {
        let scratch = tempfile::tempdir().unwrap();
        let Ok(mkfs) = probe_disk() else { return };
        let made = template(scratch.path(), &mkfs, DEFAULT_DISK_MIB).unwrap();
        assert_eq!(template(scratch.path(), &mkfs, DEFAULT_DISK_MIB).unwrap(), made);
        let to = scratch.path().join("copy.img");
        copy(&made, &to).unwrap();
        let (one, other) = (fs::metadata(&made).unwrap(), fs::metadata(&to).unwrap());
        assert_eq!((one.len(), other.len()), (DEFAULT_DISK_MIB << 20, DEFAULT_DISK_MIB << 20));
        assert!(other.blocks() * 512 < 4 << 20, "{} KiB", other.blocks() / 2);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
        check(&File::open(&to).unwrap(), &to).unwrap();
    }
}
