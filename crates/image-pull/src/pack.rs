//! Packs a directory into a layer.
//!
//! Every file is opened by its name in its directory and never followed. Two directories at most are
//! open at once, so that neither depth nor the length of a path has a limit here.

use crate::tree::MAX_DEPTH;
use msb_archive::{Entry, EntryType, TarWriter, sparse_map};
use msb_image::{Blob, BlobWriter, Error, ErrorKind, Result, Store};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, openat, readlinkat, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest path in an image, which the kernel takes in one call.
const MAX_PATH: usize = 4095;
/// Maximum size of an attribute and of a list of names.
const MAX_XATTR: usize = 64 * 1024;

/// Opens a file or directory for reading. `NONBLOCK` is for a FIFO that took the place of a file.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// File systems that the kernel makes up: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs,
/// securityfs, selinuxfs, bpf, pstore, mqueue, configfs, efivarfs, binfmt_misc, fusectl.
const KERNEL_FILESYSTEMS: [u32; 16] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xf97c_ff8c,
    0xcafe_4a11,
    0x6165_676c,
    0x1980_0202,
    0x6265_6570,
    0xde5e_81e4,
    0x4249_4e4d,
    0x6573_5543,
];

/// A packed directory.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) layer: Blob,
    /// What was left out, and why.
    pub(crate) skipped: Vec<String>,
}

/// Packs a directory into an uncompressed tar among the blobs. Its bytes depend on the content
/// alone, and not on the order in which the filesystem lists it.
pub(crate) fn pack(store: &Store, root: &Path) -> Result<Packed> {
    let mut packer = Packer::new(store, root)?;
    packer.add_tree()?;
    let Packer { to, target, skipped, .. } = packer;
    let failed = |error| Error::io("write", &target, error);
    let file = to.finish().map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(Packed { layer: file.finish(None)?, skipped })
}

struct Packer {
    to: TarWriter<BufWriter<BlobWriter>>,
    /// The file that is written.
    target: PathBuf,
    root: PathBuf,
    /// Device and inode of the state directory.
    state: (u64, u64),
    /// Name of the current member, which begins with a dot.
    name: Vec<u8>,
    /// The first name of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    skipped: Vec<String>,
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

impl Packer {
    fn new(store: &Store, root: &Path) -> Result<Packer> {
        let home = std::fs::metadata(store.home())
            .map_err(|error| Error::io("inspect", store.home(), error))?;
        let blob = store.blob_writer()?;
        Ok(Packer {
            target: blob.path().to_path_buf(),
            to: TarWriter::new(BufWriter::with_capacity(256 * 1024, blob)),
            root: root.to_path_buf(),
            state: (home.dev(), home.ino()),
            name: b".".to_vec(),
            links: HashMap::new(),
            skipped: Vec::new(),
        })
    }

