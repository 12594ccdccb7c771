//! One cgroup for each session, so that a kill reaches everything that it started: of version 2, or
//! of version 1 under gVisor, which has no other.
//!
//! The agent gets the descriptor of a subtree at its start, or none; sessions then have no cgroup.
//! Invariant: no path in the sandbox leads to the subtree, so no command can leave its cgroup.

use msb_wire::SessionId;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatfs, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// Where the init process of a machine mounts the hierarchy.
const MOUNTED: &str = "/.msb/cgroup";
/// Where gVisor mounts those of version 1, one in a directory for each controller, and the directory
/// of the one for the sessions. Its limits are of no use: gVisor checks them for one hierarchy of a
/// process, taken at random.
const CONTROLLERS: &str = "/sys/fs/cgroup";
const PIDS: &str = "pids";
/// File system type of cgroup v2 (statfs(2)).
const CGROUP2: u64 = 0x6367_7270;
/// File system type of cgroup v1.
const CGROUP1: u64 = 0x0027_e0eb;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The subtree.
static ROOT: OnceLock<OwnedFd> = OnceLock::new();

/// Sets the subtree for the sessions. Ignores a directory that is no cgroup.
pub fn use_cgroup(subtree: OwnedFd) {
    let is_cgroup = fstatfs(&subtree).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2));
    if !is_cgroup {
        return;
    }
    // Opened again for listing: it may be an `O_PATH` descriptor.
    if let Ok(subtree) = openat(&subtree, c".", DIRECTORY, Mode::empty()) {
        // Set once.
        let _ = ROOT.set(subtree);
    }
}

/// Sets the hierarchy that the init process of a machine mounted as the subtree, and unmounts it.
pub fn use_mounted_cgroup() {
    let opened = rustix::fs::open(MOUNTED, DIRECTORY, Mode::empty());
    // Fails only where nothing is mounted.
    let _ = unmount(MOUNTED, UnmountFlags::DETACH);
    if let Ok(subtree) = opened {
        use_cgroup(subtree);
    }
}

/// Sets a hierarchy of gVisor as the subtree, and unmounts all hierarchies. Fails where one is still
/// mounted: commands could leave their cgroups.
pub fn use_version1_cgroup() -> io::Result<()> {
    let mounted = rustix::fs::open(CONTROLLERS, DIRECTORY, Mode::empty())?;
    let subtree = openat(&mounted, PIDS, DIRECTORY, Mode::empty())?;
    if u64::try_from(fstatfs(&subtree)?.f_type) != Ok(CGROUP1) {
        return Err(io::Error::other("not a cgroup"));
    }
    for entry in Dir::read_from(&mounted)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let path = format!("{CONTROLLERS}/{}", name.to_string_lossy());
            unmount(path, UnmountFlags::DETACH)?;
        }
    }
    // The directories are a file system of their own.
    let _ = unmount(CONTROLLERS, UnmountFlags::DETACH);
    ROOT.set(subtree).map_err(|_| io::Error::other("one is in use already"))
}

/// A session's cgroup. Dropping it removes the directory if no process is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: CString,
    directory: OwnedFd,
}

impl Cgroup {
    /// Creates the cgroup of a session; `None` without a subtree, or if it is full.
    pub(crate) fn create(session: SessionId) -> Option<Cgroup> {
        Cgroup::create_in(ROOT.get()?, session)
    }

    fn create_in(root: &OwnedFd, session: SessionId) -> Option<Cgroup> {
        let name = CString::new(session.to_string()).ok()?;
        mkdirat(root, &name, Mode::from_raw_mode(0o755)).ok()?;
        match openat(root, &name, DIRECTORY, Mode::empty()) {
            Ok(directory) => Some(Cgroup { name, directory }),
            Err(_) => {
                let _ = unlinkat(root, &name, AtFlags::REMOVEDIR);
                None
            }
        }
    }

    /// Returns its directory, for placing a process in it.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills every process in it and below (cgroup-v2.rst, `cgroup.kill`; Linux 5.14). Returns
    /// false on failure: version 1 does not have it.
    pub(crate) fn kill(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, c"cgroup.kill", flags, Mode::empty());
        file.is_ok_and(|file| std::fs::File::from(file).write_all(b"1").is_ok())
    }

    /// Returns whether any process is in it or below.
    pub(crate) fn is_populated(&self) -> io::Result<bool> {
        match self.read(c"cgroup.events") {
            Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
            // Version 1, below whose groups commands cannot create any.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(!self.members()?.is_empty())
            }
            Err(error) => Err(error),
        }
    }

    /// Lists the processes in it. An error does not mean that there are none.
    pub(crate) fn members(&self) -> io::Result<Vec<i32>> {
        let text = self.read(c"cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    fn read(&self, name: &std::ffi::CStr) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut text = String::new();
        let file = openat(&self.directory, name, flags, Mode::empty())?;
        std::fs::File::from(file).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Removes the directory and groups below it if no process is in them. Returns whether it is
    /// removed.
    pub(crate) fn remove_if_empty(&self) -> bool {
        ROOT.get().is_none_or(|root| self.remove_from(root))
    }

    fn remove_from(&self, root: &OwnedFd) -> bool {
        let remove = || match unlinkat(root, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(_) => false,
        };
        if remove() {
            return true;
        }
        // Groups below it exist only where commands can create them.
        let is_empty = self.is_populated().is_ok_and(|populated| !populated);
        is_empty && remove_below(&self.directory).is_ok() && remove()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove_if_empty();
    }
}

/// Removes all groups below one, the deepest first, with two open descriptors at any depth.
fn remove_below(group: &OwnedFd) -> rustix::io::Result<()> {
    let mut current = openat(group, c".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    loop {
        if let Some(name) = first_below(&current)? {
            current = openat(&current, &name, DIRECTORY, Mode::empty())?;
            names.push(name);
            continue;
        }
        let Some(name) = names.pop() else { return Ok(()) };
        current = openat(&current, c"..", DIRECTORY, Mode::empty())?;
        unlinkat(&current, &name, AtFlags::REMOVEDIR)?;
    }
}

fn first_below(group: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    for entry in Dir::read_from(group)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Creates a group for a test in the hierarchy of version 2; `None` where that fails.
    fn subtree(name: &str) -> Option<(PathBuf, OwnedFd)> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists())?;
        let path = mount.join(format!("msb-agent-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let subtree = rustix::fs::open(&path, DIRECTORY, Mode::empty()).unwrap();
        Some((path, subtree))
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "why the test was skipped")]
    fn j6_nested_groups_of_a_session_are_removed() {
        let Some((path, root)) = subtree("nested") else {
            eprintln!("SKIPPED: cannot create a cgroup of version 2 here");
            return;
        };
        let cgroup = Cgroup::create_in(&root, SessionId::from_bytes([7; 16])).unwrap();
        let name = "d".repeat(200);
        let mut current = openat(cgroup.directory(), c".", DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..40 {
            mkdirat(&current, &name, Mode::RWXU).unwrap();
            current = openat(&current, &name, DIRECTORY, Mode::empty()).unwrap();
        }
        drop(current);
        mkdirat(cgroup.directory(), "sibling", Mode::RWXU).unwrap();
        assert!(!cgroup.is_populated().unwrap());
        assert!(cgroup.remove_from(&root));
        assert_eq!(first_below(&root).unwrap(), None);
        std::fs::remove_dir(path).unwrap();
    }

    #[test]
    fn j7_directory_that_is_no_cgroup_is_ignored() {
        use_cgroup(rustix::fs::open("/", DIRECTORY, Mode::empty()).unwrap());
        assert!(ROOT.get().is_none());
    }
}
