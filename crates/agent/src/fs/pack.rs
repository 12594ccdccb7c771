//! Packs a file or a tree into an archive, a piece at a time.
//!
//! Every file is opened by its name in its directory and never followed. Memory holds one piece,
//! one file's map of holes, and the names of files with several hard links.

use super::error::{Result, error, failed, invalid, io_failed};
use super::names::MAX_DEPTH;
use super::root::{LIST, Location, SAFE, check_open};
use super::temporary::is_temporary;
use msb_archive::{Entry, EntryType, Segment, TarWriter, sparse_map};
use msb_wire::limits::{FS_SKIPPED, FS_SKIPPED_PATH};
use msb_wire::{FsDone, FsErrorKind, FsSkipped};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

const COPY: &str = "copy";
/// Largest attribute and list of names that Linux has (xattr(7)).
const MAX_XATTR: usize = 64 * 1024;
/// Bytes of names that are kept to find hard links.
const MAX_LINKS: usize = 64 * 1024 * 1024;

/// A file or tree that is being packed.
#[derive(Debug)]
pub(super) struct Packer {
    to: TarWriter<Vec<u8>>,
    /// Path of the source, for errors.
    source: Vec<u8>,
    /// Length of the source's name in the archive.
    prefix: usize,
    /// Name of the current member.
    name: Vec<u8>,
    levels: Vec<Level>,
    content: Option<Content>,
    links: HashMap<(u64, u64), Vec<u8>>,
    links_length: usize,
    done: FsDone,
    is_finished: bool,
}

/// A directory whose entries are being packed.
#[derive(Debug)]
struct Level {
    directory: Dir,
    /// Length of its name.
    length: usize,
}

/// The content of the current file.
#[derive(Debug)]
struct Content {
    file: File,
    /// The segments that are left, the last one first.
    segments: Vec<Segment>,
    /// Whether the file has less than its header says.
    is_short: bool,
}

impl Packer {
    /// Begins with the source, which the archive names `name`.
    pub(super) fn new(place: &Location, name: &[u8]) -> Result<Packer> {
        if name.is_empty() || name.contains(&0) {
            return Err(invalid(
                COPY,
                &place.path,
                "its name in the archive is empty or has a NUL",
            ));
        }
        let mut packer = Packer {
            to: TarWriter::new(Vec::new()),
            source: place.path.clone(),
            prefix: name.len(),
            name: name.to_vec(),
            levels: Vec::new(),
            content: None,
            links: HashMap::new(),
            links_length: 0,
            done: FsDone::default(),
            is_finished: false,
        };
        packer.add(place.directory.as_fd(), &place.name)?;
        match packer.done.skipped.pop() {
            // What is skipped in a tree is an error by itself.
            Some(skipped) if skipped.why == "vanished" => Err(packer.failed("open")(Errno::NOENT)),
            Some(skipped) => {
                Err(invalid(COPY, &packer.source, &format!("it is a {}", skipped.why)))
            }
            None => Ok(packer),
        }
    }

    /// Returns what was packed so far.
    pub(super) fn done(&mut self) -> FsDone {
        std::mem::take(&mut self.done)
    }

    /// Returns the next piece of the archive; empty at its end.
    pub(super) fn next(&mut self, most: usize) -> Result<Vec<u8>> {
        while self.to.get_mut().len() < most && !self.is_finished {
            match self.content.take() {
                Some(content) => self.copy(content, most)?,
                None => self.advance()?,
            }
        }
        let buffer = self.to.get_mut();
        let rest = buffer.split_off(most.min(buffer.len()));
        Ok(std::mem::replace(buffer, rest))
    }

