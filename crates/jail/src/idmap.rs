//! Mounts whose files appear with other owners than they have on disk (mount_setattr(2)).

use crate::sys;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getegid, geteuid};
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Makes a user namespace that maps `count` ids from 0 on to those from `start` on. It lives as
/// long as the descriptor, and has no process.
pub fn user_namespace(start: u32, count: u32) -> io::Result<OwnedFd> {
    // Only a process can make one. This one ends with the pipe, so also with its parent.
    let (wait, hold) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = sys::clone_into_user_namespace(&wait, &hold)?;
    let made = (|| {
        let map = format!("0 {start} {count}\n");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{child}/{file}"), &map)?;
        }
        File::open(format!("/proc/{child}/ns/user")).map(OwnedFd::from)
    })();
    drop(hold);
    sys::wait(child)?;
    made
}

/// Clones the mount at `path`, without those below it, so that the files of the clone appear with
/// the ids that `namespace` maps theirs to. The clone is attached nowhere.
pub fn idmapped(path: &Path, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)?;
    sys::set_idmap(&clone, namespace)?;
    Ok(clone)
}

/// Attaches a mount that [`idmapped`] made.
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
    use rustix::fs::Mode;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    #[allow(clippy::print_stderr, reason = "why it did not run")]
    fn j3_files_on_disk_keep_the_ids_of_the_image() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make idmapped mounts");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("f"), "x").unwrap();
        std::os::unix::fs::chown(scratch.path().join("f"), Some(7), Some(8)).unwrap();
        let namespace = user_namespace(1_000_000, 65_536).unwrap();
        let clone = idmapped(scratch.path(), namespace.as_fd()).unwrap();
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
    fn j3_a_namespace_that_cannot_be_mapped_is_an_error() {
        // Ids from the very last on, of which there are no two.
        assert!(user_namespace(u32::MAX, 2).is_err());
    }
}
