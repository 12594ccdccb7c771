//! Attributes, entries and options of files.

use crate::error::{Error, MicrosandboxResult};
use msb_wire::{FsAttributes, FsFileKind, FsOpen, FsStat, FsTime, FsWrite, FsWriteStart};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An open file or directory of a sandbox; see
/// [`SandboxFsOps::open_file`](crate::SandboxFsOps::open_file).
pub type FsHandle = u64;

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FsEntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Other,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsEntry {
    /// Its path; what is not UTF-8 is replaced. See [`FsEntry::name`].
    pub path: String,
    /// Its name in the directory: any bytes.
    pub name: OsString,
    /// Its type; a link is not followed.
    pub kind: FsEntryKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its permissions with set-user-id, set-group-id and sticky bit.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Time of the last access.
    pub accessed: Option<SystemTime>,
    /// Time of the last change of the content.
    pub modified: Option<SystemTime>,
    /// All attributes.
    pub metadata: FsMetadata,
}

/// The attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsMetadata {
    /// Its type.
    pub kind: FsEntryKind,
    /// Its length in bytes; of a link, of what it says.
    pub size: u64,
    /// Its permissions with set-user-id, set-group-id and sticky bit.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether nobody may write to it.
    pub readonly: bool,
    /// Time of the last access.
    pub accessed: Option<SystemTime>,
    /// Time of the last change of the content.
    pub modified: Option<SystemTime>,
    /// Time of the last change of the attributes.
    pub changed: Option<SystemTime>,
    /// Time of creation, where the file system records it.
    pub created: Option<SystemTime>,
    /// Number of hard links.
    pub links: u64,
    /// Number of the file in its file system.
    pub inode: u64,
    /// Number of the file system.
    pub device: u64,
    /// Bytes on the disk.
    pub allocated: u64,
    /// The letter with which `ls -l` shows its type: one of `-dlpscb?`.
    pub type_letter: char,
}

impl From<FsStat> for FsMetadata {
    fn from(stat: FsStat) -> FsMetadata {
        let (kind, type_letter) = match stat.kind {
            FsFileKind::File => (FsEntryKind::File, '-'),
            FsFileKind::Directory => (FsEntryKind::Directory, 'd'),
            FsFileKind::Symlink => (FsEntryKind::Symlink, 'l'),
            FsFileKind::Fifo => (FsEntryKind::Other, 'p'),
            FsFileKind::Socket => (FsEntryKind::Other, 's'),
            FsFileKind::CharDevice => (FsEntryKind::Other, 'c'),
            FsFileKind::BlockDevice => (FsEntryKind::Other, 'b'),
            FsFileKind::Other => (FsEntryKind::Other, '?'),
        };
        FsMetadata {
            kind,
            size: stat.size,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            readonly: stat.mode & 0o222 == 0,
            accessed: system_time(stat.accessed),
            modified: system_time(stat.modified),
            changed: system_time(stat.changed),
            created: stat.created.and_then(system_time),
            links: stat.links,
            inode: stat.inode,
            device: stat.device,
            allocated: stat.allocated,
            type_letter,
        }
    }
}

impl FsEntry {
    pub(super) fn new(directory: &[u8], entry: msb_wire::FsEntry) -> FsEntry {
        let name = OsString::from_vec(entry.name);
        let slash = if directory.ends_with(b"/") || directory.is_empty() { "" } else { "/" };
        let directory = String::from_utf8_lossy(directory);
        let path = format!("{directory}{slash}{}", name.to_string_lossy());
        let metadata = FsMetadata::from(entry.stat);
        FsEntry {
            path,
            name,
            kind: metadata.kind,
            size: metadata.size,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            accessed: metadata.accessed,
            modified: metadata.modified,
            metadata,
        }
    }
}

/// New attributes of a file; absent ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsSetAttrs {
    /// Permissions with set-user-id, set-group-id and sticky bit: at most 0o7777.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file, cut or extended by a hole.
    pub size: Option<u64>,
    /// Time of the last access.
    pub accessed: Option<SystemTime>,
    /// Time of the last change of the content.
    pub modified: Option<SystemTime>,
}