    /// Adds the next entry of the tree, or ends the archive.
    fn advance(&mut self) -> Result<()> {
        let Some(mut level) = self.levels.pop() else {
            self.is_finished = true;
            // The end of every archive: two blocks of zeros.
            self.to.get_mut().extend_from_slice(&[0; 1024]);
            return Ok(());
        };
        self.name.truncate(level.length);
        let Some(entry) = level.directory.read() else { return Ok(()) };
        let entry = entry.map_err(self.failed("list"))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            self.levels.push(level);
            return Ok(());
        }
        self.name.push(b'/');
        self.name.extend_from_slice(name);
        let directory = level.directory.fd().map_err(self.failed("list"))?;
        let at = rustix::io::fcntl_dupfd_cloexec(directory, 3).map_err(self.failed("list"))?;
        self.levels.push(level);
        // Of another operation, which is under way.
        if is_temporary(name) { self.skip("temporary") } else { self.add(at.as_fd(), name) }
    }

    /// Adds one file, whose name is that of the current member.
    fn add(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let found = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(found) = self.unless_vanished("stat", found)? else { return Ok(()) };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => self.add_directory(at, name),
            FileType::RegularFile => self.add_file(at, name),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(at, name, Vec::new());
                let Some(target) = self.unless_vanished("read link", target)? else {
                    return Ok(());
                };
                self.begin(&found, EntryType::Symlink, |entry| entry.link = target.as_bytes())
            }
            FileType::Fifo => self.skip("FIFO"),
            FileType::Socket => self.skip("socket"),
            _ => self.skip("device"),
        }
    }

    fn add_directory(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(invalid(COPY, &self.path(), "too many directories in each other"));
        }
        let flags = LIST | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(at, name, flags, Mode::empty());
        let Some(directory) = self.unless_vanished("list", opened)? else { return Ok(()) };
        let found = rustix::fs::fstat(&directory).map_err(self.failed("stat"))?;
        let xattrs = self.xattrs(&directory)?;
        self.begin(&found, EntryType::Directory, |entry| entry.xattrs = &xattrs)?;
        let directory = Dir::new(directory).map_err(self.failed("list"))?;
        self.levels.push(Level { directory, length: self.name.len() });
        Ok(())
    }

    fn add_file(&mut self, at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | SAFE;
        let opened = rustix::fs::openat(at, name, flags, Mode::empty());
        let Some(file) = self.unless_vanished("open", opened)? else { return Ok(()) };
        check_open("open", &self.path(), file.as_fd(), false)?;
        let found = rustix::fs::fstat(&file).map_err(self.failed("stat"))?;
        if found.st_nlink > 1 {
            let id = (found.st_dev, found.st_ino);
            if let Some(first) = self.links.get(&id).cloned() {
                return self.begin(&found, EntryType::Link, |entry| entry.link = &first);
            }
            self.links_length += self.name.len();
            if self.links_length > MAX_LINKS {
                return Err(self.failed(COPY)(Errno::NOMEM));
            }
            self.links.insert(id, self.name.clone());
        }
        let xattrs = self.xattrs(&file)?;
        self.begin_file(file.into(), &found, &xattrs)
    }

    fn begin_file(&mut self, file: File, found: &Stat, xattrs: &Xattrs) -> Result<()> {
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let map = sparse_map(&file).map_err(io_failed("read", &self.path()))?;
        // A file that has changed since has the size that the header says.
        let map = map.map(|map| fit(map, size));
        self.begin(found, EntryType::Regular, |entry| {
            entry.xattrs = xattrs;
            entry.size = size;
            entry.sparse = map.as_deref();
        })?;
        let mut segments = map.unwrap_or_else(|| vec![(0, size)]);
        segments.reverse();
        self.content = Some(Content { file, segments, is_short: false });
        Ok(())
    }

    /// Copies a piece of the current file.
    fn copy(&mut self, mut content: Content, most: usize) -> Result<()> {
        let Some((offset, length)) = content.segments.pop() else {
            self.to.end().map_err(io_failed(COPY, &self.path()))?;
            return match content.is_short {
                true => self.skip("it became shorter while it was read"),
                false => Ok(()),
            };
        };
        let room = most - self.to.get_mut().len().min(most);
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(room);
        let mut piece = vec![0; count];
        let read = read_at(&content.file, &mut piece, offset);
        let path = self.path();
        let failed = io_failed("read", &path);
        content.is_short |= read.map_err(&failed)? < count;
        self.to.write_all(&piece).map_err(&failed)?;
        self.done.bytes += count as u64;
        let count = count as u64;
        if count < length {
            content.segments.push((offset + count, length - count));
        }
        self.content = Some(content);
        Ok(())
    }

    /// Writes the header of a member.
    fn begin<'a>(
        &mut self,
        found: &Stat,
        kind: EntryType,
        set: impl FnOnce(&mut Entry<'a>),
    ) -> Result<()> {
        let name = std::mem::take(&mut self.name);
        let mut entry = Entry {
            kind,
            name: &[],
            link: &[],
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            mtime: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)),
            atime: Some((found.st_atime, u32::try_from(found.st_atime_nsec).unwrap_or(0))),
            device: (0, 0),
            xattrs: &[],
            size: 0,
            sparse: None,
        };
        set(&mut entry);
        let written = self.to.begin(&Entry { name: &name, ..entry });
        self.name = name;
        self.done.entries += 1;
        written.map_err(io_failed(COPY, &self.path()))
    }

    fn xattrs(&mut self, file: &OwnedFd) -> Result<Xattrs> {
        let mut names = vec![0; MAX_XATTR];
        let length = match rustix::fs::flistxattr(file, names.as_mut_slice()) {
            // The file system has none, or its driver does not know the call.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
            length => length.map_err(self.failed("list the attributes of"))?,
        };
        names.truncate(length);
        let mut found = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
            if name.contains(&b'=') {
                // An archive cannot hold it.
                self.skip(&String::from_utf8_lossy(name))?;
                continue;
            }
            let mut value = vec![0; MAX_XATTR];
            match rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
                Ok(length) => value.truncate(length),
                // Removed since.
                Err(Errno::NODATA) => continue,
                Err(errno) => return Err(self.failed("read an attribute of")(errno)),
            }
            found.push((name.to_vec(), value));
        }
        Ok(found)
    }

    /// Skips the current member, if it is gone or something else since it was found.
    fn unless_vanished<T>(
        &mut self,
        operation: &'static str,
        result: rustix::io::Result<T>,
    ) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {
                self.skip("vanished").map(|()| None)
            }
            Err(errno) => Err(self.failed(operation)(errno)),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "the last call of functions that can fail")]
    fn skip(&mut self, why: &str) -> Result<()> {
        add_skipped(&mut self.done, &self.name, why);
        Ok(())
    }

    /// Returns the path of the current member, for errors.
    fn path(&self) -> Vec<u8> {
        [&self.source, self.name.get(self.prefix..).unwrap_or_default()].concat()
    }

    fn failed(&self, operation: &'static str) -> impl Fn(Errno) -> msb_wire::FsError + use<> {
        let path = self.path();
        move |errno| failed(operation, &path)(errno)
    }
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns whether an attribute is copied.
pub(super) fn is_kept(name: &[u8]) -> bool {
    matches!(
        name,
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
    ) || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

/// Records what was left out.
pub(super) fn add_skipped(done: &mut FsDone, path: &[u8], why: &str) {
    done.skipped_total += 1;
    if done.skipped.len() < FS_SKIPPED {
        let path = path.get(..FS_SKIPPED_PATH).unwrap_or(path).to_vec();
        done.skipped.push(FsSkipped { path, why: why.to_owned() });
    }
}

/// Cuts a map to a size.
fn fit(map: Vec<Segment>, size: u64) -> Vec<Segment> {
    let cut = |(offset, length): Segment| {
        let offset = offset.min(size);
        (offset, length.min(size - offset))
    };
    let mut map: Vec<Segment> = map.into_iter().map(cut).collect();
    // The last segment sets the length.
    if map.last().is_none_or(|(offset, length)| offset + length < size) {
        map.push((size, 0));
    }
    map
}

/// Reads at an offset until the buffer is full or the file ends. Returns the number of bytes.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// An archive that is read as it is packed.
pub(super) struct PackReader<'a> {
    pub(super) packer: Packer,
    pub(super) is_cancelled: &'a dyn Fn() -> bool,
    pub(super) error: Option<msb_wire::FsError>,
    piece: std::io::Cursor<Vec<u8>>,
}

