//! The jail's root: a small tmpfs with mount points, and the mounts on them.

use crate::describe::{Bind, Ids, Jail, Proc, Source};
use crate::error::JailError;
use crate::idmap::{detached, idmapped, is_directory, user_namespace};
use crate::sys;
use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SETUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
const NO_PROGRAMS: u64 = libc::MOUNT_ATTR_NOEXEC;

const REMEDY: &str = "keep the image on ext4, xfs or btrfs, with Linux 5.12 or later";

/// A root that has not been entered yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    root: OwnedFd,
    trees: Vec<(OwnedFd, PathBuf)>,
    proc: Proc,
}

impl Prepared {
    /// Creates the root's mounts, with the rights of the host process.
    ///
    /// If owners cannot be mapped, also returns the ids to use instead and the reason.
    pub(crate) fn new(
        jail: &Jail,
        mapped: bool,
    ) -> Result<(Prepared, Option<(Ids, String)>), JailError> {
        let mut unmapped = None;
        let root = tmpfs(jail.binds.len() + jail.devices.len())
            .map_err(|error| JailError::new("create the root of the jail", error))?;
        let mut trees = Vec::new();
        let mut owners = None;
        let own = rustix::process::geteuid().as_raw();
        for bind in &jail.binds {
            let named = |error| JailError::new(&format!("bind {}", bind.target.display()), error);
            let source = open(&bind.source).map_err(named)?;
            let target = relative(Path::new(&bind.target)).map_err(named)?;
            let is_directory = is_directory(source.as_fd()).map_err(named)?;
            mount_point(root.as_fd(), &target, is_directory).map_err(named)?;
            let mut tree = None;
            if bind.idmapped && mapped && unmapped.is_none() {
                let owners = match &owners {
                    Some(owners) => owners,
                    None => owners.insert(
                        user_namespace(own, &jail.ids.users, &jail.ids.groups).map_err(named)?,
                    ),
                };
                match idmapped(source.as_fd(), owners.as_fd(), bind.recursive) {
                    Ok(mapped) => tree = Some(mapped),
                    Err(error) => {
                        let Some(instead) = &jail.unmapped else {
                            let target = bind.target.display();
                            return Err(JailError::unmapped(format!(
                                "cannot bind {target}: idmapped mounts: {error}; {REMEDY}"
                            )));
                        };
                        unmapped = Some((instead.clone(), error.to_string()));
                    }
                }
            }
            let tree = match tree {
                Some(tree) => tree,
                None => detached(source.as_fd(), bind.recursive).map_err(named)?,
            };
            sys::set_mount_attributes(tree.as_fd(), attributes(bind), None, false)
                .map_err(named)?;
            trees.push((tree, target));
        }
        let mut has_nodes = false;
        for device in &jail.devices {
            let named = |error| JailError::new(&format!("bind {}", device.display()), error);
            let target = relative(Path::new(device)).map_err(named)?;
            match create_node(root.as_fd(), Path::new(device), &target, jail.ids.outside()) {
                Ok(()) => has_nodes = true,
                // Only root of the host can create device nodes; others bind the host's.
                Err(Errno::PERM) => {
                    let source = open(&Source::Path(device.clone())).map_err(named)?;
                    mount_point(root.as_fd(), &target, false).map_err(named)?;
                    let tree = detached(source.as_fd(), false).map_err(named)?;
                    let attributes = NO_SETUID | NO_PROGRAMS;
                    sys::set_mount_attributes(tree.as_fd(), attributes, None, false)
                        .map_err(named)?;
                    trees.push((tree, target));
                }
                Err(error) => return Err(named(error.into())),
            }
        }
        if jail.proc != Proc::None {
            let deepest = if jail.proc == Proc::Descriptors { DESCRIPTORS } else { "proc" };
            mount_point(root.as_fd(), Path::new(deepest), true)
                .map_err(|error| JailError::new("create /proc", error))?;
        }
        let no_devices = if has_nodes { 0 } else { NO_DEVICES };
        let attributes = READ_ONLY | NO_SETUID | NO_PROGRAMS | no_devices;
        sys::set_mount_attributes(root.as_fd(), attributes, None, false)
            .map_err(|error| JailError::new("make the root read-only", error))?;
        let unmapped =
            unmapped.map(|(ids, why)| (ids, format!("idmapped mounts: {why}; {REMEDY}")));
        Ok((Prepared { root, trees, proc: jail.proc }, unmapped))
    }

