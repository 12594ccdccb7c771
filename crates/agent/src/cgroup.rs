//! One cgroup (version 2) for each session, so that a kill reaches everything that it started.
//!
//! The agent is given a subtree as a descriptor, once, where one can be had; where not, sessions do
//! without. Invariant: no path in the sandbox leads to the subtree, so that no command can leave
//! its group, and everything in the subtree is reached from the descriptor.

use msb_wire::SessionId;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstatfs, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// Where a machine's first process mounts the hierarchy.
const MOUNTED: &str = "/.msb/cgroup";
/// Type of the filesystem of cgroup v2 (statfs(2)).
const CGROUP2: u64 = 0x6367_7270;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The subtree.
static ROOT: OnceLock<OwnedFd> = OnceLock::new();

/// Uses a subtree for the sessions. One that is no cgroup is not used.
pub fn use_cgroup(subtree: OwnedFd) {
    let is_cgroup = fstatfs(&subtree).is_ok_and(|found| u64::try_from(found.f_type) == Ok(CGROUP2));
    if !is_cgroup {
        return;
    }
    // It may have been opened without the right to list it.
    if let Ok(subtree) = openat(&subtree, c".", DIRECTORY, Mode::empty()) {
        // The first one counts.
        let _ = ROOT.set(subtree);
    }
}

/// Uses the hierarchy that a machine's first process has mounted, and takes it off its place.
pub fn use_mounted_cgroup() {
    let opened = rustix::fs::open(MOUNTED, DIRECTORY, Mode::empty());
    // Without a hierarchy nothing is mounted there.
    let _ = unmount(MOUNTED, UnmountFlags::DETACH);
    if let Ok(subtree) = opened {
        use_cgroup(subtree);
    }
}

/// A session's cgroup. The directory goes with the value, as soon as no process is in it.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: CString,
    directory: OwnedFd,
}

impl Cgroup {
    /// Makes the cgroup of a session; `None` where there is no subtree, or it is full.
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

    /// Its directory, by which a process gets into it.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Kills every process in it and below (cgroup-v2.rst, `cgroup.kill`; Linux 5.14). False when
    /// it could not.
    pub(crate) fn kill(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, c"cgroup.kill", flags, Mode::empty());
        file.is_ok_and(|file| std::fs::File::from(file).write_all(b"1").is_ok())
    }

    /// Whether any process is in it or below.
    pub(crate) fn is_populated(&self) -> io::Result<bool> {
        Ok(self.read(c"cgroup.events")?.lines().any(|line| line == "populated 1"))
    }

    /// The processes in it. That they cannot be listed does not mean that there are none.
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

    /// Removes the directory, with groups below it, if no process is in it any more.
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
        // Nobody in the sandbox can make groups below it; if somebody could, they go as well.
        let is_empty = self.is_populated().is_ok_and(|populated| !populated);
        is_empty && remove_below(&self.directory).is_ok() && remove()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove_if_empty();
    }
}

/// Removes all groups below one, the deepest first. Whatever their depth, it holds two descriptors.
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

    /// A group of this test in the hierarchy of version 2; `None` where it cannot be made.
    fn subtree(name: &str) -> Option<(PathBuf, OwnedFd)> {
        let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let place = places.into_iter().find(|place| place.join("cgroup.procs").exists())?;
        let path = place.join(format!("msb-agent-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let subtree = rustix::fs::open(&path, DIRECTORY, Mode::empty()).unwrap();
        Some((path, subtree))
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "why it did not run")]
    fn j6_nested_groups_of_a_session_are_removed() {
        let Some((path, root)) = subtree("nested") else {
            eprintln!("SKIPPED: no group of cgroup v2 can be made here");
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
    fn j7_a_directory_that_is_no_cgroup_is_not_used() {
        use_cgroup(rustix::fs::open("/", DIRECTORY, Mode::empty()).unwrap());
        assert!(ROOT.get().is_none());
    }
}
