//! The mounts of a sandbox whose root filesystem the host's kernel mounts.
//!
//! The root comes from an image and from earlier commands of the sandbox, and what is mounted may
//! be shared with other sandboxes that run. Every mount point is therefore resolved by the kernel
//! inside of the root, one component after the other, and mounts are attached by descriptor: no
//! link leads one elsewhere, even if it is changed meanwhile.

use crate::driver::{MachineSpec, Users};
use crate::mountpoints::describe;
use crate::open_mount::OpenMount;
use msb_jail::as_owner;
use msb_state::{Failure, Mount, MountSource, SandboxConfig, is_mountable};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// How the kernel resolves a path of the sandbox: a link leads to a place in the root.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// How often a path is resolved again after a concurrent rename on the host (`EAGAIN`).
const TRIES: usize = 100;

/// A mount in the root of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedMount {
    /// Its path, relative to the root and without links.
    pub path: PathBuf,
    /// Whether it cannot be written.
    pub readonly: bool,
    /// Whether its programs cannot be run.
    pub noexec: bool,
}

/// Refuses mounts for which the host's kernel would have to trust a file.
pub fn check_mounts(config: &SandboxConfig) -> Result<(), Failure> {
    let trusted =
        |mount: &&Mount| !matches!(&mount.source, MountSource::Disk { image: Some(_), .. });
    match config.mounts.iter().find(|mount| !trusted(mount)) {
        Some(mount) => Err(mount
            .refusal("the host's kernel would have to trust the image")
            .hint("use a driver with virtual machines")),
        None => Ok(()),
    }
}

/// Attaches the mounts of a sandbox to its root, parents first, and creates their mount points.
pub fn attach_mounts(spec: &MachineSpec) -> Result<Vec<PlacedMount>, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(&spec.rootfs, flags, Mode::empty())
        .map_err(|error| Failure::boot_io("open", &spec.rootfs, error))?;
    let attach = || spec.mounts.iter().map(|mount| attach_one(&root, mount)).collect();
    match spec.users {
        Users::Mapped(start) => as_owner(start, attach)
            .map_err(|error| Failure::boot(format!("cannot act as user {start}: {error}")))?,
        _ => attach(),
    }
}

fn attach_one(root: &OwnedFd, mount: &OpenMount) -> Result<PlacedMount, Failure> {
    let OpenMount { mount, tree, is_directory } = mount;
    let target = mount.target.as_path();
    let at = mount_point(root, target, *is_directory).map_err(|why| mount.refusal(why))?;
    let path = place(root, &at).map_err(|why| mount.refusal(why))?;
    tree.attach(at.as_fd()).map_err(|error| mount.refusal(error))?;
    let Mount { readonly, noexec, .. } = *mount;
    Ok(PlacedMount { path, readonly, noexec })
}

/// Opens a mount point inside of the root, and creates what is missing.
fn mount_point(root: &OwnedFd, target: &Path, is_directory: bool) -> Result<OwnedFd, String> {
    let mut at = root.try_clone().map_err(|error| error.to_string())?;
    let mut done = PathBuf::new();
    let mut parts = target.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let mut next = parts.next();
    while let Some(name) = next {
        next = parts.next();
        done.push(name);
        at = match resolve(root, &done) {
            Err(Errno::NOENT) => create(&at, name, next.is_some() || is_directory)
                .map_err(|error| text("create", &done, error))?,
            found => found.map_err(|error| text("open", &done, error))?,
        };
    }
    let found = fstat(&at).map_err(|error| text("inspect", &done, error))?;
    let kind = FileType::from_raw_mode(found.st_mode);
    match (is_directory, kind) {
        (true, FileType::Directory) | (false, FileType::RegularFile) => Ok(at),
        (true, _) => Err(format!("/{} is {}, not a directory", done.display(), describe(kind))),
        (false, _) => Err(format!("/{} is {}, not a file", done.display(), describe(kind))),
    }
}

fn text(action: &str, path: &Path, error: Errno) -> String {
    let path = path.display();
    match error {
        Errno::EXIST => format!("/{path} is a symbolic link that leads nowhere"),
        error => format!("cannot {action} /{path}: {}", io::Error::from(error)),
    }
}

