//! Operations on names: make, remove, rename, links.

use super::error::{Result, failed, invalid};
use super::root::{LIST, Location, NAME, Root, check, kind_at, split};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// Depth of directories that one operation goes into: each level takes a descriptor.
pub(super) const MAX_DEPTH: usize = 2048;

const MKDIR: &str = "make directory";
const DIRECTORY: u32 = 0o755;

/// Makes a directory.
pub(super) fn mkdir(root: &Root, path: &[u8], parents: bool, mode: Option<u32>) -> Result<()> {
    check(MKDIR, path)?;
    super::attributes::check_mode(MKDIR, path, mode)?;
    if parents {
        make_parents(root, path).map_err(failed(MKDIR, path))?;
    }
    let mode = mode.unwrap_or(DIRECTORY);
    let made = root.place(path).and_then(|place| mkdir_at(&place, mode));
    match made {
        Err(Errno::EXIST) if parents && is_directory(root, path) => Ok(()),
        made => made.map_err(failed(MKDIR, path)),
    }
}

/// Makes the missing directories above a path.
pub(super) fn make_parents(root: &Root, path: &[u8]) -> rustix::io::Result<()> {
    let (parent, name) = split(path);
    if name == b"." || is_directory(root, parent) {
        return Ok(());
    }
    let mut missing = vec![parent];
    while let Some(last) = missing.last() {
        let (parent, name) = split(last);
        if name == b"." || is_directory(root, parent) {
            break;
        }
        missing.push(parent);
    }
    for path in missing.into_iter().rev() {
        match root.place(path).and_then(|place| mkdir_at(&place, DIRECTORY)) {
            // Another one made it meanwhile. If it is something else, the next step says so.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn is_directory(root: &Root, path: &[u8]) -> bool {
    root.open_path(path, NAME | OFlags::DIRECTORY).is_ok()
}

/// Makes a directory with a mode that does not depend on the umask.
fn mkdir_at(place: &Location, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::mkdirat(&place.directory, place.name.as_slice(), Mode::from_raw_mode(mode))?;
    let made = place.open(LIST, Mode::empty())?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))
}

/// Removes what is no directory.
pub(super) fn remove(root: &Root, path: &[u8]) -> Result<()> {
    check("remove", path)?;
    let unlink = |place: Location| {
        rustix::fs::unlinkat(&place.directory, place.name.as_slice(), AtFlags::empty())
    };
    root.place(path).and_then(unlink).map_err(failed("remove", path))
}

