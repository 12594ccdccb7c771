//! Unpacks an archive below a descriptor.
//!
//! Invariant: the kernel resolves every name below the directory and through no link (openat2 with
//! RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS), and a member replaces nothing: it is created.

use super::failure::{Result, archive, limit, system};
use msb_archive::{Kind, Member, TarReader};
use msb_state::{Copied, CopyFailure, CopyFailureKind, CopyOrder};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that are read from the archive at once.
const BUFFER: usize = 256 * 1024;
/// How many skipped files are named.
const SKIPPED: usize = 64;
/// How a name is resolved.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Unpacks an archive into an empty directory.
pub(super) fn unpack(order: &CopyOrder, from: File, into: BorrowedFd<'_>) -> Result<Copied> {
    let mut unpacker =
        Unpacker { order, into, parent: None, directories: Vec::new(), copied: Copied::default() };
    let mut reader = TarReader::new(BufReader::with_capacity(BUFFER, from));
    while let Some(member) = reader.next_member().map_err(unreadable)? {
        unpacker.add(&member, &mut reader)?;
    }
    reader.finish().map_err(unreadable)?;
    if unpacker.copied.entries == 0 && unpacker.copied.skipped_total == 0 {
        return Err(archive(b"", "the archive is empty"));
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    order: &'a CopyOrder,
    into: BorrowedFd<'a>,
    /// The parent of the last member, which the next one mostly shares.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories get their attributes at the end: files are still made in them.
    directories: Vec<Member>,
    copied: Copied,
}

impl Unpacker<'_> {
    fn add(&mut self, member: &Member, content: &mut TarReader<BufReader<File>>) -> Result<()> {
        let path = self.components(&member.path)?;
        self.charge(member)?;
        let (name, parents) = path.split_last().ok_or_else(|| outside(&member.path))?;
        let at = self.open_parent(&parents.join(&b'/'), &member.path)?;
        let failed = |operation| move |errno| failed(operation, &member.path, errno);
        match &member.kind {
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
                let made = rustix::fs::openat(
                    &at,
                    *name,
                    flags | OFlags::CLOEXEC,
                    Mode::RUSR | Mode::WUSR,
                );
                let mut file = File::from(made.map_err(failed("create"))?);
                self.write(member, content, &mut file)?;
                self.set_attributes(file.as_fd(), member)?;
            }
            Kind::Directory => {
                rustix::fs::mkdirat(&at, *name, Mode::RWXU).map_err(failed("create"))?;
                self.directories.push(Member { sparse: Vec::new(), ..member.clone() });
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), &at, *name).map_err(failed("create"))?;
                self.set_link_attributes(at.as_fd(), name, member)?;
            }
            Kind::HardLink(target) => {
                let target = self.components(target)?;
                let (from, parents) = target.split_last().ok_or_else(|| outside(&member.path))?;
                let parent = self.open_parent(&parents.join(&b'/'), &member.path)?;
                rustix::fs::linkat(&parent, *from, &at, *name, AtFlags::empty())
                    .map_err(failed("link"))?;
            }
            Kind::Fifo => return self.skip(&member.path, "FIFO"),
            Kind::Character(..) | Kind::Block(..) => return self.skip(&member.path, "device"),
        }
        self.copied.entries += 1;
        Ok(())
    }

    /// Splits a name, which has to begin with that of the copy.
    fn components<'b>(&self, name: &'b [u8]) -> Result<Vec<&'b [u8]>> {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
        let is_special = |part: &&[u8]| matches!(*part, b"" | b"." | b"..") || part.contains(&0);
        if parts.iter().any(is_special) || parts.first() != Some(&self.order.root.as_slice()) {
            return Err(outside(name));
        }
        Ok(parts)
    }

    fn open_parent(&mut self, path: &[u8], member: &[u8]) -> Result<OwnedFd> {
        let cloned = |fd: &OwnedFd| {
            fd.try_clone().map_err(|error| {
                system("open", member, Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })
        };
        if let Some((known, fd)) = &self.parent
            && known == path
        {
            return cloned(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let relative = if path.is_empty() { &b"."[..] } else { path };
        let found = rustix::fs::openat2(self.into, relative, flags, Mode::empty(), BENEATH);
        let found = found.map_err(|errno| failed("open the directory of", member, errno))?;
        self.parent = Some((path.to_vec(), cloned(&found)?));
        Ok(found)
    }

    fn charge(&mut self, member: &Member) -> Result<()> {
        let content = match member.sparse.as_slice() {
            [] => member.size,
            map => map.iter().map(|(_, count)| count).sum(),
        };
        self.copied.bytes = self.copied.bytes.saturating_add(content);
        let (bytes, entries) = (self.order.max_bytes, self.order.max_entries);
        if self.copied.bytes > bytes {
            let text = format!("the copy has more than {bytes} bytes, its limit");
            return Err(limit(&member.path, text));
        }
        if self.copied.entries + self.copied.skipped_total >= entries {
            let text = format!("the copy has more than {entries} files, its limit");
            return Err(limit(&member.path, text));
        }
        Ok(())
    }

    fn write(
        &self,
        member: &Member,
        content: &mut TarReader<BufReader<File>>,
        file: &mut File,
    ) -> Result<()> {
        let all = [(0, member.size)];
        let segments = if member.sparse.is_empty() { &all[..] } else { &member.sparse };
        let mut buffer = vec![0; BUFFER.min(usize::try_from(member.size).unwrap_or(BUFFER))];
        let written = |error: io::Error| match error.raw_os_error() {
            Some(errno) => system("write", &member.path, Errno::from_raw_os_error(errno)),
            None => archive(&member.path, error.to_string()),
        };
        for (offset, length) in segments {
            file.seek(SeekFrom::Start(*offset)).map_err(written)?;
            let mut left = *length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                let chunk = buffer.get_mut(..most).unwrap_or_default();
                let read = content.read(chunk).map_err(written)?;
                if read == 0 {
                    return Err(archive(&member.path, "its content is too short"));
                }
                file.write_all(chunk.get(..read).unwrap_or_default()).map_err(written)?;
                left -= read as u64;
            }
        }
        match member.sparse.is_empty() {
            true => Ok(()),
            false => file.set_len(member.size).map_err(written),
        }
    }

    /// Sets owner, mode, extended attributes and times of an open file or directory.
    fn set_attributes(&mut self, fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
        let failed = |operation| move |errno| system(operation, &member.path, errno);
        if self.order.keep_owner {
            let (user, group) = owner(member);
            rustix::fs::fchown(fd, Some(user), Some(group)).map_err(failed("set the owner of"))?;
        }
        // After the owner, because chown clears the special bits. Without the owner they would give
        // the caller's rights away.
        let kept = if self.order.keep_owner { 0o7777 } else { 0o1777 };
        let mode = Mode::from_raw_mode(member.mode & kept);
        rustix::fs::fchmod(fd, mode).map_err(failed("set the mode of"))?;
        self.set_xattrs(fd, member)?;
        rustix::fs::futimens(fd, &times(member)).map_err(failed("set the times of"))
    }

    /// Sets the attributes that have no meaning to the kernel. The others would be the guest's word
    /// on rights.
    fn set_xattrs(&mut self, fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
        for (name, value) in &member.xattrs {
            let text = String::from_utf8_lossy(name).into_owned();
            if !name.starts_with(b"user.") || name.contains(&0) {
                self.skip(&member.path, &format!("attribute {text}"))?;
                continue;
            }
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {
                    self.skip(&member.path, &format!("attribute {text}"))?;
                }
                Err(errno) => return Err(system("set an attribute of", &member.path, errno)),
            }
        }
        Ok(())
    }

    fn set_link_attributes(&self, at: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.order.keep_owner {
            let (user, group) = owner(member);
            rustix::fs::chownat(at, name, Some(user), Some(group), flags)
                .map_err(|errno| system("set the owner of", &member.path, errno))?;
        }
        match rustix::fs::utimensat(at, name, &times(member), flags) {
            // Not every file system sets the times of a link.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(system("set the times of", &member.path, errno)),
        }
    }

    fn skip(&mut self, path: &[u8], why: &str) -> Result<()> {
        self.copied.skipped_total += 1;
        if self.copied.skipped.len() < SKIPPED {
            let why = why.chars().take(100).collect();
            self.copied.skipped.push((path.get(..512).unwrap_or(path).to_vec(), why));
        }
        Ok(())
    }

    /// Sets the attributes of directories, the innermost first.
    fn finish(mut self) -> Result<Copied> {
        for member in std::mem::take(&mut self.directories).iter().rev() {
            let path = self.components(&member.path)?.join(&b'/');
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat2(self.into, path, flags, Mode::empty(), BENEATH);
            let fd = fd.map_err(|errno| failed("open", &member.path, errno))?;
            self.set_attributes(fd.as_fd(), member)?;
        }
        Ok(self.copied)
    }
}

