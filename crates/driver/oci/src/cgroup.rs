//! The cgroups of containers, in every mounted hierarchy of the host.

use msb_driver::Users;
use msb_jail::hierarchies;
use msb_state::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::{CStr, CString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

/// Most cgroups that the agent can create: one for each running command, with room to spare.
const MAX_DESCENDANTS: &str = "20000";
/// Greatest depth below the container's cgroup: the agent's, and one for each command in it.
const MAX_DEPTH: &str = "2";
/// How often a group that keeps getting new processes is emptied before giving up.
const KILL_ROUNDS: usize = 100;
/// How long an empty group may stay busy, and the pause between two attempts.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How long killed processes may take to exit, in seconds.
const KILL_SECONDS: i64 = 5;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns the name of a container's cgroup, the same in every hierarchy.
pub(crate) fn name(id: &str) -> String {
    format!("microsandbox-{id}")
}

/// Creates the cgroup that is delegated to the agent, below the container's cgroup v2, so that the
/// container's limits apply to it and cannot be changed from it. `None` without cgroup v2.
pub(crate) fn create_for_agent(id: &str, users: Users) -> Option<OwnedFd> {
    let unified = hierarchies().ok()?.into_iter().find(|hierarchy| hierarchy.unified)?;
    let outer = unified.path.join(name(id));
    let group = outer.join("agent");
    fs::create_dir_all(&group).ok()?;
    // Without these a container could create cgroups until the host has no memory left. They are
    // set above the delegated cgroup, so the agent cannot lift them; where they cannot be set, the
    // agent gets no cgroup.
    fs::write(outer.join("cgroup.max.descendants"), MAX_DESCENDANTS).ok()?;
    fs::write(outer.join("cgroup.max.depth"), MAX_DEPTH).ok()?;
    if let Users::Mapped(start) = users {
        delegate(start, &outer, &group).ok()?;
    }
    // A separate mount: from a directory of the host's mount, `..` would reach every cgroup.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, &group, flags).ok()?;
    openat(&mount, c".", DIRECTORY, Mode::empty()).ok()
}

/// Gives a cgroup to the agent and lets it move processes there from the parent, which takes write
/// access to the parent's list of processes and to nothing else of it (cgroup-v2.rst, "Delegation
/// Containment").
fn delegate(id: u32, outer: &Path, group: &Path) -> io::Result<()> {
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(id), Some(id));
    own(&outer.join("cgroup.procs"))?;
    own(group)?;
    for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        own(&group.join(file))?;
    }
    Ok(())
}

/// Kills every process in a container's cgroups and removes the cgroups.
pub(crate) fn remove(id: &str) -> Result<(), Failure> {
    for hierarchy in hierarchies().map_err(|error| failure("read", Path::new("/proc"), error))? {
        remove_one(&hierarchy.path, &name(id))?;
    }
    Ok(())
}

/// Empties and removes a cgroup.
///
/// The kernel may report an empty cgroup as busy, since an exited process is counted for a moment
/// longer than it is listed (cgroup v1 has no event for it): retry.
fn remove_one(hierarchy: &Path, name: &str) -> Result<(), Failure> {
    let failed = |error| failure("remove", &hierarchy.join(name), error);
    let parent = rustix::fs::open(hierarchy, DIRECTORY, Mode::empty());
    let parent = parent.map_err(|error| failed(error.into()))?;
    let begun = Instant::now();
    loop {
        match remove_nested(&parent, name) {
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY_LIMIT => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result.map_err(failed),
        }
    }
}

/// Empties and removes a cgroup and all below it, the deepest first. By descriptor, since the path
/// of a deep cgroup can be too long; at any depth three descriptors are open.
fn remove_nested(parent: &OwnedFd, name: &str) -> io::Result<()> {
    let mut current = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(error) if is_gone(error) => return Ok(()),
        opened => opened?,
    };
    // Upper cgroups first: their processes could move into the others.
    empty(&current)?;
    let mut names = Vec::new();
    loop {
        if let Some(name) = first_below(&current)? {
            current = match openat(&current, &name, DIRECTORY, Mode::empty()) {
                Err(error) if is_gone(error) => continue,
                opened => opened?,
            };
            empty(&current)?;
            names.push(name);
            continue;
        }
        let Some(name) = names.pop() else { break };
        current = openat(&current, c"..", DIRECTORY, Mode::empty())?;
        remove_directory(&current, &name)?;
    }
    remove_directory(parent, name)
}

