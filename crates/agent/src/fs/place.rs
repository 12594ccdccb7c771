//! Moves a complete tree into its place.

use super::error::{Result, failed};
use super::root::{LIST, NAME, kind_at};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

const REPLACE: &str = "replace";

/// A tree whose entries take their place in an existing directory.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    /// Path of the directory, for errors.
    path: &'a [u8],
    no_replace: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        from: &'a OwnedFd,
        to: &'a OwnedFd,
        path: &'a [u8],
        no_replace: bool,
    ) -> Merge<'a> {
        Merge { from, to, path, no_replace }
    }

    /// Moves everything. Returns the directories that existed. Looks for obstacles first, so that
    /// it changes nothing if there is one.
    pub(super) fn run(&self) -> Result<HashSet<Vec<u8>>> {
        self.pass(false)?;
        self.pass(true)
    }

    fn pass(&self, moves: bool) -> Result<HashSet<Vec<u8>>> {
        let (mut merged, mut left) = (HashSet::new(), vec![Vec::new()]);
        while let Some(below) = left.pop() {
            let open = |root: &OwnedFd| walk(root, &below, LIST);
            let whole = self.path_of(&below);
            let failed = failed("open", &whole);
            let (from, to) = (open(self.from).map_err(&failed)?, open(self.to).map_err(&failed)?);
            let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|found| found.st_dev);
            if device(&from).map_err(&failed)? != device(&to).map_err(&failed)? {
                return Err(failed(Errno::XDEV));
            }
            for name in names(&from).map_err(&failed)? {
                let path = match below.as_slice() {
                    b"" => name.clone(),
                    below => [below, b"/", &name].concat(),
                };
                if self.entry((&from, &to), &name, &path, moves)? {
                    merged.insert(path.clone());
                    left.push(path);
                }
            }
        }
        Ok(merged)
    }

    /// Handles one entry. Returns whether it is a directory to merge.
    fn entry(
        &self,
        (from, to): (&OwnedFd, &OwnedFd),
        name: &[u8],
        path: &[u8],
        moves: bool,
    ) -> Result<bool> {
        let whole = self.path_of(path);
        let failed = failed(REPLACE, &whole);
        let new = kind_at(from.as_fd(), name).map_err(&failed)?;
        let old = kind_at(to.as_fd(), name).map_err(&failed)?;
        match (new, old) {
            (Some(FileType::Directory), Some(FileType::Directory)) => return Ok(true),
            (Some(FileType::Directory), Some(_)) => return Err(failed(Errno::NOTDIR)),
            (_, Some(FileType::Directory)) => return Err(failed(Errno::ISDIR)),
            (_, Some(_)) if self.no_replace => return Err(failed(Errno::EXIST)),
            _ => {}
        }
        if moves {
            rustix::fs::renameat(from, name, to, name).map_err(&failed)?;
        }
        Ok(false)
    }

    fn path_of(&self, below: &[u8]) -> Vec<u8> {
        [self.path, b"/", below].concat()
    }
}

/// Opens a directory below another one without following a link.
pub(super) fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut at = rustix::fs::openat(root, c".", NAME | directory, Mode::empty())?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        at = rustix::fs::openat(&at, part, NAME | directory, Mode::empty())?;
    }
    rustix::fs::openat(&at, c".", flags | directory, Mode::empty())
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
