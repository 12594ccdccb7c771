//! Writing of files.
//!
//! Invariant: a writer that is dropped before it is finished leaves the old content, or no file.

use super::attributes::{check_mode, check_owner};
use super::error::{Result, failed, invalid, io_failed};
use super::names::make_parents;
use super::root::{Location, Root, SAFE, check, check_open};
use super::temporary::Temporary;
use crate::sys;
use msb_wire::{FsWrite, FsWriteStart};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

const WRITE: &str = "write";
const OPEN: &str = "open";
const FILE_MODE: u32 = 0o644;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    request: FsWrite,
    target: Target,
    written: u64,
}

#[derive(Debug)]
enum Target {
    /// The content is complete before it takes its place.
    Replace { place: Location, temporary: Temporary, old: Option<Old> },
    /// The file itself.
    InPlace { file: Option<File>, undo: Undo },
}

/// The file that is replaced.
#[derive(Debug)]
struct Old {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// How a write in place is given up.
#[derive(Debug)]
enum Undo {
    Nothing,
    /// Cut it to this length.
    Cut(u64),
    /// It was created.
    Remove(Location),
}

impl Writer {
    pub(super) fn open(root: &Root, request: FsWrite) -> Result<Writer> {
        let path = request.path.as_slice();
        check(WRITE, path)?;
        check_mode(WRITE, path, request.mode)?;
        check_owner(WRITE, path, request.uid, request.gid)?;
        if request.exclusive && request.existing {
            return Err(invalid(WRITE, path, "it cannot be both new and existing"));
        }
        if request.parents {
            make_parents(root, path).map_err(failed("make directory for", path))?;
        }
        // A new file never takes the place of a link.
        let place = if request.exclusive { root.place(path) } else { root.target(path) };
        let place = place.map_err(failed(OPEN, path))?;
        let found =
            rustix::fs::statat(&place.directory, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        let found = match found {
            Ok(_) if request.exclusive => return Err(failed(OPEN, path)(Errno::EXIST)),
            Ok(found) => Some(found),
            Err(Errno::NOENT) if request.existing => {
                return Err(failed(OPEN, path)(Errno::NOENT));
            }
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(OPEN, path)(errno)),
        };
        let kind = found.as_ref().map(|found| FileType::from_raw_mode(found.st_mode));
        let is_special = kind.is_some_and(|kind| kind != FileType::RegularFile);
        let target = if is_special || request.start != FsWriteStart::Replace {
            in_place(&place, &request, found.is_some())?
        } else {
            let old = found.map(|found| Old {
                mode: found.st_mode & 0o7777,
                uid: found.st_uid,
                gid: found.st_gid,
            });
            if old.is_some() {
                check_writable(&place, path)?;
            }
            let temporary = Temporary::create(&place.directory).map_err(failed("create", path))?;
            Target::Replace { place, temporary, old }
        };
        Ok(Writer { request, target, written: 0 })
    }

    /// Writes the next bytes.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        let offset = match self.request.start {
            FsWriteStart::At(offset) => Some(offset),
            _ => None,
        };
        let written = match (&mut self.target, offset) {
            (Target::Replace { temporary, .. }, _) => temporary.file().write_all(data),
            (Target::InPlace { file: Some(file), .. }, Some(offset)) => {
                write_at(file, data, offset.saturating_add(self.written))
            }
            (Target::InPlace { file: Some(file), .. }, None) => file.write_all(data),
            (Target::InPlace { file: None, .. }, _) => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(io_failed(WRITE, &self.request.path))?;
        self.written += data.len() as u64;
        Ok(())
    }

    /// Completes the file. Returns the number of bytes.
    pub(super) fn finish(mut self) -> Result<u64> {
        let path = self.request.path.clone();
        let written = self.written;
        match &mut self.target {
            Target::InPlace { file, undo } => {
                if let Some(file) = file {
                    set_metadata(file, &self.request, None).map_err(failed(WRITE, &path))?;
                    if self.request.sync {
                        file.sync_all().map_err(io_failed("sync", &path))?;
                    }
                }
                *undo = Undo::Nothing;
                let file = file.take().map(OwnedFd::from);
                file.map_or(Ok(()), sys::close).map_err(failed("close", &path))?;
            }
            Target::Replace { place, temporary, old } => {
                let old = old.take();
                set_metadata(temporary.file(), &self.request, old.as_ref())
                    .map_err(failed(WRITE, &path))?;
                if self.request.sync {
                    temporary.file().sync_all().map_err(io_failed("sync", &path))?;
                }
                let placed = temporary.place(&place.name, self.request.exclusive);
                placed.map_err(failed("replace", &path))?;
                if self.request.sync {
                    sync_directory(place).map_err(failed("sync", &path))?;
                }
            }
        }
        Ok(written)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Target::InPlace { file: Some(file), undo } = &self.target else { return };
        match undo {
            Undo::Nothing => {}
            // Nobody else has written to it if it ends where this one stopped.
            Undo::Cut(length)
                if file
                    .metadata()
                    .is_ok_and(|found| found.size() == length.saturating_add(self.written)) =>
            {
                drop(file.set_len(*length))
            }
            Undo::Cut(_) => {}
            Undo::Remove(place) => drop(rustix::fs::unlinkat(
                &place.directory,
                place.name.as_slice(),
                AtFlags::empty(),
            )),
        }
    }
}

