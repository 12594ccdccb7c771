//! Packs a file or tree of the host into an archive for the agent.
//!
//! Invariant: nothing outside of the source is read. Every name is opened in its directory, never
//! followed, and never waited for. One directory is open at a time.

use super::failure::on_host;
use crate::error::Error;
use msb_archive::{Entry, EntryType, TarWriter, sparse_map};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Opens a file or directory for reading. `NONBLOCK` is for a FIFO that took the place of a file.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// Bytes that are read from a file at once.
const BUFFER: usize = 64 * 1024;
/// Maximum size of an attribute and of a list of names.
const MAX_XATTR: usize = 64 * 1024;
/// How many skipped files are named.
const SKIPPED: usize = 64;

/// What was packed.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// What was left out: path and reason.
    pub(super) skipped: Vec<(PathBuf, String)>,
    /// How many were left out.
    pub(super) skipped_total: u64,
}

/// The source of a copy.
#[derive(Debug)]
pub(super) struct HostSource<'a> {
    /// Its path.
    pub(super) path: &'a Path,
    /// Its name in the archive; empty: what is in it has no prefix.
    pub(super) name: &'a [u8],
    /// Whether to follow a link at the end of the path.
    pub(super) follow: bool,
}

/// Packs a source. `Err(None)`: the writer has failed.
pub(super) fn pack(source: &HostSource<'_>, to: impl Write) -> Result<Packed, Option<Error>> {
    let mut packer = Packer {
        to: TarWriter::new(to),
        source,
        name: source.name.to_vec(),
        links: HashMap::new(),
        buffer: vec![0; BUFFER],
        packed: Packed::default(),
    };
    packer.add_source()?;
    let mut to = packer.to.finish().map_err(|_| None)?;
    to.flush().map_err(|_| None)?;
    Ok(packer.packed)
}

struct Packer<'a, W> {
    to: TarWriter<W>,
    source: &'a HostSource<'a>,
    /// Name of the current member.
    name: Vec<u8>,
    /// The first name of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    packed: Packed,
}

/// A directory whose entries are being packed.
struct Level {
    /// Its device and inode.
    id: (u64, u64),
    /// Entries that are left, the last one first.
    names: Vec<OsString>,
    /// Length of its name.
    length: usize,
}

type Step<T> = Result<T, Option<Error>>;

