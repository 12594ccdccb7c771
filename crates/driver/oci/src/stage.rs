//! The staging tmpfs of a container with its own user namespace: its root and its agent.
//!
//! Inside that namespace the runtime has no rights on the host and cannot traverse root's state
//! directories. What it needs is therefore mounted on a small tmpfs that it can traverse. The tmpfs
//! exists only in the runner's mount namespace and disappears with it.

use msb_jail::{IDS_PER_SLOT, Map, Slot, attach, idmapped, user_namespace};
use msb_state::Failure;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where the tmpfs is mounted. It hides lock files only, which are open by then.
const MOUNT_POINT: &str = "/run/microsandbox";
/// The file in it that is the user namespace.
const NAMESPACE: &str = "user";
/// The variable that turns user namespaces off.
const SWITCH: &str = "MSB_CONTAINER_USERNS";
/// The hint that names [`SWITCH`].
pub const WITHOUT_USER_NAMESPACE: &str = "set MSB_CONTAINER_USERNS=off to run containers of root without a user \
                       namespace, so that root inside is root outside";

/// Returns whether root's containers get a user namespace: yes, unless `MSB_CONTAINER_USERNS=off`.
pub fn wants_user_namespace() -> bool {
    std::env::var_os(SWITCH).is_none_or(|value| value != "off")
}

/// Reserves host ids for one of root's containers.
pub fn take_slot(seed: impl Hash) -> Result<Slot, Failure> {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    Slot::take(hasher.finish()).map_err(|error| {
        Failure::boot(error.to_string()).hint(format!("or {WITHOUT_USER_NAMESPACE}"))
    })
}

/// The mounted tmpfs, and the user namespace that maps owners on it.
#[derive(Debug)]
pub struct Stage {
    namespace: OwnedFd,
}

impl Stage {
    /// Mounts the tmpfs for a container whose host ids start at `start`.
    ///
    /// Call it in a private mount namespace, after the ids were reserved: it hides their lock
    /// files. `used` are paths that the caller still opens by name.
    pub fn mount(start: u32, used: &[&Path]) -> Result<Stage, Failure> {
        if let Some(path) = used.iter().find(|path| path.starts_with(MOUNT_POINT)) {
            return Err(Failure::boot(format!(
                "cannot use {}: a container's root is mounted over {MOUNT_POINT}",
                path.display()
            ))
            .hint("keep state, images and programs somewhere else; see MSB_HOME"));
        }
        let map = [Map { inside: 0, outside: start, count: IDS_PER_SLOT }];
        let namespace = user_namespace(start, &map, &map).map_err(|error| {
            Failure::boot(format!("cannot make a user namespace: {error}")).hint(format!(
                "allow them (sysctl user.max_user_namespaces), or {WITHOUT_USER_NAMESPACE}"
            ))
        })?;
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("tmpfs", MOUNT_POINT, "tmpfs", flags, c"mode=0711,size=64k,nr_inodes=32")
            .map_err(|error| Failure::boot_io("mount a tmpfs at", Path::new(MOUNT_POINT), error))?;
        let stage = Stage { namespace };
        let path = format!("/proc/self/fd/{}", stage.namespace.as_raw_fd());
        stage.bind_file(NAMESPACE, Path::new(&path))?;
        Ok(stage)
    }

    /// Returns the path of the user namespace on the mounted tmpfs.
    pub(crate) fn namespace() -> PathBuf {
        Path::new(MOUNT_POINT).join(NAMESPACE)
    }

    /// Creates an empty directory.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(MOUNT_POINT).join(name);
        let made = fs::DirBuilder::new().mode(0o711).create(&path);
        made.map_err(|error| Failure::boot_io("create directory", &path, error))?;
        Ok(path)
    }

    /// Mounts a directory with its owners mapped to the sandbox's ids.
    pub fn bind_mapped(&self, name: &str, directory: &Path) -> Result<PathBuf, Failure> {
        let at = self.directory(name)?;
        let source = File::open(directory).map_err(|e| Failure::boot_io("open", directory, e))?;
        let clone = idmapped(source.as_fd(), self.namespace.as_fd(), false).map_err(|error| {
            Failure::boot(format!("cannot map the owners of {}: {error}", directory.display()))
                .hint(format!(
                    "use a file system and a kernel with idmapped mounts, such as ext4, xfs or \
                     btrfs on Linux 5.19, or {WITHOUT_USER_NAMESPACE}"
                ))
        })?;
        attach(clone.as_fd(), &at).map_err(|error| Failure::boot_io("mount", &at, error))?;
        Ok(at)
    }

    /// Bind-mounts a file.
    pub fn bind_file(&self, name: &str, file: &Path) -> Result<PathBuf, Failure> {
        let at = Path::new(MOUNT_POINT).join(name);
        let failed = |error: io::Error| Failure::boot_io("bind", file, error);
        File::create(&at).map_err(failed)?;
        mount_bind(file, &at).map_err(|error| failed(error.into()))?;
        Ok(at)
    }

    /// Detaches the mount at a path of the tmpfs. Mounts that use it as a layer keep it.
    pub fn unmount_at(&self, at: &Path) -> Result<(), Failure> {
        unmount(at, UnmountFlags::DETACH).map_err(|error| Failure::boot_io("unmount", at, error))
    }

    /// Unmounts the tmpfs with every mount on it.
    pub fn unmount(self) -> Result<(), Failure> {
        self.unmount_at(Path::new(MOUNT_POINT))
    }
}