    /// Replaces `/proc` by this process's descriptors.
    fn keep_descriptors_only(&self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.root, DESCRIPTORS, flags, Mode::empty())?;
        let tree = detached(fd.as_fd(), false)?;
        drop(fd);
        rustix::process::fchdir(&self.root)?;
        unmount(c"proc", UnmountFlags::DETACH)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&tree, c"", &self.root, DESCRIPTORS, flags)?)
    }

    /// Makes it the root of this process and its mount namespace.
    pub(crate) fn enter(self) -> Result<(), JailError> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(|e| JailError::new("make / private", e.into()))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.root, c"", CWD, c"/", flags)
            .map_err(|error| JailError::new("mount the root", error.into()))?;
        for (tree, target) in &self.trees {
            move_mount(tree, c"", &self.root, target, flags).map_err(|error| {
                JailError::new(&format!("mount /{}", target.display()), error.into())
            })?;
        }
        if self.proc != Proc::None {
            let proc = own_proc(self.proc).map_err(|error| JailError::new("mount /proc", error))?;
            move_mount(&proc, c"", &self.root, c"proc", flags)
                .map_err(|error| JailError::new("mount /proc", error.into()))?;
        }
        if self.proc == Proc::Descriptors {
            self.keep_descriptors_only().map_err(|error| JailError::new("mount /proc", error))?;
        }
        let pivot = || {
            rustix::process::fchdir(&self.root)?;
            rustix::process::pivot_root(c".", c".")?;
            // The old root is mounted on top of the new one now.
            unmount(c".", UnmountFlags::DETACH)?;
            rustix::process::chdir(c"/")
        };
        pivot().map_err(|error| JailError::new("change the root", error.into()))
    }
}

pub(crate) fn tmpfs(entries: usize) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", "1m")?;
    // Each entry and its parent directories, an estimate.
    fsconfig_set_string(&context, "nr_inodes", (64 + 8 * entries).to_string())?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The directory of `/proc` through which a process reopens its descriptors.
const DESCRIPTORS: &str = "proc/self/fd";

/// Creates a `/proc` of this PID namespace, with its processes only.
fn own_proc(proc: Proc) -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Linux 5.8 has both options; without them it shows more, but of this PID namespace only.
    let _ = fsconfig_set_string(&context, "hidepid", "invisible");
    if proc != Proc::Settings {
        let _ = fsconfig_set_string(&context, "subset", "pid");
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn attributes(bind: &Bind) -> u64 {
    let read_only = if bind.writable { 0 } else { READ_ONLY };
    let no_programs = if bind.executable { 0 } else { NO_PROGRAMS };
    NO_SETUID | NO_DEVICES | read_only | no_programs
}

fn open(source: &Source) -> io::Result<OwnedFd> {
    match source {
        Source::Path(path) => {
            Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
        }
        Source::Descriptor(number) => Ok(sys::borrowed(*number)?.try_clone_to_owned()?),
    }
}

/// Returns a target relative to the root; rejects one outside of it.
fn relative(target: &Path) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in target.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => path.push(name),
            _ => return Err(io::Error::other("the path contains ..")),
        }
    }
    if path.as_os_str().is_empty() {
        return Err(io::Error::other("the path is the root"));
    }
    Ok(path)
}

fn mount_point(root: BorrowedFd<'_>, target: &Path, is_directory: bool) -> io::Result<()> {
    make_parents(root, target)?;
    let made = if is_directory {
        rustix::fs::mkdirat(root, target, Mode::from(0o755))
    } else {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(root, target, flags, Mode::from(0o444)).map(drop)
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make_parents(root: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let mut parents: Vec<&Path> = target.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents.into_iter().filter(|path| !path.as_os_str().is_empty()) {
        match rustix::fs::mkdirat(root, parent, Mode::from(0o755)) {
            Ok(()) => {
                // The umask may have restricted the mode.
                let flags = AtFlags::empty();
                rustix::fs::chmodat(root, parent, Mode::from(0o755), flags)?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Creates a device node like one of the host, for the process alone.
fn create_node(
    root: BorrowedFd<'_>,
    device: &Path,
    target: &Path,
    (user, group): (u32, u32),
) -> rustix::io::Result<()> {
    let found = rustix::fs::stat(device)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind != FileType::CharacterDevice {
        return Err(Errno::NOTTY);
    }
    make_parents(root, target)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let device: Dev = found.st_rdev;
    rustix::fs::mknodat(root, target, kind, Mode::RUSR | Mode::WUSR, device)?;
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    rustix::fs::chownat(root, target, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}
