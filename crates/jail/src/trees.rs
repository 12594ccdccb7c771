//! Detached mounts, which are attached by descriptors only: no name is resolved twice.

use crate::idmap::detached;
use crate::sys;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A mount that is attached nowhere, without devices and set-user-ID programs.
#[derive(Debug)]
pub struct Tree {
    tree: OwnedFd,
}

impl Tree {
    /// Copies the mount of a descriptor, with the mounts below it.
    pub fn of(source: BorrowedFd<'_>) -> io::Result<Tree> {
        let tree = Tree { tree: detached(source, true)? };
        tree.set(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, None)?;
        Ok(tree)
    }

    /// Creates a tmpfs.
    pub fn tmpfs(options: &[(&str, String)]) -> io::Result<Tree> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in options {
            fsconfig_set_string(&context, *name, value)?;
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(Tree { tree: fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)? })
    }

    /// Makes it read-only.
    pub fn forbid_writes(&self) -> io::Result<()> {
        self.set(libc::MOUNT_ATTR_RDONLY, None)
    }

    /// Forbids to run its programs.
    pub fn forbid_programs(&self) -> io::Result<()> {
        self.set(libc::MOUNT_ATTR_NOEXEC, None)
    }

    /// Maps its owners through a user namespace: id 0 on disk appears as the outside id of the
    /// namespace's id 0.
    pub fn map_owners(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        self.set(0, Some(user_namespace))
    }

    fn set(&self, attributes: u64, user_namespace: Option<BorrowedFd<'_>>) -> io::Result<()> {
        sys::set_mount_attributes(self.tree.as_fd(), attributes, user_namespace, true)
    }

    /// Attaches it at a directory or a file.
    pub fn attach(&self, at: BorrowedFd<'_>) -> io::Result<()> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.tree, c"", at, c"", flags)?)
    }
}