impl FsSetAttrs {
    pub(super) fn wire(self) -> MicrosandboxResult<FsAttributes> {
        check_mode(self.mode)?;
        check_owner(self.uid, self.gid)?;
        Ok(FsAttributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            accessed: self.accessed.map(wire_time).transpose()?,
            modified: self.modified.map(wire_time).transpose()?,
            size: self.size,
        })
    }
}

/// How a file is opened; see [`SandboxFsOps::open_file`](crate::SandboxFsOps::open_file).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FsOpenOptions {
    /// To read. Nothing set means this.
    pub read: bool,
    /// To write.
    pub write: bool,
    /// To write at the end, always.
    pub append: bool,
    /// Create the file if it does not exist. Needs `write` or `append`.
    pub create: bool,
    /// Fail if it exists. Needs `create`.
    pub create_new: bool,
    /// Empty the file. Needs `write`.
    pub truncate: bool,
    /// Fail if the path ends in a symbolic link.
    pub no_follow: bool,
    /// Mode of a new file; default: 0644.
    pub mode: Option<u32>,
}

impl FsOpenOptions {
    pub(super) fn wire(self, path: Vec<u8>) -> MicrosandboxResult<FsOpen> {
        check_mode(self.mode)?;
        let writes = self.write || self.append;
        if (self.create || self.create_new) && !writes || self.truncate && !self.write {
            return Err(Error::invalid("a file that is created or emptied is opened to write"));
        }
        Ok(FsOpen {
            path,
            read: self.read || !writes,
            write: self.write,
            append: self.append,
            create: self.create || self.create_new,
            exclusive: self.create_new,
            truncate: self.truncate,
            no_follow: self.no_follow,
            mode: self.mode,
            ..FsOpen::default()
        })
    }
}

/// How a file is written; see [`SandboxFsOps::write_with`](crate::SandboxFsOps::write_with).
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct FsWriteOptions {
    start: FsWriteStart,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    create_new: bool,
    existing: bool,
    parents: bool,
    sync: bool,
    special: bool,
}

impl FsWriteOptions {
    /// Creates options with nothing set: the data becomes the whole content, at once.
    pub fn new() -> Self {
        FsWriteOptions::default()
    }

    /// Appends to the content instead of replacing it, in place.
    pub fn append(mut self) -> Self {
        self.start = FsWriteStart::Append;
        self
    }

    /// Writes in place from an offset. Not undone when given up.
    pub fn at(mut self, offset: u64) -> Self {
        self.start = FsWriteStart::At(offset);
        self
    }

    /// Sets the mode; default: that of the old file, 0644 for a new one.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sets owner and group; default: those of the old file, the user's for a new one.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// Fails if the file exists.
    pub fn create_new(mut self) -> Self {
        self.create_new = true;
        self
    }

    /// Fails if the file does not exist.
    pub fn existing(mut self) -> Self {
        self.existing = true;
        self
    }

    /// Makes missing parent directories, with mode 0755.
    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    /// Writes content and directory to the disk before the call succeeds.
    pub fn sync(mut self) -> Self {
        self.sync = true;
        self
    }

    /// Allows a device or FIFO, which is written in place. What would block fails with `EAGAIN`.
    pub fn special(mut self) -> Self {
        self.special = true;
        self
    }

    pub(super) fn wire(self, path: Vec<u8>) -> MicrosandboxResult<FsWrite> {
        check_mode(self.mode)?;
        let (uid, gid) = self.owner.unzip();
        check_owner(uid, gid)?;
        Ok(FsWrite {
            path,
            start: self.start,
            mode: self.mode,
            uid,
            gid,
            exclusive: self.create_new,
            existing: self.existing,
            parents: self.parents,
            sync: self.sync,
            special: self.special,
        })
    }
}

