//! A root filesystem that is being made, and the only way to change it.
//!
//! Every path is resolved by the kernel with the tree as its root (openat2 with RESOLVE_IN_ROOT),
//! so that no symbolic link in an image, absolute or full of dots, ever leads outside. The last
//! part of a path is never followed.

use crate::tarball::{Kind, Member};
use msb_image::{Error, ErrorKind, Result};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How deep directories may be nested. Each level costs a descriptor when they are removed.
const MAX_DEPTH: usize = 512;

/// What users files may be given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Any: this is root of the system.
    All,
    /// As many as the user namespace has.
    Some,
    /// Root, which is the user itself.
    RootOnly,
}

/// A root filesystem.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owners: Owners,
    /// The directory of the last member: mostly the next one is beside it.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// What the current layer has made, by inode. What it removes is what lies below it only.
    made: HashSet<u64>,
    /// Times of directories, which every change in them would set anew.
    times: Vec<(Vec<u8>, (i64, u32))>,
}

/// The parts of a member's name; empty for the root.
pub(crate) fn parts(name: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> =
        name.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) || name.contains(&0) {
        return Err(Error::bad(format!("{:?} leads out of the image", OsStr::from_bytes(name))));
    }
    Ok(parts)
}

impl Tree {
    /// The tree at a path that nobody else uses.
    pub(crate) fn open(path: &Path, owners: Owners) -> Result<Tree> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| Error::io("open", path, error))?;
        let (path, made) = (path.to_path_buf(), HashSet::new());
        Ok(Tree { root, path, owners, last: None, made, times: Vec::new() })
    }

    /// Forgets what the last layer has made, after setting the times of its directories.
    pub(crate) fn end_layer(&mut self) -> Result<()> {
        self.made.clear();
        self.last = None;
        for (path, mtime) in std::mem::take(&mut self.times).into_iter().rev() {
            // One that the same layer has removed again has no time either.
            if let Ok(fd) = self.resolve(&path, OFlags::DIRECTORY | OFlags::RDONLY) {
                let _ = rustix::fs::futimens(&fd, &timestamps(mtime));
            }
        }
        Ok(())
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }

    /// The directory that a member goes into; made where an archive does not mention it.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let key = parts.join(&b'/');
        if let Some((path, fd)) = &self.last
            && *path == key
        {
            return fd.try_clone().map_err(|error| self.failed("open", &key, error));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let found = match self.resolve(&key, flags) {
            Err(Errno::NOENT) => self.make_parents(parts)?,
            Err(error) => return Err(self.odd(&key, error)),
            Ok(found) => found,
        };
        if self.depth(found.as_fd()) > MAX_DEPTH {
            let text = format!("directories are more than {MAX_DEPTH} levels deep");
            return Err(Error::bad(text));
        }
        let copy = found.try_clone().map_err(|error| self.failed("open", &key, error))?;
        self.last = Some((key, copy));
        Ok(found)
    }

    fn make_parents(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut at = self.resolve(b"", flags).map_err(|error| self.odd(b"", error))?;
        for end in 1..=parts.len() {
            let Some(path) = parts.get(..end) else { break };
            let (key, name) = (path.join(&b'/'), path.last().copied().unwrap_or_default());
            at = match self.resolve(&key, flags) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))
                        .map_err(|error| self.odd(&key, error))?;
                    let made = self.resolve(&key, flags).map_err(|error| self.odd(&key, error))?;
                    self.note(made.as_fd(), b"")?;
                    made
                }
                other => other.map_err(|error| self.odd(&key, error))?,
            };
        }
        Ok(at)
    }

    /// How deep a directory really lies, whatever links led to it.
    fn depth(&self, fd: BorrowedFd<'_>) -> usize {
        let shown = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        let own = std::fs::read_link(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        match (shown, own) {
            (Ok(shown), Ok(own)) => {
                shown.components().count().saturating_sub(own.components().count())
            }
            // A path that is too long to be shown is too deep.
            _ => usize::MAX,
        }
    }

    /// Remembers that the current layer has made or mentioned it.
    fn note(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = rustix::fs::statat(at, name, flags)
            .map_err(|error| self.failed("inspect", name, error))?;
        self.made.insert(found.st_ino);
        Ok(())
    }

    /// Makes a member; content is written by the caller into the file that is returned.
    pub(crate) fn put(&mut self, member: &Member) -> Result<Option<std::fs::File>> {
        let parts = parts(&member.path)?;
        let Some((name, above)) = parts.split_last() else {
            if member.kind != Kind::Directory {
                return Err(Error::bad("the root of the image is not a directory"));
            }
            let root =
                self.resolve(b"", OFlags::DIRECTORY).map_err(|error| self.odd(b"", error))?;
            self.dress_open(root.as_fd(), member)?;
            self.times.push((Vec::new(), member.mtime));
            return Ok(None);
        };
        let at = self.parent(above)?;
        let failed = |tree: &Tree, error: Errno| tree.odd(&member.path, error);
        if member.kind != Kind::Directory || !self.is_directory(at.as_fd(), name) {
            self.clear(at.as_fd(), name)?;
        }
        let mut file = None;
        match &member.kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(&at, *name, flags | OFlags::CLOEXEC, Mode::RUSR);
                file = Some(std::fs::File::from(made.map_err(|error| failed(self, error))?));
            }
            Kind::Directory => match rustix::fs::mkdirat(&at, *name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => self.times.push((parts.join(&b'/'), member.mtime)),
                Err(error) => return Err(failed(self, error)),
            },
            Kind::Symlink(target) => rustix::fs::symlinkat(target.as_slice(), &at, *name)
                .map_err(|error| failed(self, error))?,
            Kind::HardLink(target) => return self.link(target, at, name).map(|()| None),
            Kind::Fifo => self.node(at.as_fd(), name, FileType::Fifo, 0)?,
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                let kind = match member.kind {
                    Kind::Block(..) => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                if !self.device(at.as_fd(), name, kind, rustix::fs::makedev(*major, *minor))? {
                    return Ok(None);
                }
            }
        }
        self.note(at.as_fd(), name)?;
        if file.is_none() {
            self.dress(at.as_fd(), name, member)?;
        }
        Ok(file)
    }

    /// Gives a file that was written its owner, mode, attributes and time.
    pub(crate) fn finish_file(&mut self, file: &std::fs::File, member: &Member) -> Result<()> {
        self.dress_open(file.as_fd(), member)?;
        let set = rustix::fs::futimens(file, &timestamps(member.mtime));
        set.map_err(|error| self.failed("set the time of", &member.path, error))
    }

    fn link(&mut self, target: &[u8], at: OwnedFd, name: &[u8]) -> Result<()> {
        let target_parts = parts(target)?;
        let missing = || {
            let target = OsStr::from_bytes(target);
            Error::bad(format!("a hard link leads to {target:?}, which is not in the image"))
        };
        let (target_name, above) = target_parts.split_last().ok_or_else(missing)?;
        let from = self
            .resolve(&above.join(&b'/'), OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|_| missing())?;
        match rustix::fs::linkat(&from, *target_name, &at, name, AtFlags::empty()) {
            Ok(()) => self.note(at.as_fd(), name),
            Err(Errno::NOENT) => Err(missing()),
            Err(error) => Err(self.odd(target, error)),
        }
    }

    fn node(&self, at: BorrowedFd<'_>, name: &[u8], kind: FileType, device: u64) -> Result<()> {
        let made = rustix::fs::mknodat(at, name, kind, Mode::RUSR, device);
        made.map_err(|error| self.odd(name, error))
    }

    /// Makes a device where that is allowed, and says whether it is there.
    fn device(&self, at: BorrowedFd<'_>, name: &[u8], kind: FileType, dev: u64) -> Result<bool> {
        if self.owners != Owners::All {
            return Ok(false);
        }
        match rustix::fs::mknodat(at, name, kind, Mode::RUSR, dev) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(error) => Err(self.odd(name, error)),
        }
    }

    /// Owner, mode, attributes and time of what is no regular file.
    fn dress(&mut self, at: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<()> {
        self.chown(at, name, member, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(member.kind, Kind::Symlink(_)) {
            // It was made a moment ago, and is no link that could be followed.
            rustix::fs::chmodat(at, name, Mode::from_raw_mode(member.mode), AtFlags::empty())
                .map_err(|error| self.failed("set the mode of", &member.path, error))?;
        }
        let name = OsStr::from_bytes(name);
        self.set_xattrs(
            &PathBuf::from(format!("/proc/self/fd/{}", at.as_raw_fd())).join(name),
            member,
        )?;
        let times = timestamps(member.mtime);
        // The time of a symbolic link is of no use to anybody, should it be refused.
        let _ = rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        Ok(())
    }

    /// Owner, mode and attributes of an open file or directory.
    fn dress_open(&mut self, fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
        self.chown(fd, b"", member, AtFlags::EMPTY_PATH)?;
        // After the owner, since a change of that takes away what is special about the mode.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(member.mode))
            .map_err(|error| self.failed("set the mode of", &member.path, error))?;
        for (name, value) in member.xattrs.iter().filter(|(name, _)| is_allowed(name)) {
            let set = rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty());
            self.forgive(set, member)?;
        }
        Ok(())
    }

    fn set_xattrs(&self, path: &Path, member: &Member) -> Result<()> {
        for (name, value) in member.xattrs.iter().filter(|(name, _)| is_allowed(name)) {
            let set = rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty());
            self.forgive(set, member)?;
        }
        Ok(())
    }

    /// Attributes are left out where the filesystem or the rights do not allow them.
    fn forgive(&self, set: rustix::io::Result<()>, member: &Member) -> Result<()> {
        match set {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            Err(error) => Err(self.failed("set an attribute of", &member.path, error)),
        }
    }

    fn chown(&self, at: BorrowedFd<'_>, name: &[u8], member: &Member, how: AtFlags) -> Result<()> {
        if self.owners == Owners::RootOnly {
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        match rustix::fs::chownat(at, name, Some(user), Some(group), how) {
            Ok(()) => Ok(()),
            // A user that the namespace has not; the file stays root's.
            Err(Errno::INVAL) if self.owners == Owners::Some => Ok(()),
            Err(error) => Err(self.failed("set the owner of", &member.path, error)),
        }
    }

    fn is_directory(&self, at: BorrowedFd<'_>, name: &[u8]) -> bool {
        let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    }

    /// Removes what is there under a name, whichever layer it is of.
    fn clear(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.odd(name, error)),
            Ok(_) => {}
        }
        self.last = None;
        if self.is_directory(at, name) {
            self.empty(at, name, &HashSet::new(), 0)?;
        }
        unlink(at, name).map_err(|error| self.odd(name, error))
    }

    /// A whiteout: removes what lower layers have under a name.
    pub(crate) fn white_out(&mut self, above: &[&[u8]], name: &[u8]) -> Result<()> {
        let Some(at) = self.existing(above)? else { return Ok(()) };
        let Ok(found) = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        self.last = None;
        let made = std::mem::take(&mut self.made);
        let result = if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            self.empty(at.as_fd(), name, &made, 0)
        } else {
            Ok(())
        };
        let stays = made.contains(&found.st_ino);
        self.made = made;
        result?;
        match if stays { Ok(()) } else { unlink(at.as_fd(), name) } {
            // What the same layer has put into it stays, and it with that.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(self.odd(name, error)),
        }
    }

    /// An opaque directory: removes all that lower layers have in it.
    pub(crate) fn make_opaque(&mut self, parts: &[&[u8]]) -> Result<()> {
        let Some(at) = self.existing(parts)? else { return Ok(()) };
        self.last = None;
        let made = std::mem::take(&mut self.made);
        let result = self.empty(at.as_fd(), b".", &made, 0);
        self.made = made;
        result
    }

    fn existing(&self, parts: &[&[u8]]) -> Result<Option<OwnedFd>> {
        let key = parts.join(&b'/');
        match self.resolve(&key, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.odd(&key, error)),
        }
    }

    /// Removes the content of a directory but for what is in `keep`. Follows no link.
    fn empty(
        &self,
        at: BorrowedFd<'_>,
        name: &[u8],
        keep: &HashSet<u64>,
        depth: usize,
    ) -> Result<()> {
        if depth > 2 * MAX_DEPTH {
            return Err(Error::bad("directories are too deep"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(at, name, flags, Mode::empty())
            .map_err(|error| self.odd(name, error))?;
        for child in children(&folder).map_err(|error| self.odd(name, error))? {
            let child = child.as_bytes();
            let Ok(found) = rustix::fs::statat(&folder, child, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                self.empty(folder.as_fd(), child, keep, depth + 1)?;
            }
            if keep.contains(&found.st_ino) {
                continue;
            }
            match unlink(folder.as_fd(), child) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(error) => return Err(self.odd(child, error)),
            }
        }
        Ok(())
    }

    /// Makes the working directory of an image that does not have it, as docker does.
    pub(crate) fn make_directory(&mut self, path: &str) -> Result<()> {
        let Ok(parts) = parts(path.as_bytes()) else { return Ok(()) };
        match self.resolve(&parts.join(&b'/'), OFlags::PATH) {
            Err(Errno::NOENT) => self.make_parents(&parts).map(drop),
            _ => Ok(()),
        }
    }

    fn failed(&self, action: &str, name: &[u8], error: impl Into<std::io::Error>) -> Error {
        Error::io(action, Path::new(OsStr::from_bytes(name)), error)
    }

    /// What the system says about a name in an image is the image's fault, unless it is the disk's.
    fn odd(&self, name: &[u8], error: Errno) -> Error {
        let its_own = [
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
        let made = self.failed("make", name, error);
        match its_own.contains(&error) {
            true => Error { kind: ErrorKind::BadImage, ..made },
            false if error == Errno::NOSYS => made.hint("images need Linux 5.6 or later"),
            false => made,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn children(folder: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

fn unlink(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// Attributes that an image may set. Those of overlays would tell the kernel how to find files.
fn is_allowed(name: &str) -> bool {
    name == "security.capability"
        || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// How much room the filesystem of a path has: bytes, and files where it counts them.
pub(crate) fn room(path: &Path) -> Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path).map_err(|error| Error::io("inspect", path, error))?;
    let files = if found.f_files == 0 { u64::MAX } else { found.f_favail };
    Ok((found.f_bavail.saturating_mul(found.f_frsize), files))
}

/// Opens a file for reading, wherever it is.
pub(crate) fn open_file(path: &Path) -> Result<std::fs::File> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map(std::fs::File::from)
        .map_err(|error| Error::io("open", path, error))
}

impl Tree {
    /// Opens a regular file in the tree for reading, wherever links in the tree lead.
    pub(crate) fn open_file(&self, path: &str) -> Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let found = self.resolve(path.as_bytes(), flags).map(std::fs::File::from);
        let found = found.map_err(|error| self.failed("open", path.as_bytes(), error))?;
        match found.metadata() {
            Ok(meta) if meta.is_file() => Ok(found),
            _ => Err(Error::bad(format!("{path} in the image is no file"))),
        }
    }
}
