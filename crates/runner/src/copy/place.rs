//! Moves what was unpacked into place.

use super::failure::{Result, host, system};
use msb_state::{CopyOrder, remove_tree};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, openat,
    renameat, renameat_with, statat,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory beside the copy, in which it is unpacked. Removed on drop.
pub(super) struct Aside {
    path: PathBuf,
    parent: OwnedFd,
    fd: OwnedFd,
}

impl Aside {
    pub(super) fn create(into: &Path) -> Result<Aside> {
        let failed = |errno| system("unpack into", b"", errno);
        let parent = openat(CWD, into, DIRECTORY, Mode::empty()).map_err(failed)?;
        let mut number = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::from(since.subsec_nanos()) ^ since.as_secs());
        loop {
            let name = format!(".msb-copy-{number:x}");
            match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
                Err(Errno::EXIST) => number = number.wrapping_add(1),
                made => {
                    made.map_err(failed)?;
                    let fd = openat(&parent, &name, DIRECTORY, Mode::empty()).map_err(failed)?;
                    return Ok(Aside { path: into.join(name), parent, fd });
                }
            }
        }
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(%error, "what was unpacked of a copy is left");
        }
    }
}

/// Moves the copy into place. What would fail for its type is found before anything is moved.
pub(super) fn place(order: &CopyOrder, aside: &Aside) -> Result<()> {
    if order.sync {
        sync(aside.fd.as_fd())?;
    }
    let root = order.root.as_slice();
    if inspect(aside.directory(), root)?.is_none() {
        // It is of a kind that is skipped.
        return Ok(());
    }
    for act in [false, true] {
        match &order.target {
            Some(target) => {
                move_one(
                    aside.directory(),
                    root,
                    aside.parent.as_fd(),
                    target,
                    &Pass { act, aside },
                )?;
            }
            None => {
                let from = openat(&aside.fd, root, DIRECTORY, Mode::empty())
                    .map_err(|errno| system("replace a directory with", root, errno))?;
                merge(&from, &aside.parent, &Pass { act, aside })?;
            }
        }
    }
    if order.sync {
        sync(aside.parent.as_fd())?;
    }
    Ok(())
}

struct Pass<'a> {
    /// Whether to move, or only to look.
    act: bool,
    aside: &'a Aside,
}

fn move_one(
    from: BorrowedFd<'_>,
    name: &[u8],
    to: BorrowedFd<'_>,
    target: &[u8],
    pass: &Pass<'_>,
) -> Result<()> {
    let Some(moved) = inspect(from, name)? else { return Ok(()) };
    let is_directory = |found: &Stat| FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let failed = |errno| system("replace", target, errno);
    match inspect(to, target)? {
        Some(found) if is_directory(&found) && is_directory(&moved) => {
            let from = openat(from, name, DIRECTORY, Mode::empty()).map_err(failed)?;
            let to = openat(to, target, DIRECTORY, Mode::empty()).map_err(failed)?;
            let parent = rustix::fs::fstat(&pass.aside.parent).map_err(failed)?;
            if rustix::fs::fstat(&to).map_err(failed)?.st_dev != parent.st_dev {
                let text = "a file system is mounted there; copy into it by itself";
                return Err(host("replace", target, Some(Errno::XDEV.raw_os_error()), text.into()));
            }
            merge(&from, &to, pass)
        }
        Some(found) if is_directory(&found) => Err(failed(Errno::ISDIR)),
        Some(_) if is_directory(&moved) => Err(failed(Errno::NOTDIR)),
        _ if !pass.act => Ok(()),
        Some(_) => renameat(from, name, to, target).map_err(failed),
        None => match renameat_with(from, name, to, target, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag.
            Err(Errno::INVAL) => renameat(from, name, to, target).map_err(failed),
            moved => moved.map_err(failed),
        },
    }
}

/// Moves what is in a directory into another one, which gets the attributes of the first.
fn merge(from: &OwnedFd, to: &OwnedFd, pass: &Pass<'_>) -> Result<()> {
    let failed = |errno| system("merge", b"", errno);
    let attributes = rustix::fs::fstat(from).map_err(failed)?;
    if pass.act {
        // The copy of a directory that is read-only has to be emptied.
        rustix::fs::fchmod(from, Mode::RWXU).map_err(failed)?;
    }
    for name in children(from).map_err(failed)? {
        let name = name.as_bytes();
        move_one(from.as_fd(), name, to.as_fd(), name, pass)?;
    }
    if !pass.act {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(attributes.st_mode & 0o7777);
    match rustix::fs::fchmod(to, mode) {
        // The directory is somebody else's, and keeps its attributes.
        Err(Errno::PERM) => return Ok(()),
        set => set.map_err(failed)?,
    }
    let time = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(
            attributes.st_atime,
            i64::try_from(attributes.st_atime_nsec).unwrap_or(0),
        ),
        last_modification: time(
            attributes.st_mtime,
            i64::try_from(attributes.st_mtime_nsec).unwrap_or(0),
        ),
    };
    rustix::fs::futimens(to, &times).map_err(failed)
}

fn sync(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::syncfs(fd).map_err(|errno| system("write to the disk", b"", errno))
}

fn inspect(at: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>> {
    match statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some).map_err(|errno| system("inspect", name, errno)),
    }
}

fn children(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}
