//! The paths of the state.

use crate::dirs::create_private_dir;
use crate::error::{Error, Failure, Result};
use crate::name::Name;
use crate::trust::check_trusted;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The directory that holds the state of all sandboxes of one user.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    runtime: PathBuf,
}

impl Home {
    /// Returns the home of the environment: `MSB_HOME`, else `microsandbox` in `XDG_STATE_HOME`,
    /// else in `.local/state` of `HOME`. It is created if needed.
    pub fn from_env() -> Result<Self> {
        let set = |key| std::env::var_os(key).filter(|value: &OsString| !value.is_empty());
        let root = if let Some(home) = set("MSB_HOME") {
            PathBuf::from(home)
        } else if let Some(state) = set("XDG_STATE_HOME") {
            Path::new(&state).join("microsandbox")
        } else if let Some(home) = set("HOME") {
            Path::new(&home).join(".local/state/microsandbox")
        } else {
            let message =
                "cannot find the state directory: MSB_HOME, XDG_STATE_HOME and HOME are not set";
            return Err(Failure::invalid_config(message).hint("set MSB_HOME").into());
        };
        let home = Home::at(&root)?;
        Ok(match set("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| is_own(path)) {
            Some(runtime) => Home { runtime: runtime.join("microsandbox"), ..home },
            None => home,
        })
    }

    /// Returns the home at a path, with the sockets in it as well. It is created if needed, for its
    /// owner alone. Refused if other users could replace it.
    pub fn at(root: &Path) -> Result<Self> {
        create_private_dir(root)?;
        check_trusted(root)?;
        let root = root.canonicalize().map_err(|error| Error::io("resolve", root, error))?;
        Ok(Home { runtime: root.join("run"), root })
    }

    /// Returns its path, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of cached results.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Returns the directory of an unpacked guest kernel.
    pub fn kernel(&self) -> PathBuf {
        self.root.join("kernel")
    }

    /// Returns the directory of a built gVisor.
    pub fn gvisor(&self) -> PathBuf {
        self.root.join("gvisor")
    }

    /// Returns the log of image operations.
    pub fn image_log(&self) -> PathBuf {
        self.root.join("images.log")
    }

    /// Returns the directory of the sandboxes' directories.
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// Returns the directory of the volumes' directories.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Returns the directory of a volume, which need not exist.
    pub(crate) fn volume(&self, name: &Name) -> PathBuf {
        self.volumes().join(name.as_str())
    }

    /// Returns the directory of a sandbox, which need not exist.
    pub fn sandbox(&self, name: &Name) -> SandboxDir {
        SandboxDir::new(self.sandboxes().join(name.as_str()), name.clone())
    }

    /// Creates the directory of a sandbox's sockets, and the link to it, which does not depend on a
    /// later caller's environment.
    pub(crate) fn prepare_run(&self, sandbox: &SandboxDir) -> Result<()> {
        let run = self.runtime.join(sandbox.id());
        create_private_dir(&self.runtime)?;
        create_private_dir(&run)?;
        let link = sandbox.run();
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &link, error));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(&run, &link).map_err(|error| Error::io("create", &link, error))
    }
}

fn is_own(path: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    path.is_absolute()
        && fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == ours)
}

/// The directory of a sandbox, and the paths in it.
#[derive(Debug, Clone)]
pub struct SandboxDir {
    path: PathBuf,
    name: Name,
    id: String,
}

impl SandboxDir {
    fn new(path: PathBuf, name: Name) -> Self {
        let id = format!("{:016x}", fnv1a(path.as_os_str().as_bytes()));
        SandboxDir { path, name, id }
    }

    /// Opens the directory at an absolute path of [`Home::sandbox`].
    pub fn open(path: &Path) -> Result<Self> {
        let name: Name = path.file_name().unwrap_or_default().to_string_lossy().parse()?;
        Ok(SandboxDir::new(path.to_path_buf(), name))
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the sandbox's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Returns a short id for names of system-wide objects. It is the same at every start, so that
    /// leftovers are found.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the lock file.
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Returns the stored configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Returns the record of the last start.
    pub fn started(&self) -> PathBuf {
        self.path.join("started.json")
    }

    /// Returns the record of how it ended.
    pub fn outcome(&self) -> PathBuf {
        self.path.join("outcome.json")
    }

    /// Returns the directory of the session log, if the sandbox has one.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Returns the upper directory of the root filesystem.
    pub fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// Returns the disk with the upper layer of a virtual machine.
    pub fn disk(&self) -> PathBuf {
        self.path.join("disk")
    }

    /// Returns the sparse file with the filesystem of a container's upper layer, if its size is
    /// limited.
    pub fn layers_image(&self) -> PathBuf {
        self.path.join("layers.img")
    }

    /// Returns the mount point of that filesystem, visible to the runner only.
    pub fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Returns the work directory of the overlay.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Returns the mount point of the root filesystem, visible to the runner only.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Returns the directory of the files with its own disks.
    pub fn disks(&self) -> PathBuf {
        self.path.join("disks")
    }

    /// Returns the directory of the driver's files.
    pub fn bundle(&self) -> PathBuf {
        self.path.join("bundle")
    }

    /// Returns the runner's log.
    pub fn runner_log(&self) -> PathBuf {
        self.path.join("runner.log")
    }

    /// Returns the log of the agent and the machine's console.
    pub fn agent_log(&self) -> PathBuf {
        self.path.join("agent.log")
    }

    /// Returns the link to the directory of the sockets. It exists from before the start until the
    /// cleanup is complete.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }
}

/// FNV-1a: short, and stable across versions, which the standard library's hashes are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j10_home_in_a_world_writable_directory_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let open = scratch.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Home::at(&open.join("home")).unwrap_err().to_string();
        assert!(error.contains("open is writable by others; chmod o-w "), "{error}");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        let home = Home::at(&open.join("home")).unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn id_is_stable_and_depends_on_home_and_name() {
        let scratch = tempfile::tempdir().unwrap();
        let home = Home::at(scratch.path()).unwrap();
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(home.sandbox(&a).id(), home.sandbox(&a).id());
        assert_ne!(home.sandbox(&a).id(), home.sandbox(&b).id());
        let opened = SandboxDir::open(home.sandbox(&a).path()).unwrap();
        assert_eq!((opened.id(), opened.name()), (home.sandbox(&a).id(), &a));
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