/// Opens a file to write to it in place.
fn in_place(place: &Location, request: &FsWrite, exists: bool) -> Result<Target> {
    let path = request.path.as_slice();
    let mut flags = OFlags::WRONLY | SAFE;
    if request.start == FsWriteStart::Append {
        flags |= OFlags::APPEND;
    }
    if !exists {
        flags |= OFlags::CREATE | OFlags::EXCL;
    }
    let file = File::from(place.open(flags, Mode::RUSR | Mode::WUSR).map_err(failed(OPEN, path))?);
    check_open(WRITE, path, file.as_fd(), request.special)?;
    if let FsWriteStart::At(offset) = request.start
        && i64::try_from(offset).is_err()
    {
        return Err(failed(WRITE, path)(Errno::FBIG));
    }
    let undo = match (exists, request.start) {
        (false, _) => Undo::Remove(Location {
            directory: place.directory.try_clone().map_err(io_failed(OPEN, path))?,
            name: place.name.clone(),
            path: place.path.clone(),
        }),
        (true, FsWriteStart::Append) => {
            Undo::Cut(file.metadata().map_err(io_failed("stat", path))?.size())
        }
        (true, _) => Undo::Nothing,
    };
    if !exists {
        let mode = Mode::from_raw_mode(request.mode.unwrap_or(FILE_MODE));
        rustix::fs::fchmod(&file, mode).map_err(failed(WRITE, path))?;
    }
    Ok(Target::InPlace { file: Some(file), undo })
}

/// Checks that the user may write to a file that is to be replaced: its directory alone does not
/// say so.
fn check_writable(place: &Location, path: &[u8]) -> Result<()> {
    match place.open(OFlags::WRONLY | SAFE, Mode::empty()) {
        Ok(file) => check_open(WRITE, path, file.as_fd(), false),
        // A program that runs can be replaced.
        Err(Errno::TXTBSY) => Ok(()),
        Err(errno) => Err(failed(OPEN, path)(errno)),
    }
}

/// Sets owner and mode: those of the request, else those of the old file.
fn set_metadata(file: &File, request: &FsWrite, old: Option<&Old>) -> rustix::io::Result<()> {
    let found = rustix::fs::fstat(file)?;
    if let Some(old) = old {
        let uid = request.uid.is_none() && old.uid != found.st_uid;
        let gid = request.gid.is_none() && old.gid != found.st_gid;
        let (uid, gid) = (uid.then_some(old.uid), gid.then_some(old.gid));
        // One that the user may not give away becomes the user's own.
        for (uid, gid) in [(uid, None), (None, gid)] {
            if uid.is_some() || gid.is_some() {
                let _ = rustix::fs::fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            }
        }
    }
    if request.uid.is_some() || request.gid.is_some() {
        let (uid, gid) = (request.uid.map(Uid::from_raw), request.gid.map(Gid::from_raw));
        rustix::fs::fchown(file, uid, gid)?;
    }
    let mode = match (request.mode, old) {
        (Some(mode), _) => Some(mode),
        // Another owner must not get the rights of the old one.
        (None, Some(old)) if rustix::fs::fstat(file)?.st_uid != old.uid => Some(old.mode & 0o777),
        (None, Some(old)) => Some(old.mode),
        (None, None) if request.start == FsWriteStart::Replace => Some(FILE_MODE),
        (None, None) => None,
    };
    // After the owner, because chown clears the set-user-id and set-group-id bits.
    mode.map_or(Ok(()), |mode| rustix::fs::fchmod(file, Mode::from_raw_mode(mode)))
}

/// Writes the entry of a file to the disk.
fn sync_directory(place: &Location) -> rustix::io::Result<()> {
    let flags = super::root::LIST;
    let opened = rustix::fs::openat(&place.directory, c".", flags, Mode::empty());
    match opened {
        Ok(directory) => match rustix::fs::fsync(&directory) {
            // Not every file system has something to write.
            Err(Errno::INVAL) => Ok(()),
            result => result,
        },
        // A directory that may be written to and not read.
        Err(Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Writes all bytes at an offset, or one after the other where there are no offsets.
pub(super) fn write_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    match file.write_all_at(data, offset) {
        Err(error) if error.raw_os_error() == Some(Errno::SPIPE.raw_os_error()) => {
            let mut file = file;
            file.write_all(data)
        }
        result => result,
    }
}

/// Opens a file for a handle, and creates it.
pub(super) fn create(
    root: &Root,
    path: &[u8],
    flags: OFlags,
    exclusive: bool,
    mode: Option<u32>,
) -> Result<OwnedFd> {
    let follows = !exclusive && !flags.contains(OFlags::NOFOLLOW);
    let place = if follows { root.target(path) } else { root.place(path) };
    let place = place.map_err(failed(OPEN, path))?;
    let new = flags | OFlags::CREATE | OFlags::EXCL;
    match place.open(new, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            let mode = Mode::from_raw_mode(mode.unwrap_or(FILE_MODE));
            rustix::fs::fchmod(&file, mode).map_err(failed(OPEN, path))?;
            Ok(file)
        }
        Err(Errno::EXIST) if !exclusive => {
            place.open(flags, Mode::empty()).map_err(failed(OPEN, path))
        }
        Err(errno) => Err(failed(OPEN, path)(errno)),
    }
}

/// Writes to an open file of a handle.
#[derive(Debug)]
pub(super) struct HandleWriter {
    file: Arc<File>,
    offset: u64,
    pub(super) written: u64,
}

impl HandleWriter {
    pub(super) fn new(file: Arc<File>, offset: u64) -> Result<HandleWriter> {
        match i64::try_from(offset) {
            Ok(_) => Ok(HandleWriter { file, offset, written: 0 }),
            Err(_) => Err(failed(WRITE, b"")(Errno::FBIG)),
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        let offset = self.offset.saturating_add(self.written);
        write_at(&self.file, data, offset).map_err(io_failed(WRITE, b""))?;
        self.written += data.len() as u64;
        Ok(())
    }
}