/// Removes a directory. Returns the number of files and directories that were removed.
pub(super) fn remove_directory(
    root: &Root,
    path: &[u8],
    recursive: bool,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<u64> {
    const REMOVE: &str = "remove directory";
    check(REMOVE, path)?;
    let place = root.place(path).map_err(failed(REMOVE, path))?;
    let (at, name) = (place.directory.as_fd(), place.name.as_slice());
    if name == b"." {
        return Err(failed(REMOVE, path)(Errno::BUSY));
    }
    let mut removed = 1;
    if recursive {
        match kind_at(at, name).map_err(failed(REMOVE, path))? {
            Some(FileType::Directory) => {
                removed += remove_content(at, name, path, is_cancelled)?;
            }
            Some(_) => return Err(failed(REMOVE, path)(Errno::NOTDIR)),
            None => return Err(failed(REMOVE, path)(Errno::NOENT)),
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR).map_err(failed(REMOVE, path))?;
    Ok(removed)
}

/// A directory that is being emptied.
struct Level {
    directory: Dir,
    /// Length of its path.
    length: usize,
}

/// Removes everything in a directory, and follows no link. Returns the number of what it removed.
/// `path` is for errors.
pub(super) fn remove_content(
    at: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    is_cancelled: &dyn Fn() -> bool,
) -> Result<u64> {
    let mut removed = 0;
    let mut below = path.to_vec();
    let mut levels = vec![open_level(at, name, &below)?];
    while let Some(mut level) = levels.pop() {
        if is_cancelled() {
            return Err(failed("remove", &below)(Errno::CANCELED));
        }
        below.truncate(level.length);
        let Some(entry) = level.directory.read() else {
            if let Some(parent) = levels.last() {
                let name = below.get(parent.length + 1..).unwrap_or_default();
                let unlink = |parent| unlink(parent, name, AtFlags::REMOVEDIR);
                parent.directory.fd().and_then(unlink).map_err(failed("remove", &below))?;
                removed += 1;
            }
            continue;
        };
        let entry = entry.map_err(failed("list", &below))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            below.push(b'/');
            below.extend_from_slice(name);
            let directory = level.directory.fd().map_err(failed("list", &below))?;
            if unlink_file(directory, name).map_err(failed("remove", &below))? {
                removed += 1;
            } else {
                if levels.len() >= MAX_DEPTH {
                    return Err(invalid("remove", &below, "too many directories in each other"));
                }
                let child = open_level(directory, name, &below)?;
                levels.push(level);
                levels.push(child);
                continue;
            }
        }
        levels.push(level);
    }
    Ok(removed)
}

fn open_level(at: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Level> {
    let fd = rustix::fs::openat(at, name, LIST | OFlags::NOFOLLOW, Mode::empty());
    let directory = fd.and_then(Dir::new).map_err(failed("list", path))?;
    Ok(Level { directory, length: path.len() })
}

/// Unlinks a name. Returns false if it is a directory.
fn unlink_file(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
    match unlink(at, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // POSIX has EPERM for a directory, Linux EISDIR.
        Err(Errno::ISDIR | Errno::PERM) if kind_at(at, name) == Ok(Some(FileType::Directory)) => {
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}

/// Unlinks a name. One that is gone already is as good.
fn unlink(at: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(at, name, flags) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Renames a file or directory.
pub(super) fn rename(root: &Root, from: &[u8], to: &[u8], no_replace: bool) -> Result<()> {
    check("rename", from)?;
    check("rename", to)?;
    let old = root.place(from).map_err(failed("rename", from))?;
    let new = root.place(to).map_err(failed("rename", to))?;
    let renamed = match no_replace {
        false => rustix::fs::renameat(
            &old.directory,
            old.name.as_slice(),
            &new.directory,
            new.name.as_slice(),
        ),
        true => rustix::fs::renameat_with(
            &old.directory,
            old.name.as_slice(),
            &new.directory,
            new.name.as_slice(),
            RenameFlags::NOREPLACE,
        ),
    };
    let subject = match renamed {
        // These are about the new path.
        Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR) => to,
        _ => from,
    };
    renamed.map_err(failed("rename", subject))
}

/// Makes a symbolic link.
pub(super) fn symlink(root: &Root, target: &[u8], path: &[u8]) -> Result<()> {
    const LINK: &str = "make symbolic link";
    check(LINK, path)?;
    if target.is_empty() || target.contains(&0) {
        return Err(invalid(LINK, path, "its target is empty or contains a NUL"));
    }
    let link =
        |place: Location| rustix::fs::symlinkat(target, &place.directory, place.name.as_slice());
    root.place(path).and_then(link).map_err(failed(LINK, path))
}

/// Returns what a symbolic link says.
pub(super) fn read_link(root: &Root, path: &[u8]) -> Result<Vec<u8>> {
    check("read link", path)?;
    let read = |place: Location| {
        rustix::fs::readlinkat(&place.directory, place.name.as_slice(), Vec::new())
    };
    let link = root.place(path).and_then(read).map_err(failed("read link", path))?;
    Ok(link.into_bytes())
}

/// Returns the path without links, `.` and `..`.
pub(super) fn real_path(root: &Root, path: &[u8]) -> Result<Vec<u8>> {
    check("resolve", path)?;
    root.real_path(path).map_err(failed("resolve", path))
}

/// Returns whether a path exists.
pub(super) fn exists(root: &Root, path: &[u8]) -> Result<bool> {
    check("stat", path)?;
    match root.open_path(path, NAME) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(failed("stat", path)(errno)),
    }
}
