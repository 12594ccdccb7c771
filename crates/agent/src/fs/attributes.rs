//! Attributes of files.

use super::error::{Result, failed, invalid};
use super::root::{Location, Root, SAFE, check, check_open, descriptor_path};
use msb_wire::{FsAttributes, FsFileKind, FsStat, FsTime};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    UTIME_OMIT, Uid,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

const SET: &str = "set attributes of";
const NANOS: u32 = 1_000_000_000;

/// Returns the attributes of a path.
pub(super) fn stat(root: &Root, path: &[u8], follow: bool) -> Result<FsStat> {
    check("stat", path)?;
    let found = match follow {
        true => root.open_path(path, super::root::NAME).and_then(|fd| stat_open(fd.as_fd())),
        false => root.place(path).and_then(|place| stat_at(&place.directory, &place.name)),
    };
    found.map_err(failed("stat", path))
}

/// Returns the attributes of an open file.
pub(super) fn stat_open(fd: BorrowedFd<'_>) -> rustix::io::Result<FsStat> {
    statx(fd, b"", AtFlags::EMPTY_PATH)
}

/// Returns the attributes of a name, without following it.
pub(super) fn stat_at(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<FsStat> {
    statx(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
}

fn statx(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<FsStat> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = rustix::fs::statx(at, name, flags, wanted)?;
    let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(FsStat {
        kind: kind(FileType::from_raw_mode(found.stx_mode.into())),
        size: found.stx_size.min(i64::MAX as u64),
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        created: has_birth.then(|| time(found.stx_btime)),
        links: found.stx_nlink.into(),
        inode: found.stx_ino,
        device: device(&found),
        allocated: found.stx_blocks.saturating_mul(512),
    })
}

fn device(found: &Statx) -> u64 {
    rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor)
}

fn time(time: StatxTimestamp) -> FsTime {
    FsTime { seconds: time.tv_sec, nanos: time.tv_nsec.min(NANOS - 1) }
}

fn kind(kind: FileType) -> FsFileKind {
    match kind {
        FileType::RegularFile => FsFileKind::File,
        FileType::Directory => FsFileKind::Directory,
        FileType::Symlink => FsFileKind::Symlink,
        FileType::Fifo => FsFileKind::Fifo,
        FileType::Socket => FsFileKind::Socket,
        FileType::CharacterDevice => FsFileKind::CharDevice,
        FileType::BlockDevice => FsFileKind::BlockDevice,
        FileType::Unknown => FsFileKind::Other,
    }
}

/// Changes attributes of a path.
pub(super) fn set(root: &Root, path: &[u8], follow: bool, new: &FsAttributes) -> Result<()> {
    check(SET, path)?;
    check_values(path, new)?;
    let place = if follow { root.target(path) } else { root.place(path) };
    let place = place.map_err(failed(SET, path))?;
    if let Some(size) = new.size {
        let file = place.open(OFlags::WRONLY | SAFE, Mode::empty()).map_err(failed(SET, path))?;
        check_open(SET, path, file.as_fd(), false)?;
        rustix::fs::ftruncate(&file, size).map_err(failed(SET, path))?;
    }
    set_at(&place, new).map_err(failed(SET, path))
}

fn set_at(place: &Location, new: &FsAttributes) -> rustix::io::Result<()> {
    let name = place.name.as_slice();
    if new.uid.is_some() || new.gid.is_some() {
        let (uid, gid) = owner(new);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&place.directory, name, uid, gid, flags)?;
    }
    if let Some(mode) = new.mode {
        chmod(place, mode)?;
    }
    if let Some(times) = timestamps(new.accessed, new.modified) {
        rustix::fs::utimensat(&place.directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Sets a mode, of anything but a link, whatever takes its place meanwhile.
fn chmod(place: &Location, mode: u32) -> rustix::io::Result<()> {
    let fd = place.open(OFlags::PATH, Mode::empty())?;
    let mode = Mode::from_raw_mode(mode);
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    match kind {
        FileType::Symlink => return Err(Errno::OPNOTSUPP),
        FileType::RegularFile | FileType::Directory => {
            match place.open(OFlags::RDONLY | SAFE, Mode::empty()) {
                Ok(file) => return rustix::fs::fchmod(&file, mode),
                Err(Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            }
        }
        // Opening a device can have an effect.
        _ => {}
    }
    // There is no call for a descriptor that only names a file (before Linux 6.6).
    rustix::fs::chmod(descriptor_path(fd.as_fd()).as_slice(), mode)
}

/// Changes attributes of an open file.
pub(super) fn set_open(fd: BorrowedFd<'_>, new: &FsAttributes) -> Result<()> {
    check_values(b"", new)?;
    let set = || {
        if let Some(size) = new.size {
            rustix::fs::ftruncate(fd, size)?;
        }
        if new.uid.is_some() || new.gid.is_some() {
            let (uid, gid) = owner(new);
            rustix::fs::fchown(fd, uid, gid)?;
        }
        if let Some(mode) = new.mode {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
        }
        match timestamps(new.accessed, new.modified) {
            Some(times) => rustix::fs::futimens(fd, &times),
            None => Ok(()),
        }
    };
    set().map_err(failed(SET, b""))
}

fn owner(new: &FsAttributes) -> (Option<Uid>, Option<Gid>) {
    (new.uid.map(Uid::from_raw), new.gid.map(Gid::from_raw))
}

/// Checks numbers that the kernel would take for something else.
fn check_values(path: &[u8], new: &FsAttributes) -> Result<()> {
    check_mode(SET, path, new.mode)?;
    check_owner(SET, path, new.uid, new.gid)?;
    let times = [new.accessed, new.modified];
    if times.iter().flatten().any(|time| time.nanos >= NANOS) {
        return Err(invalid(SET, path, "a time has more than 999999999 nanoseconds"));
    }
    match new.size {
        Some(size) if i64::try_from(size).is_err() => Err(failed(SET, path)(Errno::FBIG)),
        _ => Ok(()),
    }
}

/// Checks a mode.
pub(super) fn check_mode(operation: &'static str, path: &[u8], mode: Option<u32>) -> Result<()> {
    match mode {
        Some(mode) if mode > 0o7777 => {
            Err(invalid(operation, path, &format!("{mode:o} is no mode of a file")))
        }
        _ => Ok(()),
    }
}

/// Checks that no id is the one that means "unchanged" to the kernel.
pub(super) fn check_owner(
    operation: &'static str,
    path: &[u8],
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<()> {
    match [uid, gid].contains(&Some(u32::MAX)) {
        true => Err(invalid(operation, path, "4294967295 is no user or group id")),
        false => Ok(()),
    }
}

/// Returns times for a call; `None` if there is nothing to set.
pub(super) fn timestamps(accessed: Option<FsTime>, modified: Option<FsTime>) -> Option<Timestamps> {
    let time = |time: Option<FsTime>| match time {
        Some(FsTime { seconds, nanos }) => Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
    (accessed.is_some() || modified.is_some()).then_some(times)
}