/// A change of a watched file; see [`SandboxFsOps::watch`](crate::SandboxFsOps::watch).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsEvent {
    /// What happened.
    pub kind: FsEventKind,
    /// To which file: the path that was given, and what is below it.
    pub path: OsString,
    /// Whether it is a directory.
    pub directory: bool,
    /// Joins the two events of a rename; otherwise 0.
    pub cookie: u32,
}

pub use msb_wire::FsEventKind;

impl From<msb_wire::FsEvent> for FsEvent {
    fn from(event: msb_wire::FsEvent) -> FsEvent {
        let msb_wire::FsEvent { kind, path, directory, cookie } = event;
        FsEvent { kind, path: OsString::from_vec(path), directory, cookie }
    }
}

/// Checks the path of a request.
pub(super) fn checked_path(path: &OsStr) -> MicrosandboxResult<Vec<u8>> {
    let bytes = path.as_bytes();
    if !bytes.starts_with(b"/") {
        return Err(Error::invalid(format!(
            "the path {path:?} in the sandbox is not absolute; begin it with /"
        )));
    }
    no_nul(bytes)
}

pub(super) fn no_nul(bytes: &[u8]) -> MicrosandboxResult<Vec<u8>> {
    match bytes.contains(&0) {
        true => {
            Err(Error::invalid(format!("the path {:?} contains a NUL", OsStr::from_bytes(bytes))))
        }
        false => Ok(bytes.to_vec()),
    }
}

pub(super) fn check_mode(mode: Option<u32>) -> MicrosandboxResult<()> {
    match mode {
        Some(mode) if mode > 0o7777 => {
            Err(Error::invalid(format!("the mode {mode:o} is larger than 7777")))
        }
        _ => Ok(()),
    }
}

/// The largest id means "no change" to the kernel.
pub(super) fn check_owner(uid: Option<u32>, gid: Option<u32>) -> MicrosandboxResult<()> {
    match [uid, gid].contains(&Some(u32::MAX)) {
        true => Err(Error::invalid(format!("{} is no user or group id", u32::MAX))),
        false => Ok(()),
    }
}

fn system_time(time: FsTime) -> Option<SystemTime> {
    let nanos = Duration::from_nanos(time.nanos.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = match time.seconds < 0 {
        true => UNIX_EPOCH.checked_sub(seconds)?,
        false => UNIX_EPOCH.checked_add(seconds)?,
    };
    whole.checked_add(nanos)
}

fn wire_time(time: SystemTime) -> MicrosandboxResult<FsTime> {
    let out_of_range = || Error::invalid("a time is out of range");
    let (is_negative, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (false, after),
        Err(before) => (true, before.duration()),
    };
    let seconds = i64::try_from(distance.as_secs()).map_err(|_| out_of_range())?;
    Ok(match (is_negative, distance.subsec_nanos()) {
        (false, nanos) => FsTime { seconds, nanos },
        (true, 0) => FsTime { seconds: -seconds, nanos: 0 },
        (true, nanos) => FsTime { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_times_survive_also_before_1970() {
        for time in [(0, 0), (1, 999_999_999), (-1, 500_000_000), (-86_400, 0)] {
            let time = FsTime { seconds: time.0, nanos: time.1 };
            assert_eq!(wire_time(system_time(time).unwrap()).unwrap(), time);
        }
    }

    #[test]
    fn k1_paths_modes_and_owners_are_checked() {
        for bad in ["", "a", "./a", "~/a", "/a\0b"] {
            assert!(checked_path(OsStr::new(bad)).is_err(), "{bad:?}");
        }
        let any = OsStr::from_bytes(b"/\xff\n");
        assert_eq!(checked_path(any).unwrap(), b"/\xff\n");
        assert!(FsWriteOptions::new().mode(0o10000).wire(Vec::new()).is_err());
        assert!(FsWriteOptions::new().owner(u32::MAX, 0).wire(Vec::new()).is_err());
        let create = FsOpenOptions { create: true, ..FsOpenOptions::default() };
        assert!(create.wire(Vec::new()).is_err());
        assert!(FsOpenOptions::default().wire(Vec::new()).unwrap().read);
    }
}
