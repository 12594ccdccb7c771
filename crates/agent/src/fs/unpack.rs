//! Unpacks an archive into a directory.
//!
//! The tree is made aside, in a [`TemporaryDirectory`] of the destination, and moved into place when
//! it is complete. Invariant: each name of the archive is walked component by component from that
//! directory, and no link is followed, so nothing is made outside.

use super::attributes::{check_owner, timestamps};
use super::error::{Result, error, failed, invalid, io_failed};
use super::pack::{add_skipped, is_kept};
use super::place::{Merge, walk};
use super::root::{LIST, NAME, SAFE};
use super::temporary::TemporaryDirectory;
use crate::sys;
use msb_archive::{Kind, Member, TarReader};
use msb_wire::{FsCopyIn, FsDone, FsErrorKind, FsTime};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

const COPY: &str = "copy";
/// Depth of a name: each level is opened on the way to it.
const MAX_DEPTH: usize = 512;
/// Bytes of names and attributes of directories, which are set at the end.
const MAX_DIRECTORIES: usize = 128 * 1024 * 1024;

/// Unpacks an archive into a directory.
pub(super) fn unpack(directory: &OwnedFd, request: &FsCopyIn, from: impl Read) -> Result<FsDone> {
    check_owner(COPY, &request.path, request.uid, request.gid)?;
    let staging = TemporaryDirectory::create(directory);
    let staging = staging.map_err(failed("create a directory in", &request.path))?;
    let mut unpacker = Unpacker {
        staging,
        request,
        last_parent: None,
        directories: Vec::new(),
        directories_length: 0,
        done: FsDone::default(),
    };
    let mut archive = TarReader::new(from);
    while let Some(member) = archive.next_member().map_err(|error| unreadable(request, &error))? {
        unpacker.add(&member, &mut archive)?;
    }
    archive.finish().map_err(|error| unreadable(request, &error))?;
    unpacker.finish(directory)
}

fn unreadable(request: &FsCopyIn, why: &msb_archive::Error) -> msb_wire::FsError {
    let errno = why.os_error.map_or(Errno::INVAL, Errno::from_raw_os_error);
    error(FsErrorKind::Invalid, errno, COPY, &request.path, &why.message)
}

struct Unpacker<'a> {
    staging: TemporaryDirectory,
    request: &'a FsCopyIn,
    /// The parent of the last member, which the next one mostly shares.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    directories: Vec<Directory>,
    directories_length: usize,
    done: FsDone,
}

/// A directory, whose attributes are set when everything is in it.
struct Directory {
    path: Vec<u8>,
    /// `None` for one that the archive does not have itself.
    member: Option<Member>,
}