fn remove_directory(parent: &OwnedFd, name: impl rustix::path::Arg) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(error) if !is_gone(error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn first_below(group: &OwnedFd) -> io::Result<Option<CString>> {
    for entry in Dir::read_from(group)? {
        let entry = match entry {
            Err(error) if is_gone(error) => return Ok(None),
            entry => entry?,
        };
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn failure(action: &str, path: &Path, error: io::Error) -> Failure {
    Failure::boot_io(action, path, error)
}

/// Kills every process in a cgroup and waits until they have exited.
fn empty(group: &OwnedFd) -> io::Result<()> {
    for _ in 0..KILL_ROUNDS {
        // Also kills processes that fork at this moment, and those below; Linux 5.14, cgroup v2.
        if let Ok(file) = open_file(group, c"cgroup.kill", OFlags::WRONLY) {
            fs::File::from(file).write_all(b"1")?;
        }
        let pids = processes(group)?;
        if pids.is_empty() {
            return Ok(());
        }
        // Signal all before waiting for any.
        let killed: Vec<OwnedFd> = pids.into_iter().filter_map(kill).collect();
        for process in killed {
            wait_for_exit(&process)?;
        }
    }
    Err(io::Error::other("processes keep appearing in it"))
}

fn open_file(group: &OwnedFd, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(group, name, flags | OFlags::CLOEXEC, Mode::empty())
}

fn kill(pid: Pid) -> Option<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    pidfd_send_signal(&process, Signal::KILL).ok()?;
    Some(process)
}

fn wait_for_exit(process: &OwnedFd) -> io::Result<()> {
    let limit = Timespec { tv_sec: KILL_SECONDS, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(io::Error::other("a killed process does not exit")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn processes(group: &OwnedFd) -> io::Result<Vec<Pid>> {
    let mut text = String::new();
    let read = open_file(group, c"cgroup.procs", OFlags::RDONLY)
        .map_err(io::Error::from)
        .and_then(|file| fs::File::from(file).read_to_string(&mut text));
    match read.as_ref().map_err(Errno::from_io_error) {
        // A threaded cgroup: its processes are listed in its parent.
        Err(Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)) => return Ok(Vec::new()),
        _ => read?,
    };
    Ok(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect())
}

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NODEV)
}

#[cfg(test)]
pub(crate) use tests::exists;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a container has a cgroup in any hierarchy.
    pub(crate) fn exists(id: &str) -> bool {
        hierarchies().unwrap().iter().any(|hierarchy| hierarchy.path.join(name(id)).exists())
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "why it did not run")]
    fn j6_deep_groups_with_long_names_are_removed() {
        let name = format!("microsandbox-test-deep-{}", std::process::id());
        let mut tried = 0;
        for hierarchy in hierarchies().unwrap() {
            let path = hierarchy.path.join(&name);
            // A cpuset without CPUs takes no process.
            if fs::create_dir(&path).is_err() || path.join("cpuset.cpus").exists() {
                let _ = fs::remove_dir(&path);
                continue;
            }
            let mut current = rustix::fs::open(&path, DIRECTORY, Mode::empty()).unwrap();
            for _ in 0..40 {
                let long = "d".repeat(200);
                rustix::fs::mkdirat(&current, &long, Mode::RWXU).unwrap();
                current = openat(&current, &long, DIRECTORY, Mode::empty()).unwrap();
            }
            let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
            let procs = open_file(&current, c"cgroup.procs", OFlags::WRONLY).unwrap();
            fs::File::from(procs).write_all(child.id().to_string().as_bytes()).unwrap();
            drop(current);
            let reaper = std::thread::spawn(move || child.wait().unwrap());
            remove_one(&hierarchy.path, &name).unwrap();
            assert!(!path.exists());
            assert!(!reaper.join().unwrap().success());
            tried += 1;
        }
        if tried == 0 {
            eprintln!("SKIPPED: cannot create cgroups here");
        }
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "why it did not run")]
    fn j1_agent_cgroup_has_no_way_out() {
        let id = format!("test-own-{}", std::process::id());
        let Some(group) = create_for_agent(&id, Users::Host) else {
            eprintln!("SKIPPED: cannot create a cgroup v2 here");
            return;
        };
        let up = openat(&group, c"../..", DIRECTORY, Mode::empty()).unwrap();
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(&up), inode(&group));
        // The depth limit holds from inside.
        rustix::fs::mkdirat(&group, c"a", Mode::RWXU).unwrap();
        let error = rustix::fs::mkdirat(&group, c"a/b", Mode::RWXU).unwrap_err();
        assert_eq!(error, Errno::AGAIN);
        remove(&id).unwrap();
    }
}
