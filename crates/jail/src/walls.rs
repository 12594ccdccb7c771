//! The walls of a jail, and the check for them on this host.

use crate::describe::Map;
use crate::idmap::{idmapped, user_namespace};
use crate::sys::{self, Cloned};
use crate::{paths, root};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// A kind of namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Namespace {
    pub(crate) flag: libc::c_int,
    pub(crate) name: &'static str,
    pub(crate) remedy: &'static str,
}

const USER_REMEDY: &str = "allow user namespaces (sysctl user.max_user_namespaces, \
                           kernel.unprivileged_userns_clone, \
                           kernel.apparmor_restrict_unprivileged_userns)";
const REMEDY: &str = "allow namespaces (sysctl user.max_*_namespaces)";

/// Every namespace of a jail.
pub(crate) const NAMESPACES: [Namespace; 7] = [
    Namespace { flag: libc::CLONE_NEWUSER, name: "user namespace", remedy: USER_REMEDY },
    Namespace { flag: libc::CLONE_NEWNS, name: "mount namespace", remedy: REMEDY },
    Namespace { flag: libc::CLONE_NEWPID, name: "process namespace", remedy: REMEDY },
    Namespace { flag: libc::CLONE_NEWNET, name: "network namespace", remedy: REMEDY },
    Namespace { flag: libc::CLONE_NEWIPC, name: "IPC namespace", remedy: REMEDY },
    Namespace { flag: libc::CLONE_NEWUTS, name: "UTS namespace", remedy: REMEDY },
    Namespace { flag: libc::CLONE_NEWCGROUP, name: "cgroup namespace", remedy: REMEDY },
];

/// A wall between a sandbox's processes and the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall {
    /// Its name.
    pub name: &'static str,
    /// Why this host lacks it; `None` if it has it.
    pub missing: Option<String>,
    /// The remedy, if it is missing.
    pub remedy: Option<String>,
}

/// Tries each wall on this host. `state` is a directory on the file system of the state.
///
/// Call it with one thread only: it forks.
pub fn walls(state: &Path) -> Vec<Wall> {
    let wall = |name, missing: Result<(), String>, remedy: &str| {
        let missing = missing.err();
        let remedy = missing.is_some().then(|| remedy.to_owned());
        Wall { name, missing, remedy }
    };
    let kernel = "use Linux 5.12 or later";
    vec![
        wall("user namespace", attempt(|| sys::unshare(libc::CLONE_NEWUSER)), USER_REMEDY),
        wall("pivot_root", attempt(|| root().map_err(io::Error::other)), kernel),
        wall("seccomp", seccomp(), "use a kernel with CONFIG_SECCOMP_FILTER"),
        wall("Landlock", landlock(), "use Linux 5.13 or later with landlock among its LSMs"),
        wall("cgroup v2", cgroup(), "boot with systemd.unified_cgroup_hierarchy=1"),
        wall(
            "quotas",
            quotas(state),
            "mount the file system of MSB_HOME with prjquota (ext4: tune2fs -O project,quota)",
        ),
        wall(
            "idmapped mounts",
            attempt(|| idmap(state)),
            "use Linux 5.12 or later, as root, with MSB_HOME on ext4, xfs or btrfs",
        ),
    ]
}

/// Returns the namespaces that cannot be created, each with the error. Tries all at once first.
pub(crate) fn missing_namespaces() -> Vec<(Namespace, String)> {
    let all = NAMESPACES.iter().fold(0, |all, namespace| all | namespace.flag);
    if attempt(|| sys::unshare(all)).is_ok() {
        return Vec::new();
    }
    let has_user = attempt(|| sys::unshare(libc::CLONE_NEWUSER)).is_ok();
    let with = if has_user { libc::CLONE_NEWUSER } else { 0 };
    let tried = NAMESPACES
        .iter()
        .map(|namespace| (*namespace, attempt(|| sys::unshare(with | namespace.flag))));
    tried.filter_map(|(namespace, result)| Some((namespace, result.err()?))).collect()
}

/// Checks whether this process can change its root.
pub(crate) fn root() -> Result<(), String> {
    let failed = |error: io::Error| format!("pivot_root: {error}; use Linux 5.12 or later");
    if !sys::has_mount_setattr() {
        return Err(failed(Errno::NOSYS.into()));
    }
    root::tmpfs(1).map(drop).map_err(failed)
}

/// Runs an action in a child process.
fn attempt(action: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    let child = match sys::clone(0) {
        Ok(Cloned::Parent(child)) => child,
        Ok(Cloned::Child) => {
            let errno = action().err().map(|error| error.raw_os_error().unwrap_or(libc::EIO));
            sys::exit(errno.unwrap_or(0));
        }
        Err(error) => return Err(error.to_string()),
    };
    let status = loop {
        match waitpid(Pid::from_raw(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    match status.ok().flatten().and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno).to_string()),
        None => Err("the process that tried it was killed".to_owned()),
    }
}

fn seccomp() -> Result<(), String> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    let actions = actions.map_err(|error| error.to_string())?;
    let has = actions.split_whitespace().any(|action| action == "kill_process");
    if has { Ok(()) } else { Err("the kernel lacks the action kill_process".to_owned()) }
}

fn landlock() -> Result<(), String> {
    if paths::has_landlock() { Ok(()) } else { Err("the kernel does not have it".to_owned()) }
}

/// Checks for cgroup v2 with the controllers that limit a sandbox.
fn cgroup() -> Result<(), String> {
    let path = "/sys/fs/cgroup/cgroup.controllers";
    let controllers = std::fs::read_to_string(path).map_err(|_| "not mounted".to_owned())?;
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|name| name == *wanted))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("without {}", missing.join(", "))) }
}

/// Checks the mount options for project quotas.
fn quotas(state: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let existing = state.ancestors().find_map(|path| path.canonicalize().ok());
    let existing = existing.ok_or_else(|| "the directory does not exist".to_owned())?;
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(4)?.to_owned();
        Some((point, line))
    });
    let found = mounts
        .filter(|(point, _)| existing.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    let options = found.map(|(_, line)| line.rsplit(' ').next().unwrap_or_default());
    let options = options.unwrap_or_default();
    let has = options.split(',').any(|option| matches!(option, "prjquota" | "pquota"));
    if has { Ok(()) } else { Err("the file system is mounted without project quotas".to_owned()) }
}

fn idmap(state: &Path) -> io::Result<()> {
    let existing = state.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let source = open(existing, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let own = rustix::process::geteuid().as_raw();
    let map = [Map { inside: 0, outside: 0x7000_0000, count: 65_536 }];
    idmapped(source.as_fd(), user_namespace(own, &map, &map)?.as_fd(), false).map(drop)
}
