//! Opens what a sandbox mounts, with its owners as the sandbox sees them.
//!
//! What belongs to the caller belongs to root inside, or to the owner that a mount names, and the
//! other way around. Root maps every owner so, by an idmapped mount; for an ordinary user the user
//! namespace does.

use crate::disk_image::{Image, create};
use crate::upper::is_root_of_host;
use msb_driver::{MachineSpec, OpenMount, Users, probe_disk};
use msb_jail::{IDS_PER_SLOT, Map, Tree, user_namespace};
use msb_state::{
    Failure, Home, Mount, MountSource, Owner, VolumeKind, create_private_dir, memory_mib,
    tmpfs_bytes, volume,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Opens every mount of a sandbox. Call it before the sandbox's root is mounted, which may be below
/// a source.
pub(crate) fn open_mounts(spec: &MachineSpec) -> Result<Vec<OpenMount>, Failure> {
    let mounts = spec.config.mounts.iter().enumerate();
    mounts.map(|(number, mount)| open_one(spec, number, mount)).collect()
}

fn open_one(spec: &MachineSpec, number: usize, mount: &Mount) -> Result<OpenMount, Failure> {
    let (tree, is_directory) = match &mount.source {
        MountSource::Bind { source } => bind(spec.users, mount, source.as_path())?,
        MountSource::Named { volume, .. } => open_volume(spec, number, mount, volume)?,
        MountSource::Tmpfs { size_bytes } => (tmpfs(spec, mount, *size_bytes)?, true),
        MountSource::Disk { size_mib: Some(size), .. } => {
            let image = spec.dir.disks().join(format!("{number}.img"));
            (disk(spec, number, mount, &image, *size)?, true)
        }
        // Disks of the caller are refused by `check_mounts`.
        _ => return Err(mount.refusal("this driver has no mount of its kind")),
    };
    let restrict = || {
        if mount.readonly {
            tree.forbid_writes()?;
        }
        if mount.noexec { tree.forbid_programs() } else { Ok(()) }
    };
    restrict().map_err(|error| mount.refusal(error))?;
    Ok(OpenMount { mount: mount.clone(), tree, is_directory })
}

/// Copies the mount of a canonical path, and tells whether it is a directory.
fn bind(users: Users, mount: &Mount, source: &Path) -> Result<(Tree, bool), Failure> {
    let failed = |error: io::Error| mount.refusal(format_args!("{}: {error}", source.display()));
    // The path was canonical when it was checked: a link has appeared since.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|error| failed(error.into()))?;
    let found = fstat(&opened).map_err(|error| failed(error.into()))?;
    let is_directory = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => false,
        _ => {
            let reason = format!("{} is not a directory or a regular file", source.display());
            return Err(mount.refusal(reason));
        }
    };
    let tree = Tree::of(opened.as_fd()).map_err(failed)?;
    map_owners(users, mount, source, &tree)?;
    Ok((tree, is_directory))
}

fn map_owners(users: Users, mount: &Mount, source: &Path, tree: &Tree) -> Result<(), Failure> {
    let Some(namespace) = owners(users, mount)? else { return Ok(()) };
    tree.map_owners(namespace.as_fd()).map_err(|error| {
        mount.refusal(format_args!("cannot map the owners of {}: {error}", source.display())).hint(
            "keep it, and all that is mounted below it, on a file system with idmapped mounts, \
                 such as ext4, xfs, btrfs or tmpfs",
        )
    })
}

/// Returns the user namespace that maps the owners of a mount; `None` if none need to be mapped.
fn owners(users: Users, mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
    let owner = mount.owner.unwrap_or(Owner { uid: 0, gid: 0 });
    let (start, count) = match users {
        Users::Mapped(start) => (start, IDS_PER_SLOT),
        _ if owner == (Owner { uid: 0, gid: 0 }) => return Ok(None),
        Users::Host => (0, u32::MAX),
        Users::Range | Users::RootOnly => {
            let reason = format!("only root can map the caller's files to {owner}");
            return Err(mount.refusal(reason).hint("leave the owner out, or run as root"));
        }
    };
    if let Some(id) = [owner.uid, owner.gid].into_iter().find(|id| *id >= count) {
        let reason = format!("the sandbox has no user or group {id}, only those below {count}");
        return Err(mount.refusal(reason));
    }
    let (uids, gids) = (swapped(start, count, owner.uid), swapped(start, count, owner.gid));
    let made = user_namespace(start, &uids, &gids);
    let failed = |error| mount.refusal(format_args!("cannot make a user namespace: {error}"));
    made.map(Some).map_err(failed)
}

