//! Where a container with a user namespace of its own finds its root and its agent.
//!
//! The runtime's half inside that namespace is nobody on the host, and cannot pass the directories
//! of root's state. So what it has to reach is mounted on a small tmpfs that it can pass. The tmpfs
//! exists in the runner's private mount namespace alone, and goes with it.

use msb_jail::{IDS_PER_SLOT, Map, Slot, attach, idmapped, user_namespace};
use msb_state::Failure;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Covered by the tmpfs. Only locks are here, which are taken before.
const PLACE: &str = "/run/microsandbox";
/// The name of the user namespace there.
const NAMESPACE: &str = "user";
/// The variable that does without user namespaces.
const SWITCH: &str = "MSB_CONTAINER_USERNS";
/// How to do without a user namespace.
pub const WITHOUT_USER_NAMESPACE: &str = "set MSB_CONTAINER_USERNS=off to run containers of root without a user \
                       namespace, so that root inside is root outside";

/// Whether containers of root get a user namespace: always, unless `MSB_CONTAINER_USERNS=off`.
pub fn wants_user_namespace() -> bool {
    std::env::var_os(SWITCH).is_none_or(|value| value != "off")
}

/// Takes host ids for a container of root.
pub fn take_slot(seed: impl Hash) -> Result<Slot, Failure> {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    Slot::take(hasher.finish()).map_err(|error| {
        Failure::boot(error.to_string()).hint(format!("or {WITHOUT_USER_NAMESPACE}"))
    })
}

/// The tmpfs, on which this is what the sandbox's ids are.
#[derive(Debug)]
pub struct Stage {
    namespace: OwnedFd,
}

impl Stage {
    /// Mounts the tmpfs, for a container whose ids begin at `start`.
    ///
    /// Must be called in a mount namespace that no other process sees, and after the ids were taken,
    /// whose locks it covers. `used`: what the caller still needs by name.
    pub fn set(start: u32, used: &[&Path]) -> Result<Stage, Failure> {
        if let Some(path) = used.iter().find(|path| path.starts_with(PLACE)) {
            return Err(Failure::boot(format!(
                "cannot use {}: a container's root is mounted over {PLACE}",
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
        mount("tmpfs", PLACE, "tmpfs", flags, c"mode=0711,size=64k,nr_inodes=32")
            .map_err(|error| Failure::boot_io("mount a tmpfs at", Path::new(PLACE), error))?;
        let stage = Stage { namespace };
        let path = format!("/proc/self/fd/{}", stage.namespace.as_raw_fd());
        stage.show_file(NAMESPACE, Path::new(&path))?;
        Ok(stage)
    }

    /// Where the runtime finds the user namespace, once the tmpfs is mounted.
    pub(crate) fn namespace() -> PathBuf {
        Path::new(PLACE).join(NAMESPACE)
    }

    /// An empty directory.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = Path::new(PLACE).join(name);
        let made = fs::DirBuilder::new().mode(0o711).create(&path);
        made.map_err(|error| Failure::boot_io("create directory", &path, error))?;
        Ok(path)
    }

    /// Shows a directory with the files' owners as the sandbox's ids.
    pub fn show(&self, name: &str, directory: &Path) -> Result<PathBuf, Failure> {
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

    /// Shows a file as it is.
    pub fn show_file(&self, name: &str, file: &Path) -> Result<PathBuf, Failure> {
        let at = Path::new(PLACE).join(name);
        let failed = |error: io::Error| Failure::boot_io("show", file, error);
        File::create(&at).map_err(failed)?;
        mount_bind(file, &at).map_err(|error| failed(error.into()))?;
        Ok(at)
    }

    /// Takes off what is mounted at a path of the tmpfs. What stands on it goes on.
    pub fn hide(&self, at: &Path) -> Result<(), Failure> {
        unmount(at, UnmountFlags::DETACH).map_err(|error| Failure::boot_io("unmount", at, error))
    }

    /// Takes off the tmpfs with all that is mounted on it.
    pub fn clear(self) -> Result<(), Failure> {
        self.hide(Path::new(PLACE))
    }
}
