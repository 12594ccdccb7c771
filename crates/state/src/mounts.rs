//! The mounts of a sandbox: what is asked for, and its validation.
//!
//! Owns: the stored form, and the rules for paths in the sandbox and on the host. Does not own: the
//! mounts themselves (drivers) nor volumes.
//! Invariant: a validated list is sorted, each mount after the one that it is below.

use crate::byte_string::ByteString;
use crate::error::{Failure, Result};
use crate::volume_spec::{NewVolume, check_disk_size, volume_name};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most mounts of a sandbox.
const MAX_MOUNTS: usize = 128;
/// Directories of the sandbox that its driver fills.
const RESERVED: [&str; 4] = ["dev", "proc", "sys", ".msb"];
/// Least size of a tmpfs: less is most likely a number of MiB.
const MIN_TMPFS_BYTES: u64 = 64 * 1024;
/// A mount of a sandbox. It never has devices or set-user-ID programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The absolute path in the sandbox.
    pub target: ByteString,
    /// What is mounted.
    #[serde(flatten)]
    pub source: MountSource,
    /// Whether it cannot be written.
    #[serde(default)]
    pub readonly: bool,
    /// Whether its programs cannot be run.
    #[serde(default)]
    pub noexec: bool,
    /// The user inside to whom the caller's files belong; `None` is root.
    #[serde(default)]
    pub owner: Option<Owner>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MountSource {
    /// A directory or a file of the host.
    Bind {
        /// Its path.
        source: ByteString,
    },
    /// A named volume.
    Named {
        /// Its name.
        volume: String,
        /// When and how to create it. Only for the creation of the sandbox.
        #[serde(skip)]
        create: VolumeCreation,
    },
    /// An empty filesystem in memory.
    Tmpfs {
        /// Its size; `None` is half of the sandbox's memory.
        #[serde(default)]
        size_bytes: Option<u64>,
    },
    /// A filesystem in a file, which belongs to the sandbox or to the caller.
    Disk {
        /// The size of the sandbox's own file.
        #[serde(default)]
        size_mib: Option<u64>,
        /// The path of the caller's file, which holds a raw image.
        #[serde(default)]
        image: Option<ByteString>,
    },
}

/// Whether the creation of a sandbox creates a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VolumeCreation {
    /// It must exist.
    #[default]
    Existing,
    /// It must not exist.
    Create(NewVolume),
    /// It is created if it does not exist.
    EnsureExists(NewVolume),
}