impl Unpacker<'_> {
    fn add(&mut self, member: &Member, content: &mut impl Read) -> Result<()> {
        let parts = self.components(&member.path)?;
        let Some((name, parents)) = parts.split_last() else {
            return match member.kind {
                Kind::Directory => self.keep(Vec::new(), Some(member)),
                _ => Err(self.refused(member, "its name is empty")),
            };
        };
        let why = match member.kind {
            Kind::Fifo => Some("FIFO"),
            Kind::Character(..) | Kind::Block(..) => Some("device"),
            _ => None,
        };
        if let Some(why) = why {
            add_skipped(&mut self.done, &member.path, why);
            return Ok(());
        }
        let parent = self.parent(parents)?;
        match &member.kind {
            Kind::Directory => {
                make_directory(&parent, name).map_err(self.failed("make directory", member))?;
                self.keep(parts.join(&b'/'), Some(member))?;
            }
            Kind::Symlink(target) => {
                let link = || rustix::fs::symlinkat(target.as_slice(), &parent, *name);
                replacing(&parent, name, link).map_err(self.failed("make link", member))?;
                self.set_link(parent.as_fd(), name, member)?;
            }
            Kind::HardLink(target) => self.hard_link(&parent, name, target, member)?,
            _ => self.add_file(&parent, name, member, content)?,
        }
        self.done.entries += 1;
        Ok(())
    }

    /// Splits a name, which must not lead out.
    fn components<'b>(&self, name: &'b [u8]) -> Result<Vec<&'b [u8]>> {
        let parts = name.split(|byte| *byte == b'/');
        let parts: Vec<&[u8]> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
        let why = if name.starts_with(b"/") || parts.contains(&&b".."[..]) {
            "it leads out of the destination"
        } else if name.contains(&0) {
            "its name contains a NUL"
        } else if parts.len() > MAX_DEPTH {
            "too many directories in each other"
        } else {
            return Ok(parts);
        };
        Err(invalid(COPY, name, &format!("cannot unpack a member of the archive: {why}")))
    }

    /// Opens the parent of a member. Makes what the archive does not have.
    fn parent(&mut self, parts: &[&[u8]]) -> Result<OwnedFd> {
        let key = parts.join(&b'/');
        if let Some((path, fd)) = &self.last_parent
            && *path == key
        {
            return fd.try_clone().map_err(io_failed("open", &key));
        }
        let mut at = self.staging.fd.try_clone().map_err(io_failed("open", &key))?;
        for (index, part) in parts.iter().enumerate() {
            let path = || parts.get(..=index).unwrap_or_default().join(&b'/');
            let flags = NAME | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            at = match rustix::fs::openat(&at, *part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    make_directory(&at, part).map_err(failed("make directory", &path()))?;
                    self.keep(path(), None)?;
                    let opened = rustix::fs::openat(&at, *part, flags, Mode::empty());
                    opened.map_err(failed("open", &path()))?
                }
                // A link or a file of the archive is no directory for others.
                opened => opened.map_err(failed("open", &path()))?,
            };
        }
        let copy = at.try_clone().map_err(io_failed("open", &key))?;
        self.last_parent = Some((key, copy));
        Ok(at)
    }

    /// Keeps the attributes of a directory for the end.
    fn keep(&mut self, path: Vec<u8>, member: Option<&Member>) -> Result<()> {
        let xattrs = member.map_or(0, |member| {
            member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
        });
        self.directories_length += size_of::<Directory>() + 2 * path.len() + xattrs;
        if self.directories_length > MAX_DIRECTORIES {
            return Err(invalid(COPY, &path, "the archive has too many directories"));
        }
        self.directories.push(Directory { path, member: member.cloned() });
        Ok(())
    }

    fn add_file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &Member,
        content: &mut impl Read,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | SAFE;
        let private = Mode::RUSR | Mode::WUSR;
        let create = || rustix::fs::openat(parent, name, flags, private);
        let file = replacing(parent, name, create).map_err(self.failed("create", member))?;
        let file = File::from(file);
        self.done.bytes += write(&file, member, content)?;
        self.set_open(file.as_fd(), member)?;
        if self.request.sync {
            file.sync_all().map_err(io_failed("sync", &member.path))?;
        }
        sys::close(file.into()).map_err(self.failed("close", member))
    }

    /// Makes a link to an earlier member.
    fn hard_link(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        target: &[u8],
        member: &Member,
    ) -> Result<()> {
        let parts = self.components(target)?;
        let missing = || self.refused(member, "it is a hard link to nothing in the archive");
        let (last, parents) = parts.split_last().ok_or_else(missing)?;
        let from = walk(&self.staging.fd, &parents.join(&b'/'), NAME).map_err(|_| missing())?;
        let link = || rustix::fs::linkat(&from, *last, parent, name, AtFlags::empty());
        match replacing(parent, name, link) {
            Err(Errno::NOENT) => Err(missing()),
            linked => linked.map_err(self.failed("link", member)),
        }
    }

    /// Returns the owner that a member gets.
    fn owner(&self, member: &Member) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = match self.request.keep_owner {
            true => (Some(member.uid), Some(member.gid)),
            false => (self.request.uid, self.request.gid),
        };
        (uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    fn set_link(&self, parent: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<()> {
        let (uid, gid) = self.owner(member);
        if uid.is_some() || gid.is_some() {
            rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.failed("set the owner of", member))?;
        }
        if let Some(times) = times(member) {
            // Not every file system sets the time of a link.
            let _ = rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
        Ok(())
    }

    /// Sets owner, mode, attributes and times of an open file or directory.
    fn set_open(&mut self, fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
        let (uid, gid) = self.owner(member);
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(fd, uid, gid).map_err(self.failed("set the owner of", member))?;
        }
        // After the owner, because chown clears the set-user-id and set-group-id bits.
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::fchmod(fd, mode).map_err(self.failed("set the mode of", member))?;
        for (name, value) in &member.xattrs {
            let set = match is_kept(name) {
                true => rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()),
                false => Err(Errno::OPNOTSUPP),
            };
            match set {
                Ok(()) => {}
                // The user may not, or the file system has none.
                Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    add_skipped(&mut self.done, &member.path, &String::from_utf8_lossy(name));
                }
                Err(errno) => return Err(self.failed("set an attribute of", member)(errno)),
            }
        }
        match times(member) {
            Some(times) => {
                rustix::fs::futimens(fd, &times).map_err(self.failed("set the times of", member))
            }
            None => Ok(()),
        }
    }

    /// Moves everything into place, and sets the attributes of directories.
    fn finish(mut self, directory: &OwnedFd) -> Result<FsDone> {
        self.last_parent = None;
        let path = self.request.path.as_slice();
        let merge = Merge::new(&self.staging.fd, directory, path, self.request.no_replace);
        let merged = merge.run()?;
        // The last ones first: what is in a directory changes its time.
        for Directory { path, member } in std::mem::take(&mut self.directories).into_iter().rev() {
            let is_merged = path.is_empty() || merged.contains(&path);
            if member.is_none() && is_merged {
                continue;
            }
            let whole = [self.request.path.as_slice(), b"/", &path].concat();
            let fd = walk(directory, &path, LIST).map_err(failed("open", &whole))?;
            let set = match &member {
                Some(member) => self.set_open(fd.as_fd(), member),
                None => rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))
                    .map_err(failed("set the mode of", &whole)),
            };
            match set {
                // An existing directory may be another user's.
                Err(error) if is_merged && error.errno == Errno::PERM.raw_os_error() => {}
                set => set?,
            }
            if self.request.sync {
                rustix::fs::fsync(&fd).map_err(failed("sync", &whole))?;
            }
        }
        Ok(std::mem::take(&mut self.done))
    }

    fn refused(&self, member: &Member, why: &str) -> msb_wire::FsError {
        invalid(COPY, &member.path, &format!("cannot unpack a member of the archive: {why}"))
    }

    fn failed(
        &self,
        operation: &'static str,
        member: &Member,
    ) -> impl Fn(Errno) -> msb_wire::FsError + use<> {
        let path = [self.request.path.as_slice(), b"/", &member.path].concat();
        move |errno| failed(operation, &path)(errno)
    }
}