impl<W: Write> Packer<'_, W> {
    fn add_source(&mut self) -> Step<()> {
        let path = self.source.path;
        let flags = if self.source.follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let found = statat(CWD, path, flags).map_err(|error| self.failed("read", error))?;
        let directory = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => self.open_source(OFlags::DIRECTORY)?,
            FileType::RegularFile => {
                let file = self.open_source(OFlags::empty())?;
                return self.add_opened(&File::from(file));
            }
            FileType::Symlink => {
                let target = readlinkat(CWD, path, Vec::new());
                let target = target.map_err(|error| self.failed("read", error))?;
                return self.write(&found, EntryType::Symlink, |e| e.link = target.as_bytes());
            }
            kind => {
                let text = format!("cannot copy {}: it is a {}", path.display(), word(kind));
                return Err(Some(Error::invalid(text)));
            }
        };
        self.add_tree(directory)
    }

    fn open_source(&self, more: OFlags) -> Step<OwnedFd> {
        let follow = if self.source.follow { OFlags::NOFOLLOW } else { OFlags::empty() };
        openat(CWD, self.source.path, READ.difference(follow) | more, Mode::empty())
            .map_err(|error| self.failed("read", error))
    }

    /// Adds a directory and what is below. Iterative, so that its depth takes neither stack nor
    /// descriptors.
    fn add_tree(&mut self, mut at: OwnedFd) -> Step<()> {
        let mut levels = vec![self.add_directory(&at)?];
        while let Some(level) = levels.last_mut() {
            self.name.truncate(level.length);
            if let Some(name) = level.names.pop() {
                if !self.name.is_empty() {
                    self.name.push(b'/');
                }
                self.name.extend_from_slice(name.as_bytes());
                if let Some(directory) = self.add(at.as_fd(), &name)? {
                    levels.push(self.add_directory(&directory)?);
                    at = directory;
                }
                continue;
            }
            levels.pop();
            if let Some(parent) = levels.last() {
                at = self.open_parent(&at, parent)?;
            }
        }
        Ok(())
    }

    /// Opens the parent of a directory, which must be the one that it was found in.
    fn open_parent(&self, at: &OwnedFd, parent: &Level) -> Step<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let found = openat(at, "..", flags, Mode::empty())
            .and_then(|fd| Ok((fstat(&fd)?, fd)))
            .map_err(|error| self.failed("read", error))?;
        match id(&found.0) == parent.id {
            true => Ok(found.1),
            false => Err(self.failed("read", Errno::STALE)),
        }
    }

    /// Adds a file of a directory. Returns it opened if it is a directory.
    fn add(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Step<Option<OwnedFd>> {
        let found = match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return self.skip("vanished"),
            found => found.map_err(|error| self.failed("read", error))?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let opened = openat(at, name, READ | OFlags::DIRECTORY, Mode::empty());
                Ok(Some(opened.map_err(|error| self.failed("read", error))?))
            }
            FileType::RegularFile => match self.link_of(&found) {
                Some(first) => {
                    self.write(&found, EntryType::Link, |entry| entry.link = &first)?;
                    Ok(None)
                }
                None => self.add_file(at, name),
            },
            FileType::Symlink => {
                let target = readlinkat(at, name, Vec::new());
                let target = target.map_err(|error| self.failed("read", error))?;
                self.write(&found, EntryType::Symlink, |e| e.link = target.as_bytes())?;
                Ok(None)
            }
            kind => self.skip(word(kind)),
        }
    }

    fn add_file(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Step<Option<OwnedFd>> {
        match openat(at, name, READ, Mode::empty()) {
            Err(Errno::NOENT) => self.skip("vanished"),
            opened => {
                let file = opened.map_err(|error| self.failed("read", error))?;
                self.add_opened(&File::from(file)).map(|()| None)
            }
        }
    }

    fn add_directory(&mut self, fd: &OwnedFd) -> Step<Level> {
        let found = fstat(fd).map_err(|error| self.failed("read", error))?;
        if !self.name.is_empty() {
            let xattrs = self.xattrs(fd)?;
            self.write(&found, EntryType::Directory, |entry| entry.xattrs = &xattrs)?;
        }
        let names = children(fd).map_err(|error| self.failed("read", error))?;
        Ok(Level { id: id(&found), names, length: self.name.len() })
    }

    /// Returns the name of an earlier member that is the same file.
    fn link_of(&mut self, found: &Stat) -> Option<Vec<u8>> {
        if found.st_nlink < 2 {
            return None;
        }
        let first = self.links.get(&id(found)).cloned();
        if first.is_none() {
            self.links.insert(id(found), self.name.clone());
        }
        first
    }

    /// Adds a regular file. What it lacks meanwhile of its length is padded with zeros.
    fn add_opened(&mut self, file: &File) -> Step<()> {
        let found = fstat(file).map_err(|error| self.failed("read", error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return self.skip("changed").map(drop);
        }
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let map = sparse_map(file).map_err(|error| self.failed("read", error))?;
        let xattrs = self.xattrs(file)?;
        self.begin(&found, EntryType::Regular, |entry| {
            entry.xattrs = &xattrs;
            entry.size = size;
            entry.sparse = map.as_deref();
        })?;
        let mut is_short = false;
        for (offset, length) in map.as_deref().unwrap_or(&[(0, size)]) {
            is_short |= self.copy(file, *offset, *length)?;
        }
        self.to.end().map_err(|_| None)?;
        if is_short {
            self.skip("it became shorter while it was read")?;
        }
        Ok(())
    }

    /// Copies a segment of a file. Returns whether the file has less of it.
    fn copy(&mut self, file: &File, mut offset: u64, length: u64) -> Step<bool> {
        let (end, mut is_short) = (offset.saturating_add(length), false);
        while offset < end {
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(self.buffer.len());
            let mut buffer = std::mem::take(&mut self.buffer);
            let chunk = buffer.get_mut(..most).unwrap_or_default();
            let read = if is_short { Ok(0) } else { file.read_at(chunk, offset) };
            let result = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                Err(error) => Err(self.failed("read", error)),
                Ok(read) => {
                    is_short |= read == 0;
                    let filled = if read == 0 { most } else { read };
                    let chunk = chunk.get_mut(..filled).unwrap_or_default();
                    if read == 0 {
                        chunk.fill(0);
                    }
                    self.to.write_all(chunk).map(|()| filled).map_err(|_| None)
                }
            };
            self.buffer = buffer;
            offset += result? as u64;
        }
        Ok(is_short)
    }

    /// Writes a member without content.
    fn write<'a>(
        &mut self,
        found: &Stat,
        kind: EntryType,
        set: impl FnOnce(&mut Entry<'a>),
    ) -> Step<()> {
        self.begin(found, kind, set)?;
        self.to.end().map_err(|_| None)
    }

    /// Writes the header of a member.
    fn begin<'a>(
        &mut self,
        found: &Stat,
        kind: EntryType,
        set: impl FnOnce(&mut Entry<'a>),
    ) -> Step<()> {
        let nanos = |nanos| u32::try_from(nanos).unwrap_or(0);
        let name = std::mem::take(&mut self.name);
        let mut entry = Entry {
            kind,
            name: &[],
            link: &[],
            mode: found.st_mode & 0o7777,
            uid: found.st_uid,
            gid: found.st_gid,
            mtime: (found.st_mtime, nanos(found.st_mtime_nsec)),
            atime: Some((found.st_atime, nanos(found.st_atime_nsec))),
            device: (0, 0),
            xattrs: &[],
            size: 0,
            sparse: None,
        };
        set(&mut entry);
        let written = self.to.begin(&Entry { name: &name, ..entry });
        self.name = name;
        written.map_err(|_| None)
    }

    /// Returns the extended attributes that have no meaning to the kernel.
    fn xattrs(&self, file: impl AsFd) -> Step<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut names = vec![0; MAX_XATTR];
        let length = match rustix::fs::flistxattr(&file, names.as_mut_slice()) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            found => found.map_err(|error| self.failed("list the attributes of", error))?,
        };
        names.truncate(length);
        let mut found = Vec::new();
        let is_kept = |name: &&[u8]| name.starts_with(b"user.") && !name.contains(&b'=');
        for name in names.split(|byte| *byte == 0).filter(is_kept) {
            let mut value = vec![0; MAX_XATTR];
            match rustix::fs::fgetxattr(&file, name, value.as_mut_slice()) {
                Ok(length) => value.truncate(length),
                // Removed since.
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(self.failed("read an attribute of", error)),
            }
            found.push((name.to_vec(), value));
        }
        found.sort();
        Ok(found)
    }

    fn skip(&mut self, why: &str) -> Step<Option<OwnedFd>> {
        self.packed.skipped_total += 1;
        if self.packed.skipped.len() < SKIPPED {
            self.packed.skipped.push((self.path(), why.to_owned()));
        }
        Ok(None)
    }

    /// Returns the path of the current member on the host.
    fn path(&self) -> PathBuf {
        let below = self.name.get(self.source.name.len()..).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        match below.is_empty() {
            true => self.source.path.to_path_buf(),
            false => self.source.path.join(OsStr::from_bytes(below)),
        }
    }

    fn failed(&self, operation: &str, error: impl Into<io::Error>) -> Option<Error> {
        Some(on_host(operation, &self.path(), error))
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        _ => "device",
    }
}