/// A user and a group of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl Mount {
    /// Returns a mount without options.
    pub fn new(target: impl Into<ByteString>, source: MountSource) -> Mount {
        Mount { target: target.into(), source, readonly: false, noexec: false, owner: None }
    }

    /// Returns the failure of this mount for a reason.
    pub fn refusal(&self, reason: impl fmt::Display) -> Failure {
        Failure::invalid_config(format!("cannot mount {}: {reason}", self.target))
    }

    /// Returns the name of its volume, if it is one.
    pub fn volume(&self) -> Option<&str> {
        match &self.source {
            MountSource::Named { volume, .. } => Some(volume),
            _ => None,
        }
    }

    /// Refuses what is wrong whatever the host has.
    fn check(&self) -> std::result::Result<(), Failure> {
        normal(&self.target).map_err(|reason| self.refusal(reason))?;
        match &self.source {
            MountSource::Bind { source } if source.is_empty() => {
                Err(self.refusal("the path of its source is empty"))
            }
            MountSource::Bind { source } if source.as_bytes().contains(&0) => {
                Err(self.refusal("the path of its source contains a NUL byte"))
            }
            MountSource::Bind { .. } => Ok(()),
            MountSource::Named { volume, .. } => match volume_name(volume) {
                Ok(_) => Ok(()),
                Err(failure) => Err(self.refusal(failure.message)),
            },
            MountSource::Tmpfs { size_bytes: Some(size) } if *size < MIN_TMPFS_BYTES => {
                let reason =
                    format!("its size is {size} bytes; it must be at least {MIN_TMPFS_BYTES}");
                Err(self.refusal(reason))
            }
            MountSource::Tmpfs { .. } => Ok(()),
            MountSource::Disk { size_mib, image } => match (size_mib, image) {
                (Some(size), None) => check_disk_size(*size).map_err(|reason| self.refusal(reason)),
                (None, Some(image)) if image.is_empty() || image.as_bytes().contains(&0) => {
                    Err(self.refusal("the path of its image is empty or contains a NUL byte"))
                }
                (None, Some(_)) => Ok(()),
                _ => Err(self.refusal("a disk has either a size or an image")),
            },
        }
    }

    /// Makes the path on the host canonical, and refuses what cannot be mounted.
    fn resolve(&mut self, home: &Path) -> std::result::Result<(), Failure> {
        let (path, directories) = match &self.source {
            MountSource::Bind { source } => (source.as_path(), true),
            MountSource::Disk { image: Some(image), .. } => (image.as_path(), false),
            _ => return Ok(()),
        };
        let failed = |error| self.refusal(format_args!("{}: {error}", path.display()));
        let found = path.canonicalize().map_err(failed)?;
        let kind = fs::symlink_metadata(&found).map_err(failed)?.file_type();
        if !(kind.is_file() || (directories && kind.is_dir())) {
            let wanted =
                if directories { "a directory or a regular file" } else { "a regular file" };
            return Err(self.refusal(format_args!("{} is not {wanted}", found.display())));
        }
        if found.starts_with(home) {
            let reason = format!("{} is in the state directory", found.display());
            return Err(self.refusal(reason).hint("use a named volume"));
        }
        match &mut self.source {
            MountSource::Bind { source: path } | MountSource::Disk { image: Some(path), .. } => {
                *path = found.into();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns a size in bytes for a tmpfs, which is at most the memory.
pub fn tmpfs_bytes(
    mount: &Mount,
    size: Option<u64>,
    memory: u64,
) -> std::result::Result<u64, Failure> {
    match size {
        None => Ok((memory / 2).max(MIN_TMPFS_BYTES)),
        Some(size) if size <= memory => Ok(size),
        Some(size) => Err(mount
            .refusal(format_args!(
                "its size is {size} bytes, more than the memory, which is {memory} bytes"
            ))
            .hint("give the sandbox more memory, or the mount a smaller size")),
    }
}

/// Refuses mounts that no sandbox can have.
pub(crate) fn check(mounts: &[Mount]) -> Result<()> {
    if mounts.len() > MAX_MOUNTS {
        let text = format!("there are {} mounts; at most {MAX_MOUNTS} are allowed", mounts.len());
        return Err(Failure::invalid_config(text).into());
    }
    let mut targets = std::collections::BTreeSet::new();
    for mount in mounts {
        mount.check()?;
        if normal(&mount.target).is_ok_and(|path| !targets.insert(path)) {
            return Err(mount.refusal("another mount has this path").into());
        }
    }
    Ok(())
}

/// Makes every path canonical, sorts the mounts, and refuses those that this host cannot have.
pub(crate) fn resolve(mounts: &mut [Mount], home: &Path) -> Result<()> {
    for mount in mounts.iter_mut() {
        mount.resolve(home)?;
        if let Ok(path) = normal(&mount.target) {
            mount.target = path.into();
        }
    }
    // Component by component: a directory precedes what is below it.
    mounts.sort_by(|one, other| one.target.as_path().cmp(other.target.as_path()));
    Ok(())
}

/// Returns a path in the sandbox without redundant parts, or what is wrong with it.
fn normal(target: &ByteString) -> std::result::Result<PathBuf, String> {
    if target.is_empty() {
        return Err("its path in the sandbox is empty".to_owned());
    }
    if target.as_bytes().contains(&0) {
        return Err("its path in the sandbox contains a NUL byte".to_owned());
    }
    let mut names: Vec<OsString> = Vec::new();
    let mut parts = target.as_path().components();
    if parts.next() != Some(Component::RootDir) {
        return Err("its path in the sandbox is relative; give an absolute path".to_owned());
    }
    for part in parts {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir => {}
            _ => return Err("its path in the sandbox contains '..'".to_owned()),
        }
    }
    match names.first() {
        None => Err("it is the root of the sandbox".to_owned()),
        Some(first) => match RESERVED.iter().find(|reserved| first == **reserved) {
            Some(reserved) => Err(format!("/{reserved} belongs to the sandbox's kernel")),
            None => Ok(Path::new("/").join(names.iter().collect::<PathBuf>())),
        },
    }
}

/// Returns whether a resolved path of the sandbox, relative to its root, may be a mount point.
pub fn is_mountable(path: &Path) -> bool {
    match path.components().next() {
        Some(Component::Normal(first)) => RESERVED.iter().all(|reserved| first != *reserved),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn bind(target: &str, source: &Path) -> Mount {
        Mount::new(target, MountSource::Bind { source: source.into() })
    }

    fn tmpfs(target: &str) -> Mount {
        Mount::new(target, MountSource::Tmpfs { size_bytes: None })
    }

    #[test]
    fn l4_bad_paths_in_the_sandbox_are_refused_by_name() {
        for (target, reason) in [
            ("", "its path in the sandbox is empty"),
            ("data", "cannot mount data: its path in the sandbox is relative"),
            ("/data/../etc", "cannot mount /data/../etc: its path in the sandbox contains '..'"),
            ("/", "cannot mount /: it is the root of the sandbox"),
            ("/./", "it is the root of the sandbox"),
            ("/proc", "cannot mount /proc: /proc belongs to the sandbox's kernel"),
            ("//sys/fs", "/sys belongs to"),
            ("/dev/shm", "/dev belongs to"),
            ("/.msb/agent", "/.msb belongs to"),
            ("/a\0b", "contains a NUL byte"),
        ] {
            let error = check(&[tmpfs(target)]).unwrap_err().to_string();
            assert!(error.contains(reason), "{target}: {error}");
        }
        check(&[tmpfs("/data"), tmpfs("/developer"), tmpfs("/data/process")]).unwrap();
        let error = check(&[tmpfs("/data"), tmpfs("//data/./")]).unwrap_err().to_string();
        assert_eq!(error, "cannot mount //data/./: another mount has this path");
        let many: Vec<_> = (0..=MAX_MOUNTS).map(|number| tmpfs(&format!("/{number}"))).collect();
        assert!(check(&many).unwrap_err().to_string().contains("at most 128"));
    }

    #[test]
    fn l4_parents_come_before_children() {
        let mut mounts = ["/a/b/c", "/a-b", "/a", "/a/b/", "/b"].map(tmpfs);
        resolve(&mut mounts, Path::new("/nonexistent")).unwrap();
        let sorted: Vec<_> = mounts.iter().map(|mount| mount.target.to_string()).collect();
        assert_eq!(sorted, ["/a", "/a/b", "/a/b/c", "/a-b", "/b"]);
    }

    #[test]
    fn l1_sources_are_made_canonical_or_refused_by_name() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().canonicalize().unwrap();
        let home = path.join("home");
        fs::create_dir_all(home.join("sandboxes")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        symlink(&path, path.join("link")).unwrap();
        symlink(home.join("sandboxes"), path.join("hidden")).unwrap();
        let mut mounts = [bind("/a", &path.join("link")), bind("/b", &path.join("link/file"))];
        resolve(&mut mounts, &home).unwrap();
        assert_eq!(mounts[0].source, bind("/a", &path).source);
        assert_eq!(mounts[1].source, bind("/b", &path.join("file")).source);
        for (source, reason) in [
            (path.join("none"), "none: No such file or directory (os error 2)"),
            (PathBuf::from("/dev/null"), "/dev/null is not a directory or a regular file"),
            (path.join("hidden"), "is in the state directory; use a named volume"),
            (home.clone(), "is in the state directory"),
        ] {
            let error = resolve(&mut [bind("/data", &source)], &home).unwrap_err().to_string();
            assert!(error.starts_with("cannot mount /data: "), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        let image = |path: PathBuf| MountSource::Disk { size_mib: None, image: Some(path.into()) };
        let error = resolve(&mut [Mount::new("/d", image(path))], &home).unwrap_err().to_string();
        assert!(error.contains("is not a regular file"), "{error}");
    }

    #[test]
    fn l_values_out_of_range_are_refused_by_name() {
        let named = |volume: &str| MountSource::Named {
            volume: volume.to_owned(),
            create: VolumeCreation::Existing,
        };
        for (source, reason) in [
            (MountSource::Bind { source: "".into() }, "the path of its source is empty"),
            (named(".x"), "the name of a volume starts with '.'"),
            (MountSource::Tmpfs { size_bytes: Some(64) }, "its size is 64 bytes"),
            (MountSource::Disk { size_mib: Some(1), image: None }, "its size is 1 MiB"),
            (MountSource::Disk { size_mib: None, image: None }, "either a size or an image"),
        ] {
            let error = check(&[Mount::new("/m", source)]).unwrap_err().to_string();
            assert!(error.starts_with("cannot mount /m: "), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(tmpfs_bytes(&tmpfs("/t"), None, 1 << 30).unwrap(), 1 << 29);
        assert_eq!(tmpfs_bytes(&tmpfs("/t"), Some(1 << 20), 1 << 30).unwrap(), 1 << 20);
        assert!(tmpfs_bytes(&tmpfs("/t"), Some(1 << 31), 1 << 30).is_err());
    }

    #[test]
    fn l_mounts_survive_storage() {
        let mut mount = bind("/data", Path::new("/srv"));
        (mount.readonly, mount.owner) = (true, Some(Owner { uid: 1000, gid: 1000 }));
        let text = serde_json::to_string(&mount).unwrap();
        assert!(text.contains(r#""kind":"bind""#), "{text}");
        assert_eq!(serde_json::from_str::<Mount>(&text).unwrap(), mount);
        let bytes = Mount::new(vec![b'/', 0xff], MountSource::Tmpfs { size_bytes: None });
        let text = serde_json::to_string(&bytes).unwrap();
        assert_eq!(serde_json::from_str::<Mount>(&text).unwrap(), bytes);
    }
}