/// Maps the ids from 0 to those from `start`; root's and `id` change places.
fn swapped(start: u32, count: u32, id: u32) -> Vec<Map> {
    let range =
        |inside: u32, outside: u32, count: u32| Map { inside, outside: start + outside, count };
    if id == 0 {
        return vec![range(0, 0, count)];
    }
    let maps = [range(0, id, 1), range(1, 1, id - 1), range(id, 0, 1)];
    let rest = range(id + 1, id + 1, count - id - 1);
    maps.into_iter().chain([rest]).filter(|map| map.count > 0).collect()
}

fn tmpfs(spec: &MachineSpec, mount: &Mount, size: Option<u64>) -> Result<Tree, Failure> {
    let memory = memory_mib(spec.config.memory_mib) << 20;
    let size = tmpfs_bytes(mount, size, memory)?;
    let start = match spec.users {
        Users::Mapped(start) => start,
        _ => 0,
    };
    // Everybody's, as in docker, unless it has an owner.
    let mode = if mount.owner.is_some() { "0755" } else { "1777" };
    let Owner { uid, gid } = mount.owner.unwrap_or(Owner { uid: 0, gid: 0 });
    let options = [
        ("size", size.to_string()),
        ("mode", mode.to_owned()),
        ("uid", start.saturating_add(uid).to_string()),
        ("gid", start.saturating_add(gid).to_string()),
    ];
    Tree::tmpfs(&options).map_err(|error| mount.refusal(error))
}

fn open_volume(
    spec: &MachineSpec,
    number: usize,
    mount: &Mount,
    name: &str,
) -> Result<(Tree, bool), Failure> {
    let text = |error: msb_state::Error| mount.refusal(error);
    let found = volume(&home_of(spec)?, name).map_err(text)?;
    match (found.kind, found.size_mib) {
        (VolumeKind::Disk, Some(size)) => Ok((disk(spec, number, mount, &found.path, size)?, true)),
        _ => bind(spec.users, mount, &found.path),
    }
}

/// Returns the home of a sandbox's directory, `sandboxes/NAME`.
fn home_of(spec: &MachineSpec) -> Result<Home, Failure> {
    let top = spec.dir.path().ancestors().nth(2).unwrap_or(Path::new("/"));
    Home::at(top).map_err(|error| Failure::boot(error.to_string()))
}

/// Mounts the filesystem in a file, which is created if it has none yet.
fn disk(
    spec: &MachineSpec,
    number: usize,
    mount: &Mount,
    image: &Path,
    mib: u64,
) -> Result<Tree, Failure> {
    if !is_root_of_host() {
        let hint = "run as root, or use a directory";
        return Err(mount.refusal("only root can mount a disk").hint(hint));
    }
    let folder = spec.dir.disks();
    create_private_dir(&folder).map_err(|error| Failure::boot(error.to_string()))?;
    let is_blank = fs::metadata(image).map_or(true, |found| found.blocks() == 0);
    if is_blank {
        let mkfs = probe_disk().map_err(|(why, remedy)| mount.refusal(why).hint(remedy))?;
        let cache = home_of(spec)?.cache();
        create(image, &cache, &mkfs, mib).map_err(|failure| mount.refusal(failure))?;
    }
    let at = folder.join(number.to_string());
    let opened = Image::open(image).map_err(|failure| mount.refusal(failure))?;
    opened.mount(&at).map_err(|error| mount.refusal(error.failure))?;
    let tree = open_disk(spec.users, mount, &at, is_blank);
    // The tree holds a clone.
    unmount(&at, UnmountFlags::DETACH).map_err(|error| Failure::boot_io("unmount", &at, error))?;
    tree
}

fn open_disk(users: Users, mount: &Mount, at: &Path, is_new: bool) -> Result<Tree, Failure> {
    if is_new {
        fs::set_permissions(at, Permissions::from_mode(0o755))
            .map_err(|error| Failure::boot_io("set the mode of", at, error))?;
        // Empty, as a disk is expected to be.
        let lost: PathBuf = at.join("lost+found");
        fs::remove_dir(&lost).map_err(|error| Failure::boot_io("remove", &lost, error))?;
    }
    bind(users, mount, at).map(|(tree, _)| tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_owner_and_root_change_places() {
        let map = |inside, outside, count| Map { inside, outside, count };
        assert_eq!(swapped(1_000_000, 65_536, 0), [map(0, 1_000_000, 65_536)]);
        assert_eq!(
            swapped(1_000_000, 65_536, 1000),
            [
                map(0, 1_001_000, 1),
                map(1, 1_000_001, 999),
                map(1000, 1_000_000, 1),
                map(1001, 1_001_001, 64_535)
            ]
        );
        assert_eq!(swapped(0, 65_536, 1), [map(0, 1, 1), map(1, 0, 1), map(2, 2, 65_534)]);
        assert_eq!(
            swapped(0, 65_536, 65_535),
            [map(0, 65_535, 1), map(1, 1, 65_534), map(65_535, 0, 1)]
        );
    }
}