fn id(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// Returns the names of a directory's entries, the last one first.
fn children(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_archive::{Kind, TarReader};
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn packed(path: &Path, follow: bool) -> (Vec<(String, Kind, Vec<u8>)>, Packed) {
        let mut bytes = Vec::new();
        let found = pack(&HostSource { path, name: b"n", follow }, &mut bytes).unwrap();
        let (mut reader, mut members) = (TarReader::new(bytes.as_slice()), Vec::new());
        while let Some(member) = reader.next_member().unwrap() {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            members.push((String::from_utf8(member.path).unwrap(), member.kind, content));
        }
        (members, found)
    }

    #[test]
    fn k4_links_are_packed_and_specials_are_named() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, secret) = (scratch.path().join("root"), scratch.path().join("secret"));
        std::fs::create_dir_all(root.join("d")).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(root.join("d/f"), "content").unwrap();
        std::fs::hard_link(root.join("d/f"), root.join("hard")).unwrap();
        symlink(&secret, root.join("link")).unwrap();
        symlink(scratch.path(), root.join("up")).unwrap();
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (members, found) = packed(&root, true);
        let names: Vec<&str> = members.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["n", "n/d", "n/d/f", "n/hard", "n/link", "n/up"]);
        assert_eq!(members[2].2, b"content");
        assert_eq!(members[3].1, Kind::HardLink(b"n/d/f".to_vec()));
        assert_eq!(members[4].1, Kind::Symlink(secret.as_os_str().as_bytes().to_vec()));
        assert_eq!(found.skipped, [(root.join("fifo"), "FIFO".to_owned())]);
        assert!(members.iter().all(|(.., content)| content != b"secret"));
    }

    #[test]
    fn k4_a_link_as_source_is_followed_only_if_asked() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "x").unwrap();
        let link = scratch.path().join("l");
        symlink("f", &link).unwrap();
        assert_eq!(packed(&link, true).0, [("n".to_owned(), Kind::File, b"x".to_vec())]);
        assert_eq!(packed(&link, false).0[0].1, Kind::Symlink(b"f".to_vec()));
    }

    #[test]
    fn k4_holes_stay_holes() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"data", 1 << 29).unwrap();
        if file.metadata().unwrap().blocks() * 512 > 1 << 20 {
            return;
        }
        let (members, _) = packed(&path, true);
        assert!(members[0].2.len() < 1 << 20, "{} bytes", members[0].2.len());
    }

    #[test]
    fn k4_a_missing_or_special_source_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = scratch.path().join("missing");
        let source = HostSource { path: &missing, name: b"n", follow: true };
        let error = pack(&source, io::sink()).unwrap_err().unwrap();
        assert_eq!(error.kind(), crate::ErrorKind::PathNotFound);
        let source = HostSource { path: Path::new("/dev/null"), name: b"n", follow: true };
        let error = pack(&source, io::sink()).unwrap_err().unwrap();
        assert!(error.to_string().contains("device"), "{error}");
    }
}
