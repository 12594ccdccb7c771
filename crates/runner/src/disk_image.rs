//! Filesystems in sparse files, which the host's kernel mounts.
//!
//! Only for files that no guest can write as a device: the kernel trusts what it mounts.
//!
//! While a file is mounted, the loop device holds a lock on it, and the next start waits for that:
//! it is never mounted twice.

use crate::sys::loop_device;
use msb_driver::on_path;
use msb_state::{Failure, check_trusted, create_private_dir};
use rustix::fs::{FlockOperation, SeekFrom, copy_file_range, flock, ioctl_ficlone, seek};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
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

/// Why a file was not mounted.
#[derive(Debug)]
pub(crate) struct AttachError {
    /// Whether no loop device is available or can be mounted, rather than the file being at fault.
    pub(crate) is_outside: bool,
    /// What failed.
    pub(crate) failure: Failure,
}

impl AttachError {
    /// Creates the error of a file that is at fault itself.
    pub(crate) fn own(failure: Failure) -> AttachError {
        AttachError { is_outside: false, failure }
    }

    fn outside(action: &str, image: &Path, error: io::Error) -> AttachError {
        AttachError { is_outside: true, failure: Failure::boot_io(action, image, error) }
    }
}

/// An open file with a filesystem that nobody else has mounted.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    path: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Image {
    /// Opens a file and waits until it is mounted nowhere.
    pub(crate) fn open(path: &Path) -> Result<Image, Failure> {
        let failed = |action: &str, error: io::Error| Failure::boot_io(action, path, error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| failed("open", error))?;
        lock(&file).map_err(|error| match error {
            Errno::BUSY => Failure::boot(format!("another sandbox uses {}", path.display())),
            error => failed("lock", error.into()),
        })?;
        let bytes = file.metadata().map_err(|error| failed("inspect", error))?.len();
        Ok(Image { file, path: path.to_path_buf(), bytes })
    }

    /// Mounts it at a directory, which is created.
    pub(crate) fn mount(&self, at: &Path) -> Result<(), AttachError> {
        let image = &self.path;
        check(&self.file, image).map_err(AttachError::own)?;
        let (device, path) = loop_device::attach(&self.file)
            .map_err(|error| AttachError::outside("attach a loop device to", image, error))?;
        create_private_dir(at)
            .map_err(|error| AttachError::own(Failure::boot(error.to_string())))?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount(&path, at, "ext4", flags, MOUNT_OPTIONS)
            .map_err(|error| AttachError::outside("mount", image, error.into()))?;
        // The mount holds the device from here on.
        drop(device);
        Ok(())
    }
}

/// Creates a file with an empty filesystem of a size in MiB.
pub(crate) fn create(image: &Path, cache: &Path, mkfs: &Path, mib: u64) -> Result<(), Failure> {
    let template = template(cache, mkfs, mib)?;
    copy(&template, image).map_err(|error| Failure::boot_io("create", image, error))
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
    let made = create_template(&half, mkfs, mib).and_then(|()| {
        fs::rename(&half, &path).map_err(|error| Failure::boot_io("create", &path, error))
    });
    if made.is_err() {
        let _ = fs::remove_file(&half);
    }
    made.map(|()| path)
}

fn create_template(path: &Path, mkfs: &Path, mib: u64) -> Result<(), Failure> {
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
    use msb_driver::probe_disk;
    use msb_state::DEFAULT_DISK_MIB;
    use std::os::unix::fs::MetadataExt;

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
