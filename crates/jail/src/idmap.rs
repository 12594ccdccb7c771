//! Idmapped mounts, and the user namespaces that define their mapping.

use crate::describe::Map;
use crate::sys;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getegid, geteuid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Returns a detached copy of a mount whose owners are mapped through a user namespace: id 0 on
/// disk appears as the outside id of the namespace's id 0.
pub fn idmapped(
    source: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<OwnedFd> {
    let tree = detached(source, recursive)?;
    sys::set_mount_attributes(tree.as_fd(), 0, Some(user_namespace), recursive)?;
    Ok(tree)
}

/// Returns a detached copy of a descriptor's mount.
pub(crate) fn detached(source: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(source, c"", flags)?)
}

/// Creates a user namespace with maps for users and groups, which the caller must be allowed to
/// map. It lives as long as the descriptor, and has no process.
///
/// It belongs to the user `owner`, to whom the kernel's per-user counts, such as inotify instances,
/// are charged as well (user_namespaces(7)).
pub fn user_namespace(owner: u32, users: &[Map], groups: &[Map]) -> io::Result<OwnedFd> {
    let proc = open_proc()?;
    // Only a process can create one. It exits when the pipe closes, so also with its parent.
    let (wait, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    let (ready, report) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = sys::fork_into_user_namespace(owner, &wait, &hold, &report)?;
    drop(report);
    let open = || {
        let mut errno = [0; 4];
        if rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut errno))? != errno.len() {
            return Err(io::Error::other("the process that creates it was killed"));
        }
        match i32::from_ne_bytes(errno) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        write_maps(proc.as_fd(), child, users, groups)?;
        let path = format!("{child}/ns/user");
        Ok(openat(&proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    };
    let namespace = open();
    drop(hold);
    sys::wait(child)?;
    namespace
}

/// Opens `/proc` before its path is out of reach.
pub(crate) fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc", flags, Mode::empty())?)
}

/// Maps the ids of a process in a new user namespace.
pub(crate) fn write_maps(
    proc: BorrowedFd<'_>,
    pid: i32,
    users: &[Map],
    groups: &[Map],
) -> io::Result<()> {
    for (file, maps) in [("uid_map", users), ("gid_map", groups)] {
        let mut text = String::new();
        for Map { inside, outside, count } in maps {
            text.push_str(&format!("{inside} {outside} {count}\n"));
        }
        let path = format!("{pid}/{file}");
        let file = openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
    }
    Ok(())
}

/// Returns whether a descriptor is of a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let found = rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir())
}

/// Attaches a detached mount.
pub fn attach(mount: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Runs `work` with `id` as the owner of what it makes, and with all of this thread's capabilities:
/// on a mount that [`idmapped`] made, the thread's own ids may not exist.
pub fn as_owner<T>(id: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let capabilities = rustix::thread::capabilities(None)?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    sys::set_fs_ids(id, id)?;
    // The kernel has taken away the capabilities about files (capabilities(7)).
    let result = match rustix::thread::set_capabilities(None, capabilities) {
        Ok(()) => Ok(work()),
        Err(error) => Err(error.into()),
    };
    sys::set_fs_ids(uid, gid)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt;

    fn map(outside: u32, count: u32) -> [Map; 1] {
        [Map { inside: 0, outside, count }]
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "why it did not run")]
    fn j3_files_on_disk_keep_the_ids_of_the_image() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can create idmapped mounts");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("f"), "x").unwrap();
        std::os::unix::fs::chown(scratch.path().join("f"), Some(7), Some(8)).unwrap();
        let namespace =
            user_namespace(1_000_000, &map(1_000_000, 65_536), &map(1_000_000, 65_536)).unwrap();
        let clone = idmapped(File::open(scratch.path()).unwrap().as_fd(), namespace.as_fd(), false)
            .unwrap();
        let seen = rustix::fs::statat(&clone, "f", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!((seen.st_uid, seen.st_gid), (1_000_007, 1_000_008));
        let disk = fs::metadata(scratch.path().join("f")).unwrap();
        assert_eq!((disk.uid(), disk.gid()), (7, 8));

        let made = as_owner(1_000_000, || rustix::fs::mkdirat(&clone, "d", Mode::RWXU)).unwrap();
        made.unwrap();
        let disk = fs::metadata(scratch.path().join("d")).unwrap();
        assert_eq!((disk.uid(), disk.gid()), (0, 0));
        fs::write(scratch.path().join("own"), "x").unwrap();
        assert_eq!(fs::metadata(scratch.path().join("own")).unwrap().uid(), 0);
    }

    #[test]
    fn j3_unmappable_namespace_is_an_error() {
        // There is no id after the last one.
        assert!(user_namespace(0, &map(u32::MAX, 2), &map(u32::MAX, 2)).is_err());
    }
}
