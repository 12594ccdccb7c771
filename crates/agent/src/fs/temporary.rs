//! Files and directories that are not complete yet.
//!
//! A file has no name while it is written (`O_TMPFILE`), so that nothing is left whatever ends the
//! agent. Where that is unavailable, and for directories, the name begins with [`PREFIX`], and is
//! removed on drop.

use super::names::remove_content;
use super::root::{NAME, SAFE, descriptor_path};
use crate::sys;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::{Errno, Result};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

/// The beginning of a temporary name.
const PREFIX: &str = ".msb-";
/// Tries to find an unused name.
const TRIES: usize = 16;
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A file that is being written, in the directory that it is for.
#[derive(Debug)]
pub(super) struct Temporary {
    directory: OwnedFd,
    file: File,
    /// Its name, while it has one.
    name: Option<Vec<u8>>,
}

impl Temporary {
    pub(super) fn create(directory: &OwnedFd) -> Result<Temporary> {
        match nameless(directory) {
            Some(file) => Ok(Temporary { directory: copy(directory)?, file, name: None }),
            None => Temporary::create_named(directory),
        }
    }

    fn create_named(directory: &OwnedFd) -> Result<Temporary> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | SAFE;
        let (file, name) =
            with_new_name(|name| rustix::fs::openat(directory, name, flags, PRIVATE))?;
        Ok(Temporary { directory: copy(directory)?, file: file.into(), name: Some(name) })
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name, if closing it succeeds. `exclusive`: only if nothing has the name.
    pub(super) fn place(&mut self, name: &[u8], exclusive: bool) -> Result<()> {
        // Each close of a descriptor reports what the file system could not write.
        sys::close(self.file.try_clone().map_err(errno)?.into())?;
        let own = match self.name.take() {
            Some(own) => own,
            None => link(&self.file, &self.directory)?,
        };
        let own = self.name.insert(own).as_slice();
        let (directory, flags) = (&self.directory, AtFlags::empty());
        if exclusive {
            // The temporary name is removed on drop.
            return rustix::fs::linkat(directory, own, directory, name, flags);
        }
        match rustix::fs::renameat(directory, own, directory, name) {
            Ok(()) => self.name = None,
            // A mount point, which can only be written to.
            Err(Errno::BUSY) => self.overwrite(name)?,
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Copies the complete content into a file that cannot be replaced.
    fn overwrite(&mut self, name: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | SAFE;
        let mut to = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?);
        self.file.rewind().map_err(errno)?;
        let length = self.file.metadata().map_err(errno)?.len();
        // Takes the space first: a full disk leaves the old content.
        let reserved = rustix::fs::fallocate(&to, FallocateFlags::KEEP_SIZE, 0, length.max(1));
        // Not every file system can.
        if let Err(error @ (Errno::NOSPC | Errno::DQUOT)) = reserved {
            return Err(error);
        }
        io::copy(&mut (&self.file).take(length), &mut to).map_err(errno)?;
        to.set_len(length).map_err(errno)?;
        sys::close(to.into())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Fails only if the guest has removed it.
            let _ = rustix::fs::unlinkat(&self.directory, name.as_slice(), AtFlags::empty());
        }
    }
}

/// A directory that is being filled, in the directory that its content is for.
#[derive(Debug)]
pub(super) struct TemporaryDirectory {
    parent: OwnedFd,
    name: Vec<u8>,
    pub(super) fd: OwnedFd,
}

impl TemporaryDirectory {
    pub(super) fn create(parent: &OwnedFd) -> Result<TemporaryDirectory> {
        let ((), name) = with_new_name(|name| rustix::fs::mkdirat(parent, name, Mode::RWXU))?;
        let flags = NAME | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let parent = copy(parent)?;
        match rustix::fs::openat(&parent, name.as_slice(), flags, Mode::empty()) {
            Ok(fd) => Ok(TemporaryDirectory { parent, name, fd }),
            Err(errno) => {
                let _ = rustix::fs::unlinkat(&parent, name.as_slice(), AtFlags::REMOVEDIR);
                Err(errno)
            }
        }
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // Fails only if the guest has changed it.
        let _ = remove_content(self.parent.as_fd(), &self.name, &self.name, &|| false);
        let _ = rustix::fs::unlinkat(&self.parent, self.name.as_slice(), AtFlags::REMOVEDIR);
    }
}

/// Creates a file without a name, if the file system can and `/proc` is there to name it later.
fn nameless(directory: &OwnedFd) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | SAFE;
    let file = File::from(rustix::fs::openat(directory, c".", flags, PRIVATE).ok()?);
    let found = rustix::fs::fstat(&file).ok()?;
    let named = rustix::fs::stat(descriptor_path(file.as_fd()).as_slice()).ok()?;
    let is_same = (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino);
    is_same.then_some(file)
}

/// Gives a file without a name a temporary one.
fn link(file: &File, directory: &OwnedFd) -> Result<Vec<u8>> {
    let path = descriptor_path(file.as_fd());
    let flags = AtFlags::SYMLINK_FOLLOW;
    let link = |name: &[u8]| rustix::fs::linkat(CWD, path.as_slice(), directory, name, flags);
    with_new_name(link).map(|((), name)| name)
}

/// Returns whether a name is one of those that files and directories have for a while.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    let digits = name.strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Calls a function with new names until one is unused.
fn with_new_name<T>(mut create: impl FnMut(&[u8]) -> Result<T>) -> Result<(T, Vec<u8>)> {
    let mut last = Errno::EXIST;
    for _ in 0..TRIES {
        let name = new_name()?;
        match create(&name) {
            Err(Errno::EXIST) => last = Errno::EXIST,
            Err(errno) => return Err(errno),
            Ok(made) => return Ok((made, name)),
        }
    }
    Err(last)
}

fn new_name() -> Result<Vec<u8>> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random)).into_bytes())
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, NAME | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn k3_dropped_temporary_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let at = open(folder.path());
        for named in [false, true] {
            let make = if named { Temporary::create_named } else { Temporary::create };
            let mut temporary = make(&at).unwrap();
            temporary.file().write_all(b"x").unwrap();
            drop(temporary);
            assert_eq!(names(folder.path()).len(), 0);
        }
        let directory = TemporaryDirectory::create(&at).unwrap();
        assert!(is_temporary(names(folder.path())[0].as_bytes()) && !is_temporary(b".msb-x"));
        rustix::fs::mkdirat(&directory.fd, "a", Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join(names(folder.path())[0].clone() + "/l"))
            .unwrap();
        drop(directory);
        assert_eq!(names(folder.path()).len(), 0);
    }

    #[test]
    fn k2_temporary_takes_its_place_with_and_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = open(folder.path());
        for (named, exclusive) in [(false, false), (true, false), (false, true), (true, true)] {
            let make = if named { Temporary::create_named } else { Temporary::create };
            let (path, mut temporary) = (folder.path().join("file"), make(&at).unwrap());
            temporary.file().write_all(b"new").unwrap();
            std::fs::write(&path, "old").unwrap();
            if exclusive {
                assert_eq!(temporary.place(b"file", true), Err(Errno::EXIST));
                assert_eq!(std::fs::read(&path).unwrap(), b"old");
                std::fs::remove_file(&path).unwrap();
            }
            temporary.place(b"file", exclusive).unwrap();
            drop(temporary);
            assert_eq!(
                (std::fs::read(&path).unwrap(), names(folder.path())),
                (b"new".into(), vec!["file".into()])
            );
        }
    }
}