fn resolve(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for _ in 1..TRIES {
        match openat2(root, path, flags, Mode::empty(), IN_ROOT) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    openat2(root, path, flags, Mode::empty(), IN_ROOT)
}

/// Creates a directory or an empty file. Follows no link.
fn create(at: &OwnedFd, name: &OsStr, is_directory: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !is_directory {
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = openat(at, name, flags, Mode::from_raw_mode(0o644))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
        return openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    }
    mkdirat(at, name, Mode::RWXU)?;
    let made = openat(at, name, flags | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    // Independent of the umask.
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    Ok(made)
}

/// Returns where in the root a mount point is; refuses the root itself and the kernel's places, to
/// which a link may lead.
fn place(root: &OwnedFd, at: &OwnedFd) -> Result<PathBuf, String> {
    let path = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let both = path(root).and_then(|root| Ok((root, path(at)?)));
    let (root, at) = both.map_err(|error| format!("cannot find its mount point: {error}"))?;
    match at.strip_prefix(&root) {
        Ok(path) if is_mountable(path) => Ok(path.to_path_buf()),
        Ok(path) => Err(format!("a symbolic link leads to /{}", path.display())),
        // Moved out of the root since.
        Err(_) => Err("its mount point was moved away".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn at(root: &Path, target: &str, is_directory: bool) -> Result<PathBuf, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(root, flags, Mode::empty()).unwrap();
        place(&root, &mount_point(&root, Path::new(target), is_directory)?)
    }

    #[test]
    fn l4_mount_points_are_created_as_directory_or_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(at(root.path(), "/a/b/c", true).unwrap(), Path::new("a/b/c"));
        assert!(root.path().join("a/b/c").is_dir());
        assert_eq!(at(root.path(), "/etc/x.conf", false).unwrap(), Path::new("etc/x.conf"));
        assert_eq!(fs::read(root.path().join("etc/x.conf")).unwrap(), b"");
        assert_eq!(at(root.path(), "/a/b", true).unwrap(), Path::new("a/b"));
        let error = at(root.path(), "/a/b", false).unwrap_err();
        assert_eq!(error, "/a/b is a directory, not a file");
        let error = at(root.path(), "/etc/x.conf", true).unwrap_err();
        assert_eq!(error, "/etc/x.conf is a regular file, not a directory");
        assert!(
            at(root.path(), "/etc/x.conf/y", true).unwrap_err().starts_with("cannot open /etc")
        );
    }

    #[test]
    fn l4_links_stay_inside_of_the_root_at_each_level() {
        let host = tempfile::tempdir().unwrap();
        let outside = host.path().canonicalize().unwrap();
        for level in 0..3 {
            for link in [outside.to_str().unwrap(), "../../../../../..", "/etc/none/../.."] {
                let root = tempfile::tempdir().unwrap();
                let names = ["a", "b", "c"];
                let folder =
                    names[..level].iter().fold(root.path().to_path_buf(), |at, n| at.join(n));
                fs::create_dir_all(&folder).unwrap();
                symlink(link, folder.join(names[level])).unwrap();
                // Inside of the root or nowhere.
                let result = at(root.path(), "/a/b/c", true);
                assert_eq!(
                    fs::read_dir(&outside).unwrap().count(),
                    0,
                    "{level} {link}: {result:?}"
                );
            }
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run")).unwrap();
        fs::create_dir_all(root.path().join("var")).unwrap();
        symlink("/run", root.path().join("var/run")).unwrap();
        assert_eq!(at(root.path(), "/var/run/x", true).unwrap(), Path::new("run/x"));
    }

    #[test]
    fn l4_links_to_the_kernels_places_are_refused() {
        for (to, shown) in
            [("/", "/"), ("proc", "/proc"), ("/dev/../sys", "/sys"), (".msb", "/.msb")]
        {
            let root = tempfile::tempdir().unwrap();
            for folder in ["proc", "dev", "sys", ".msb"] {
                fs::create_dir(root.path().join(folder)).unwrap();
            }
            symlink(to, root.path().join("data")).unwrap();
            let error = at(root.path(), "/data", true).unwrap_err();
            assert_eq!(error, format!("a symbolic link leads to {shown}"));
        }
        let root = tempfile::tempdir().unwrap();
        symlink("nowhere", root.path().join("data")).unwrap();
        let error = at(root.path(), "/data", true).unwrap_err();
        assert_eq!(error, "/data is a symbolic link that leads nowhere");
    }
}