fn owner(member: &Member) -> (Uid, Gid) {
    (Uid::from_raw(member.uid), Gid::from_raw(member.gid))
}

fn times(member: &Member) -> Timestamps {
    let time = |(seconds, nanos): (i64, u32)| Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    let last_access = match member.atime {
        Some(atime) => time(atime),
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    Timestamps { last_access, last_modification: time(member.mtime) }
}

/// What the kernel says about a name of the archive: some errors are the archive's.
fn failed(operation: &str, path: &[u8], errno: Errno) -> CopyFailure {
    match errno {
        Errno::LOOP | Errno::XDEV | Errno::NOTDIR => archive(path, "it leads through a link"),
        Errno::NOENT => archive(path, "what it needs does not precede it"),
        Errno::EXIST => archive(path, "it is in the archive twice"),
        errno => system(operation, path, errno),
    }
}

fn outside(path: &[u8]) -> CopyFailure {
    archive(path, "it leads out of the copy")
}

fn unreadable(error: msb_archive::Error) -> CopyFailure {
    let kind = match error.os_error {
        Some(_) => CopyFailureKind::Host,
        None => CopyFailureKind::Archive,
    };
    CopyFailure {
        kind,
        errno: error.os_error,
        operation: "read".to_owned(),
        path: Vec::new(),
        message: error.message,
    }
}