/// Makes a directory, unless it is there.
fn make_directory(at: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(at, name, Mode::RWXU) {
        Err(Errno::EXIST) => {
            let flags = NAME | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            rustix::fs::openat(at, name, flags, Mode::empty()).map(drop)
        }
        made => made,
    }
}

/// Makes something, in the place of an earlier member with the same name.
fn replacing<T>(
    parent: &OwnedFd,
    name: &[u8],
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

/// Writes the content of a file, with its holes. Returns the number of bytes.
fn write(file: &File, member: &Member, from: &mut impl Read) -> Result<u64> {
    let failed = io_failed("write", &member.path);
    let all = [(0, member.size)];
    let map = if member.sparse.is_empty() { &all[..] } else { &member.sparse };
    let mut buffer = vec![0; 128 * 1024];
    let mut written = 0;
    for (offset, length) in map {
        let (mut offset, end) = (*offset, offset.saturating_add(*length));
        while offset < end {
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..most).unwrap_or_default();
            from.read_exact(piece).map_err(|error| {
                let text = format!("cannot read an archive: {error}");
                invalid(COPY, &member.path, &text)
            })?;
            file.write_all_at(piece, offset).map_err(&failed)?;
            offset += most as u64;
            written += most as u64;
        }
    }
    if !member.sparse.is_empty() {
        file.set_len(member.size).map_err(&failed)?;
    }
    Ok(written)
}

fn times(member: &Member) -> Option<rustix::fs::Timestamps> {
    let time = |(seconds, nanos)| FsTime { seconds, nanos };
    timestamps(member.atime.map(time), Some(time(member.mtime)))
}
