//! The root filesystem that layers are unpacked into.
//!
//! Invariant: the kernel resolves every path with the tree as its root (openat2 with
//! RESOLVE_IN_ROOT), so that no symbolic link or `..` of an image leads outside. The last component
//! of a path is never followed.

mod attributes;
mod current;
mod directories;
mod names;

use current::CurrentLayer;
use msb_archive::{Kind, Member};
use msb_image::{Error, ErrorKind, Result};
use names::{children, unlink};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Maximum depth of directories. Removal needs a descriptor for each level.
pub(crate) const MAX_DEPTH: usize = 512;

/// Which owners files can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Any: the process is root of the host.
    All,
    /// Those that are mapped in the user namespace.
    Some,
    /// Root only, which is mapped to the calling user.
    RootOnly,
}

/// A root filesystem that is being unpacked.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owners: Owners,
    /// Parent directory of the last member, which the next one mostly shares.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    layer: CurrentLayer,
}

/// Splits a member's name into its components. Empty for the root.
pub(crate) fn components(name: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) || name.contains(&0) {
        return Err(Error::bad(format!(
            "cannot unpack {:?}: it leads out of the image",
            OsStr::from_bytes(name)
        )));
    }
    Ok(parts)
}

impl Tree {
    /// Opens a directory that no other process uses.
    pub(crate) fn open(path: &Path, owners: Owners) -> Result<Tree> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::io("open", path, error))?;
        let (path, layer) = (path.to_path_buf(), CurrentLayer::default());
        Ok(Tree { root, path, owners, last_parent: None, layer })
    }

    /// Ends the current layer, and sets the times of its directories.
    pub(crate) fn end_layer(&mut self) -> Result<()> {
        self.last_parent = None;
        for time in std::mem::take(&mut self.layer).into_times() {
            // The same layer may have removed or replaced it.
            if let Ok(fd) = self.resolve(&time.path, OFlags::DIRECTORY | OFlags::RDONLY)
                && rustix::fs::fstat(&fd).is_ok_and(|found| found.st_ino == time.inode)
            {
                let _ = rustix::fs::futimens(&fd, &timestamps(time.mtime));
            }
        }
        Ok(())
    }

    /// Opens a path inside the tree.
    fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }

    /// Opens the parent directory of a member. Creates it if the archive does not contain it.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let key = parts.join(&b'/');
        if let Some((path, fd)) = &self.last_parent
            && *path == key
        {
            return fd.try_clone().map_err(|error| self.io_error("open", &key, error));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = match self.resolve(&key, flags) {
            Err(Errno::NOENT) => self.create_directories(parts)?,
            Err(error) => return Err(self.image_error(&key, error)),
            Ok(found) => found,
        };
        self.keep_time(&key, found.as_fd())?;
        if self.depth(found.as_fd()) > MAX_DEPTH {
            return Err(too_deep());
        }
        let copy = found.try_clone().map_err(|error| self.io_error("open", &key, error))?;
        self.last_parent = Some((key, copy));
        Ok(found)
    }

    /// Returns the depth of a directory in the tree, independent of links in its path.
    fn depth(&self, fd: BorrowedFd<'_>) -> usize {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let root = std::fs::read_link(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        match (path, root) {
            (Ok(path), Ok(root)) => {
                path.components().count().saturating_sub(root.components().count())
            }
            // A path that is too long for readlink is too deep.
            _ => usize::MAX,
        }
    }

    /// Records that a file belongs to the current layer.
    fn record_inode(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let found = self.inspect(at, name)?;
        self.layer.record(&found);
        Ok(())
    }

    /// Keeps the time of a directory of a lower layer.
    fn keep_time(&mut self, path: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
        let found = self.inspect(fd, b"")?;
        self.layer.keep_time(path, &found);
        Ok(())
    }

    /// Returns the metadata of a file, or of the directory itself if the name is empty.
    fn inspect(&self, at: BorrowedFd<'_>, name: &[u8]) -> Result<Stat> {
        let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = rustix::fs::statat(at, name, flags);
        found.map_err(|error| self.io_error("inspect", name, error))
    }

    /// Creates a member. Returns the file if the caller has to write content.
    pub(crate) fn create(&mut self, member: &Member) -> Result<Option<std::fs::File>> {
        let parts = components(&member.path)?;
        let Some((name, parent)) = parts.split_last() else {
            if member.kind != Kind::Directory {
                return Err(Error::bad("cannot unpack the image: its root is not a directory"));
            }
            let root = self
                .resolve(b"", OFlags::DIRECTORY)
                .map_err(|error| self.image_error(b"", error))?;
            attributes::clear(&descriptor_path(root.as_fd()).join("."));
            self.set_open_metadata(root.as_fd(), member)?;
            let found = self.inspect(root.as_fd(), b"")?;
            self.layer.set_time(Vec::new(), &found, member.mtime);
            return Ok(None);
        };
        let at = self.parent(parent)?;
        let failed = |tree: &Tree, error: Errno| tree.image_error(&member.path, error);
        if member.kind != Kind::Directory || !self.is_directory(at.as_fd(), name) {
            self.remove_existing(at.as_fd(), name)?;
        }
        let mut file = None;
        match &member.kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(&at, *name, flags | OFlags::CLOEXEC, Mode::RUSR);
                file = Some(std::fs::File::from(made.map_err(|error| failed(self, error))?));
            }
            Kind::Directory => {
                match rustix::fs::mkdirat(&at, *name, Mode::RWXU) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        let path = descriptor_path(at.as_fd()).join(OsStr::from_bytes(name));
                        attributes::clear(&path);
                    }
                    Err(error) => return Err(failed(self, error)),
                }
                let found = self.inspect(at.as_fd(), name)?;
                self.layer.set_time(parts.join(&b'/'), &found, member.mtime);
            }
            Kind::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), &at, *name)
                .map_err(|error| failed(self, error))?,
            Kind::HardLink(target) => return self.link(target, at, name).map(|()| None),
            Kind::Fifo | Kind::Character(..) | Kind::Block(..) => {
                let (kind, dev) = match member.kind {
                    Kind::Character(major, minor) => (FileType::CharacterDevice, (major, minor)),
                    Kind::Block(major, minor) => (FileType::BlockDevice, (major, minor)),
                    _ => (FileType::Fifo, (0, 0)),
                };
                if !self.mknod(at.as_fd(), name, kind, rustix::fs::makedev(dev.0, dev.1))? {
                    return Ok(None);
                }
            }
        }
        self.record_inode(at.as_fd(), name)?;
        if file.is_none() {
            self.set_metadata(at.as_fd(), name, member)?;
        }
        Ok(file)
    }

    /// Sets owner, mode, attributes and time of a file after its content was written.
    pub(crate) fn finish_file(&mut self, file: &std::fs::File, member: &Member) -> Result<()> {
        self.set_open_metadata(file.as_fd(), member)?;
        let set = rustix::fs::futimens(file, &timestamps(member.mtime));
        set.map_err(|error| self.io_error("set the time of", &member.path, error))
    }

    fn link(&mut self, target: &[u8], at: OwnedFd, name: &[u8]) -> Result<()> {
        let target_parts = components(target)?;
        let missing = || {
            let target = OsStr::from_bytes(target);
            Error::bad(format!("cannot create a hard link to {target:?}: not in the image"))
        };
        let (target_name, parent) = target_parts.split_last().ok_or_else(missing)?;
        let from = self
            .resolve(&parent.join(&b'/'), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|_| missing())?;
        match rustix::fs::linkat(&from, *target_name, &at, name, AtFlags::empty()) {
            Ok(()) => {
                let directory = self.inspect(at.as_fd(), b"")?;
                let found = self.inspect(at.as_fd(), name)?;
                self.layer.record_link(&directory, name, &found);
                Ok(())
            }
            Err(Errno::NOENT) => Err(missing()),
            Err(error) => Err(self.image_error(target, error)),
        }
    }

    /// Creates a device or FIFO. Returns false if the process may not create devices.
    fn mknod(&self, at: BorrowedFd<'_>, name: &[u8], kind: FileType, dev: u64) -> Result<bool> {
        let is_device = kind != FileType::Fifo;
        if is_device && self.owners != Owners::All {
            return Ok(false);
        }
        match rustix::fs::mknodat(at, name, kind, Mode::RUSR, dev) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS) if is_device => Ok(false),
            Err(error) => Err(self.image_error(name, error)),
        }
    }

    /// Sets owner, mode, attributes and time of a file that is not regular.
    fn set_metadata(&mut self, at: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<()> {
        self.chown(at, name, member, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(member.kind, Kind::Symlink(_)) {
            // Created just now, so it is no link that could be followed.
            rustix::fs::chmodat(at, name, Mode::from_raw_mode(member.mode), AtFlags::empty())
                .map_err(|error| self.io_error("set the mode of", &member.path, error))?;
        }
        let name = OsStr::from_bytes(name);
        let path = descriptor_path(at).join(name);
        let set = attributes::set(&member.xattrs, |name, value| {
            rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty())
        });
        set.map_err(|error| self.io_error("set an attribute of", &member.path, error))?;
        let times = timestamps(member.mtime);
        // Not every filesystem sets the time of a symbolic link.
        let _ = rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    }

    /// Sets owner, mode and attributes of an open file or directory.
    fn set_open_metadata(&mut self, fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
        self.chown(fd, b"", member, AtFlags::EMPTY_PATH)?;
        // After the owner, because chown clears the set-user-id and set-group-id bits.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode))
            .map_err(|error| self.io_error("set the mode of", &member.path, error))?;
        let set = attributes::set(&member.xattrs, |name, value| {
            rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())
        });
        set.map_err(|error| self.io_error("set an attribute of", &member.path, error))
    }

    fn chown(&self, at: BorrowedFd<'_>, name: &[u8], member: &Member, how: AtFlags) -> Result<()> {
        if self.owners == Owners::RootOnly {
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        match rustix::fs::chownat(at, name, Some(user), Some(group), how) {
            Ok(()) => Ok(()),
            // An id that is not mapped in the namespace: the file stays root's.
            Err(Errno::INVAL) if self.owners == Owners::Some => Ok(()),
            Err(error) => Err(self.io_error("set the owner of", &member.path, error)),
        }
    }

    fn is_directory(&self, at: BorrowedFd<'_>, name: &[u8]) -> bool {
        let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    }

    /// Removes an existing file or tree of any layer.
    fn remove_existing(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.image_error(name, error)),
            Ok(_) => {}
        }
        self.last_parent = None;
        if self.is_directory(at, name) {
            self.remove_children(at, name, &CurrentLayer::default(), 0)?;
        }
        unlink(at, name).map_err(|error| self.image_error(name, error))
    }

    /// Applies a whiteout: removes a file or tree of lower layers.
    pub(crate) fn apply_whiteout(&mut self, parent: &[&[u8]], name: &[u8]) -> Result<()> {
        let Some(at) = self.find_directory(parent)? else { return Ok(()) };
        let Ok(found) = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        self.last_parent = None;
        self.keep_time(&parent.join(&b'/'), at.as_fd())?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            self.remove_children(at.as_fd(), name, &self.layer, 0)?;
        }
        let directory = self.inspect(at.as_fd(), b"")?;
        let keep = self.layer.created(directory.st_ino, name, found.st_ino);
        match if keep { Ok(()) } else { unlink(at.as_fd(), name) } {
            // A directory with files of the same layer stays.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(self.image_error(name, error)),
        }
    }

    /// Applies an opaque whiteout: removes everything of lower layers in a directory.
    pub(crate) fn make_opaque(&mut self, parts: &[&[u8]]) -> Result<()> {
        let Some(at) = self.find_directory(parts)? else { return Ok(()) };
        self.last_parent = None;
        self.keep_time(&parts.join(&b'/'), at.as_fd())?;
        self.remove_children(at.as_fd(), b".", &self.layer, 0)
    }

    fn find_directory(&self, parts: &[&[u8]]) -> Result<Option<OwnedFd>> {
        let key = parts.join(&b'/');
        match self.resolve(&key, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.image_error(&key, error)),
        }
    }

    /// Removes the content of a directory, except what a layer created. Follows no link.
    fn remove_children(
        &self,
        at: BorrowedFd<'_>,
        name: &[u8],
        keep: &CurrentLayer,
        depth: usize,
    ) -> Result<()> {
        if depth > 2 * MAX_DEPTH {
            return Err(Error::bad(format!(
                "cannot remove directories more than {} levels deep",
                2 * MAX_DEPTH
            )));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(at, name, flags, Mode::empty())
            .map_err(|error| self.image_error(name, error))?;
        let inode = self.inspect(directory.as_fd(), b"")?.st_ino;
        for child in children(&directory).map_err(|error| self.image_error(name, error))? {
            let child = child.as_bytes();
            let Ok(found) = rustix::fs::statat(&directory, child, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.remove_children(directory.as_fd(), child, keep, depth + 1)?;
            }
            if keep.created(inode, child, found.st_ino) {
                continue;
            }
            match unlink(directory.as_fd(), child) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(self.image_error(child, error)),
            }
        }
        Ok(())
    }

    fn io_error(&self, action: &str, name: &[u8], error: impl Into<std::io::Error>) -> Error {
        Error::io(action, Path::new(OsStr::from_bytes(name)), error)
    }

    /// Converts an error about a name in the image, which mostly is the image's fault.
    fn image_error(&self, name: &[u8], error: Errno) -> Error {
        let image_errors = [
            Errno::NOTDIR,
            Errno::LOOP,
            Errno::EXIST,
            Errno::NAMETOOLONG,
            Errno::XDEV,
            Errno::PERM,
            Errno::ISDIR,
            Errno::NOENT,
            Errno::MLINK,
        ];
        let converted = self.io_error("create", name, error);
        match image_errors.contains(&error) {
            true => Error { kind: ErrorKind::BadImage, ..converted },
            false if error == Errno::NOSYS => converted.hint("unpacking needs Linux 5.6 or later"),
            false => converted,
        }
    }

    /// Opens a regular file in the tree for reading. Follows links inside the tree.
    pub(crate) fn open_file(&self, path: &str) -> Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let found = self.resolve(path.as_bytes(), flags).map(std::fs::File::from);
        let found = found.map_err(|error| self.io_error("open", path.as_bytes(), error))?;
        match found.metadata() {
            Ok(meta) if meta.is_file() => Ok(found),
            _ => Err(Error::bad(format!("cannot open {path}: not a regular file"))),
        }
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn too_deep() -> Error {
    Error::bad(format!("cannot unpack directories more than {MAX_DEPTH} levels deep"))
}

/// Returns a path of an open file.
fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Returns the free bytes and inodes of the filesystem of a path.
pub(crate) fn free_space(path: &Path) -> Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path).map_err(|error| Error::io("inspect", path, error))?;
    let files = if found.f_files == 0 { u64::MAX } else { found.f_favail };
    Ok((found.f_bavail.saturating_mul(found.f_frsize), files))
}

/// Opens a file for reading.
pub(crate) fn open_file(path: &Path) -> Result<std::fs::File> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map(std::fs::File::from)
        .map_err(|error| Error::io("open", path, error))
}