impl<'a> PackReader<'a> {
    pub(super) fn new(packer: Packer, is_cancelled: &'a dyn Fn() -> bool) -> PackReader<'a> {
        PackReader { packer, is_cancelled, error: None, piece: std::io::Cursor::default() }
    }
}

impl std::io::Read for PackReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.piece.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let piece = match (self.is_cancelled)() {
            true => Err(error(FsErrorKind::Filesystem, Errno::CANCELED, COPY, b"", "given up")),
            false => self.packer.next(256 * 1024),
        };
        match piece {
            Ok(piece) => {
                self.piece = std::io::Cursor::new(piece);
                self.piece.read(buffer)
            }
            Err(error) => {
                self.error = Some(error);
                Err(std::io::ErrorKind::Other.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::fs::root::Root;

    #[test]
    fn k4_file_that_becomes_shorter_is_padded_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, vec![b'x'; 100_000]).unwrap();
        let place = Root::confined(folder.path()).unwrap().place(b"/f").unwrap();
        let mut packer = Packer::new(&place, b"f").unwrap();
        let mut length = packer.next(4096).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(1000).unwrap();
        loop {
            match packer.next(4096).unwrap().len() {
                0 => break,
                more => length += more,
            }
        }
        assert!(length > 100_000, "{length}");
        let done = packer.done();
        assert_eq!((done.bytes, done.skipped_total), (100_000, 1));
        assert_eq!(done.skipped[0].why, "it became shorter while it was read");
    }
}
