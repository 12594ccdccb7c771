//! The mount points of the runtime in the root filesystem.
//!
//! The root comes from an image and from earlier commands of the sandbox, which may be hostile.
//! Some runtimes follow its symbolic links onto the host. Every mount point is therefore resolved
//! inside the root before the runtime runs: a link is refused, and a missing mount point is
//! created.

use crate::driver::Users;
use msb_jail::as_owner;
use msb_state::Failure;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, chmodat, fchmod, fstat, mkdirat, open, openat2,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

const RESOLVE: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
/// How often a path is resolved again after a concurrent rename on the host (`EAGAIN`).
const TRIES: usize = 100;

/// A mount point, and whether to create it: one below another mount is created there.
struct MountPoint(&'static str, FileType, bool);

/// Each after its parent.
const MOUNT_POINTS: [MountPoint; 12] = [
    MountPoint("dev", FileType::Directory, true),
    MountPoint("dev/pts", FileType::Directory, false),
    MountPoint("dev/shm", FileType::Directory, false),
    MountPoint("dev/mqueue", FileType::Directory, false),
    MountPoint("proc", FileType::Directory, true),
    MountPoint("sys", FileType::Directory, true),
    MountPoint("sys/fs", FileType::Directory, false),
    MountPoint("sys/fs/cgroup", FileType::Directory, false),
    MountPoint("etc", FileType::Directory, true),
    MountPoint(HOSTS, FileType::RegularFile, false),
    MountPoint(".msb", FileType::Directory, true),
    MountPoint(AGENT, FileType::RegularFile, true),
];
const HOSTS: &str = "etc/hosts";
const AGENT: &str = ".msb/agent";

/// Who provides `/etc/hosts`.
#[derive(Debug, PartialEq, Eq)]
pub enum Hosts {
    /// The sandbox: it is in the upper layer.
    Written,
    /// The image, and it cannot be written.
    Fixed,
    /// None, and it cannot be created.
    Missing,
}

/// Checks every mount point, creates missing ones, and writes `/etc/hosts`.
pub fn prepare_mount_points(
    rootfs: &Path,
    image: &Path,
    users: Users,
    hosts: &str,
) -> Result<Hosts, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty())
        .map_err(|error| Failure::boot_io("open", rootfs, error))?;
    let work = || {
        for point in &MOUNT_POINTS {
            prepare_one(&root, image, point)?;
        }
        write_hosts(&root, image, hosts)
    };
    match users {
        Users::Mapped(start) => as_owner(start, work)
            .map_err(|error| Failure::boot(format!("cannot act as user {start}: {error}")))?,
        _ => work(),
    }
}

fn prepare_one(root: &OwnedFd, image: &Path, point: &MountPoint) -> Result<(), Failure> {
    let MountPoint(path, kind, is_created) = point;
    match kind_of(root, path) {
        Ok(found) if found == *kind => Ok(()),
        Ok(found) => {
            let wanted = if *kind == FileType::Directory { "directory" } else { "file" };
            let found = describe(found);
            Err(Failure::boot(format!("cannot use image {}: /{path} is {found}", image.display()))
                .hint(format!("make it a {wanted}, or leave it out")))
        }
        Err(Errno::NOENT) if *is_created => create(root, path, *kind).map_err(|error| {
            let image = image.display();
            Failure::boot(format!("cannot create /{path} over image {image}: {error}"))
                .hint(format!("add /{path} to the image"))
        }),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Failure::boot(format!(
            "cannot use image {}: /{path}: {}",
            image.display(),
            io::Error::from(error)
        ))),
    }
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::RegularFile => "a regular file",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        _ => "a device",
    }
}

fn kind_of(root: &OwnedFd, path: &str) -> rustix::io::Result<FileType> {
    let found = open_in(root, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(FileType::from_raw_mode(fstat(&found)?.st_mode))
}

fn open_in(root: &OwnedFd, path: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    for _ in 1..TRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, RESOLVE) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    openat2(root, path, flags | OFlags::CLOEXEC, mode, RESOLVE)
}

fn create(root: &OwnedFd, path: &str, kind: FileType) -> io::Result<()> {
    // The parent is no link: it was checked before, and nothing runs in the sandbox yet.
    if kind == FileType::Directory {
        mkdirat(root, path, Mode::RWXU)?;
        // Independent of the umask.
        chmodat(root, path, Mode::from_raw_mode(0o755), AtFlags::empty())?;
    } else {
        open_in(root, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RWXU)?;
    }
    Ok(())
}

fn write_hosts(root: &OwnedFd, image: &Path, hosts: &str) -> Result<Hosts, Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let is_new = kind_of(root, HOSTS) == Err(Errno::NOENT);
    let written = open_in(root, HOSTS, flags | OFlags::NONBLOCK, Mode::RUSR | Mode::WUSR)
        .map_err(io::Error::from)
        .and_then(|file| {
            if is_new {
                fchmod(&file, Mode::from_raw_mode(0o644))?;
            }
            File::from(file).write_all(hosts.as_bytes())
        });
    match written {
        Ok(()) => Ok(Hosts::Written),
        // The image's directories have owners that the user namespace does not map.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::ACCESS | Errno::PERM | Errno::OVERFLOW)
            ) =>
        {
            Ok(if kind_of(root, HOSTS).is_ok() { Hosts::Fixed } else { Hosts::Missing })
        }
        Err(error) => Err(Failure::boot(format!(
            "cannot write /{HOSTS} over image {}: {error}",
            image.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn run(root: &Path) -> Result<Hosts, String> {
        let result = prepare_mount_points(root, Path::new("/image"), Users::Host, "hosts\n");
        result.map_err(|failure| failure.to_string())
    }

    #[test]
    fn j1_mount_points_are_created_in_an_empty_root() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(run(root.path()), Ok(Hosts::Written));
        for place in ["dev", "proc", "sys", ".msb"] {
            assert!(root.path().join(place).is_dir(), "{place}");
        }
        assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).unwrap(), "hosts\n");
        // As at the next start.
        assert_eq!(run(root.path()), Ok(Hosts::Written));
    }

    #[test]
    fn j1_links_at_mount_points_are_refused() {
        let host = tempfile::tempdir().unwrap();
        for MountPoint(path, ..) in &MOUNT_POINTS {
            let root = tempfile::tempdir().unwrap();
            let link = root.path().join(path);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(host.path(), &link).unwrap();
            let error = run(root.path()).unwrap_err();
            let expected = format!("cannot use image /image: /{path} is a symbolic link");
            assert!(error.starts_with(&expected), "{error}");
            assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0, "{path}");
        }
    }

    #[test]
    fn j5_other_kinds_of_files_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("dev"), "").unwrap();
        assert!(run(root.path()).unwrap_err().contains("/dev is a regular file"));
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let mode = Mode::from_raw_mode(0o644);
        let fifo = root.path().join("etc/hosts");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        assert!(run(root.path()).unwrap_err().contains("/etc/hosts is a FIFO"));
    }
}