    /// Adds the whole tree. Iterative, so that its depth takes neither stack nor descriptors.
    fn add_tree(&mut self) -> Result<()> {
        let flags = READ.difference(OFlags::NOFOLLOW) | OFlags::DIRECTORY;
        let mut at = openat(rustix::fs::CWD, &self.root, flags, Mode::empty())
            .map_err(|error| self.failed("read", error))?;
        let mut levels = Vec::new();
        levels.extend(self.add_directory(&at, None)?);
        while let Some(level) = levels.last_mut() {
            self.name.truncate(level.length);
            let device = level.id.0;
            if let Some(name) = level.names.pop() {
                self.name.push(b'/');
                self.name.extend_from_slice(name.as_bytes());
                let depth = levels.len() - 1;
                if let Some((directory, level)) = self.add(at.as_fd(), &name, device, depth)? {
                    at = directory;
                    levels.push(level);
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
    fn open_parent(&self, at: &OwnedFd, parent: &Level) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let found = openat(at, "..", flags, Mode::empty())
            .and_then(|fd| Ok((fstat(&fd)?, fd)))
            .map_err(|error| self.failed("read", error))?;
        match id(&found.0) == parent.id {
            true => Ok(found.1),
            false => Err(self.changed()),
        }
    }

    /// Adds one file of a directory. Returns it opened if it is a directory with entries to add.
    /// `device` and `depth` are those of its parent.
    fn add(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        device: u64,
        depth: usize,
    ) -> Result<Option<(OwnedFd, Level)>> {
        self.check_name(name, depth)?;
        let found = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed("inspect", error))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Directory {
            let directory = openat(at, name, READ | OFlags::DIRECTORY, Mode::empty())
                .map_err(|error| self.failed("read", error))?;
            let level = self.add_directory(&directory, Some(device))?;
            return Ok(level.map(|level| (directory, level)));
        }
        if kind == FileType::Socket {
            self.skip("a socket");
            return Ok(None);
        }
        if self.add_link(&found)? {
            return Ok(None);
        }
        match kind {
            FileType::RegularFile => self.add_file(at, name)?,
            FileType::Symlink => {
                let target =
                    readlinkat(at, name, Vec::new()).map_err(|error| self.failed("read", error))?;
                let target = target.as_bytes();
                self.write(&found, EntryType::Symlink, |entry| entry.link = target)?;
            }
            FileType::Fifo => self.write(&found, EntryType::Fifo, |_| {})?,
            FileType::BlockDevice => self.write(&found, EntryType::Block, |_| {})?,
            FileType::CharacterDevice if found.st_rdev == 0 => {
                return Err(self.refused("a device with the number 0:0 is a whiteout of overlayfs"));
            }
            FileType::CharacterDevice => self.write(&found, EntryType::Char, |_| {})?,
            _ => return Err(self.refused("it has an unknown type")),
        }
        Ok(None)
    }

    fn check_name(&self, name: &OsStr, depth: usize) -> Result<()> {
        if name.as_bytes().starts_with(b".wh.") {
            return Err(self.refused("in a layer, a name that begins with .wh. removes a file"));
        }
        // Without the dot and the slash at its beginning.
        if self.name.len() - 2 > MAX_PATH {
            return Err(self.refused(&format!("its path is longer than {MAX_PATH} bytes")));
        }
        match depth > MAX_DEPTH {
            true => {
                Err(self.refused(&format!("directories are more than {MAX_DEPTH} levels deep")))
            }
            false => Ok(()),
        }
    }

    /// Adds a directory, and lists it unless its entries are to be left out. `device` is the one of
    /// its parent.
    fn add_directory(&mut self, fd: &OwnedFd, device: Option<u64>) -> Result<Option<Level>> {
        let found = fstat(fd).map_err(|error| self.failed("inspect", error))?;
        let xattrs = self.xattrs(fd)?;
        self.write(&found, EntryType::Directory, |entry| entry.xattrs = &xattrs)?;
        let is_mounted = device.is_some_and(|device| device != found.st_dev);
        if is_mounted && self.is_of_kernel(fd)? {
            self.skip("content of a file system of the kernel");
            return Ok(None);
        }
        if id(&found) == self.state && device.is_none() {
            return Err(self.refused("it is the state directory"));
        }
        if id(&found) == self.state {
            self.skip("content of the state directory");
            return Ok(None);
        }
        let names = children(fd).map_err(|error| self.failed("read", error))?;
        Ok(Some(Level { id: id(&found), names, length: self.name.len() }))
    }

    fn is_of_kernel(&self, fd: &OwnedFd) -> Result<bool> {
        let found = fstatfs(fd).map_err(|error| self.failed("inspect", error))?;
        Ok(u32::try_from(found.f_type).is_ok_and(|kind| KERNEL_FILESYSTEMS.contains(&kind)))
    }

    /// Adds another name of a file that was added already; false if this is its first.
    fn add_link(&mut self, found: &Stat) -> Result<bool> {
        if found.st_nlink < 2 {
            return Ok(false);
        }
        match self.links.get(&id(found)).cloned() {
            Some(first) => {
                self.write(found, EntryType::Link, |entry| entry.link = &first)?;
                Ok(true)
            }
            None => {
                self.links.insert(id(found), self.name.clone());
                Ok(false)
            }
        }
    }

    fn add_file(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let file =
            openat(at, name, READ, Mode::empty()).map_err(|error| self.failed("read", error))?;
        let found = fstat(&file).map_err(|error| self.failed("inspect", error))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(self.changed());
        }
        self.add_opened(&File::from(file), &found)
    }

    /// Adds a regular file. Fails if it has changed since `found` was read.
    fn add_opened(&mut self, file: &File, found: &Stat) -> Result<()> {
        let xattrs = self.xattrs(file)?;
        let size = u64::try_from(found.st_size).unwrap_or(0);
        let map = sparse_map(file).map_err(|error| self.failed("read", error))?;
        self.begin(found, EntryType::Regular, |entry| {
            entry.xattrs = &xattrs;
            entry.size = size;
            entry.sparse = map.as_deref();
        })?;
        for (offset, length) in map.as_deref().unwrap_or(&[(0, size)]) {
            self.copy(file, *offset, *length)?;
        }
        let now = fstat(file).map_err(|error| self.failed("inspect", error))?;
        if (now.st_size, mtime(&now)) != (found.st_size, mtime(found)) {
            return Err(self.changed());
        }
        self.to.end().map_err(|error| self.write_failed(error))
    }

    /// Copies a segment of a file.
    fn copy(&mut self, file: &File, mut offset: u64, length: u64) -> Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let end = offset.saturating_add(length);
        while offset < end {
            let most = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = buffer.get_mut(..most).unwrap_or_default();
            file.read_exact_at(chunk, offset).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.changed(),
                _ => self.failed("read", error),
            })?;
            self.to.write_all(chunk).map_err(|error| self.write_failed(error))?;
            offset += most as u64;
        }
        Ok(())
    }

    /// Writes a member without content.
    fn write<'a>(
        &mut self,
        found: &Stat,
        kind: EntryType,
        set: impl FnOnce(&mut Entry<'a>),
    ) -> Result<()> {
        self.begin(found, kind, set)?;
        self.to.end().map_err(|error| self.write_failed(error))
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
            mtime: mtime(found),
            atime: None,
            device: (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev)),
            xattrs: &[],
            size: 0,
            sparse: None,
        };
        set(&mut entry);
        let written = self.to.begin(&Entry { name: &name, ..entry });
        self.name = name;
        written.map_err(|error| self.write_failed(error))
    }

    /// Returns the extended attributes of a file that an image can have.
    fn xattrs(&self, file: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut names = vec![0; MAX_XATTR];
        let length = match rustix::fs::flistxattr(&file, names.as_mut_slice()) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            found => found.map_err(|error| self.failed("list the attributes of", error))?,
        };
        names.truncate(length);
        let mut found = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| is_kept(name)) {
            if name.contains(&b'=') {
                let name = name.escape_ascii();
                return Err(self.refused(&format!("an archive cannot hold its attribute {name}")));
            }
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

    /// Returns the path of the current member, shortened in the middle if it is long.
    fn path(&self) -> PathBuf {
        const ENDS: usize = 100;
        let name = self.name.get(2..).unwrap_or_default();
        if name.is_empty() {
            return self.root.clone();
        }
        let (first, last) = (name.get(..ENDS), name.get(name.len().saturating_sub(ENDS)..));
        match (first, last) {
            (Some(first), Some(last)) if name.len() > 3 * ENDS => {
                self.root.join(OsStr::from_bytes(&[first, b"...", last].concat()))
            }
            _ => self.root.join(OsStr::from_bytes(name)),
        }
    }

    fn skip(&mut self, why: &str) {
        let text = format!("{}: {why}", self.path().display());
        self.skipped.push(text);
    }

    fn refused(&self, why: &str) -> Error {
        Error::invalid(format!("cannot pack {}: {why}", self.path().display()))
    }

    fn changed(&self) -> Error {
        let text = format!("cannot pack {}: it changed while it was read", self.path().display());
        Error::new(ErrorKind::Io, text)
    }

    fn failed(&self, action: &str, error: impl Into<io::Error>) -> Error {
        Error::io(action, &self.path(), error)
    }

    fn write_failed(&self, error: io::Error) -> Error {
        Error::io("write", &self.target, error)
    }
}

fn id(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

fn mtime(found: &Stat) -> (i64, u32) {
    (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0))
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

/// Whether an attribute is kept: it is one of those that are set when an image is unpacked.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests;
