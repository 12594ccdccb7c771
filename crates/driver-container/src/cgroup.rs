//! Control groups of containers, in whatever hierarchies the host has.

use msb_driver::{Failure, Users};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// How many groups the agent may make: one for each command that runs, with room to spare.
const MAX_DESCENDANTS: &str = "20000";
/// How often a group that is still being filled is emptied before giving up.
const KILL_ROUNDS: usize = 100;
/// How long an empty group may stay busy, and how often it is asked.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// How long killed processes may take to disappear, in seconds.
const KILL_SECONDS: i64 = 5;

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    path: PathBuf,
    unified: bool,
}

/// The name of a container's groups in every hierarchy.
pub(crate) fn name(id: &str) -> String {
    format!("microsandbox-{id}")
}

/// Makes the group that the agent may fill with groups of its own, below the container's group of
/// cgroup v2, so that the container's limits hold for it and cannot be reached from it. `None`
/// where there is no cgroup v2.
pub(crate) fn create_for_agent(id: &str, users: Users) -> Option<PathBuf> {
    let unified = hierarchies().ok()?.into_iter().find(|hierarchy| hierarchy.unified)?;
    let outer = unified.path.join(name(id));
    let group = outer.join("agent");
    fs::create_dir_all(&group).ok()?;
    // Without it a container could make groups until the host has no memory left. Set above what
    // the container sees, so that it cannot be lifted there; where it cannot be set, the agent
    // does without a group.
    fs::write(outer.join("cgroup.max.descendants"), MAX_DESCENDANTS).ok()?;
    if let Users::Mapped(start) = users {
        give_to(start, &outer, &group).ok()?;
    }
    Some(group)
}

/// Makes a group the agent's, and lets it move processes there from its own group above, which
/// takes the right to write to that one's list of processes and to nothing else of it
/// (cgroup-v2.rst, "Delegation Containment").
fn give_to(id: u32, outer: &Path, group: &Path) -> io::Result<()> {
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(id), Some(id));
    own(&outer.join("cgroup.procs"))?;
    own(group)?;
    for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        own(&group.join(file))?;
    }
    Ok(())
}

/// Ends every process in a container's groups and removes the groups.
pub(crate) fn remove(id: &str) -> Result<(), Failure> {
    for hierarchy in hierarchies().map_err(|error| failure("read", Path::new("/proc"), error))? {
        let group = hierarchy.path.join(name(id));
        if group.is_dir() {
            remove_one(&group)?;
        }
    }
    Ok(())
}

/// Empties and removes a group.
///
/// A process that has ended counts for a moment longer than it is listed (cgroup v1 has no event
/// for it), so that the kernel may call an empty group busy: that is asked again.
fn remove_one(group: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        empty(group).map_err(|error| failure("empty", group, error))?;
        match remove_groups(group) {
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY_LIMIT => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result.map_err(|error| failure("remove", group, error)),
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn failure(action: &str, path: &Path, error: io::Error) -> Failure {
    Failure::boot_io(action, path, error)
}

fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(parse_mounts(&fs::read("/proc/self/mountinfo")?))
}

/// Finds the hierarchies in the format of proc_pid_mountinfo(5).
fn parse_mounts(mounts: &[u8]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let path = fields.nth(4);
        let kind = fields.skip_while(|field| *field != b"-").nth(1);
        let unified = match kind {
            Some(b"cgroup2") => true,
            Some(b"cgroup") => false,
            _ => continue,
        };
        let path = PathBuf::from(OsString::from_vec(unescape(path.unwrap_or_default())));
        let hierarchy = Hierarchy { path, unified };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// Undoes the kernel's octal escapes of spaces and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

/// Ends every process in a group and below it, and waits until they are gone.
fn empty(group: &Path) -> io::Result<()> {
    for _ in 0..KILL_ROUNDS {
        // Reaches what is being forked at this moment; cgroup v2 since Linux 5.14 only.
        let at_once = fs::OpenOptions::new().write(true).open(group.join("cgroup.kill"));
        if let Ok(mut file) = at_once {
            io::Write::write_all(&mut file, b"1")?;
        }
        let pids = processes(group)?;
        if pids.is_empty() {
            return Ok(());
        }
        // All are told before any is waited for.
        let killed: Vec<OwnedFd> = pids.into_iter().filter_map(kill).collect();
        for process in killed {
            wait_for_exit(&process)?;
        }
    }
    Err(io::Error::other("processes keep appearing in it"))
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
            Ok(0) => return Err(io::Error::other("a killed process does not end")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn processes(group: &Path) -> io::Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for group in with_descendants(group) {
        let text = match fs::read_to_string(group.join("cgroup.procs")) {
            Ok(text) => text,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        pids.extend(text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)));
    }
    Ok(pids)
}

/// A group and all below it, each before those below it.
fn with_descendants(group: &Path) -> Vec<PathBuf> {
    let mut found = vec![group.to_path_buf()];
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let entries = fs::read_dir(group).into_iter().flatten().flatten();
        let below: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        found.extend(below);
        next += 1;
    }
    found
}

fn remove_groups(group: &Path) -> io::Result<()> {
    for group in with_descendants(group).iter().rev() {
        match fs::remove_dir(group) {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT.raw_os_error(), Errno::NODEV.raw_os_error()];
    error.raw_os_error().is_some_and(|number| gone.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_hybrid_and_unified_layouts() {
        let text = b"24 1 0:21 / /proc rw - proc proc rw\n\
            30 25 0:26 / /sys/fs/cgroup/a\\040b rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
            31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = parse_mounts(text);
        assert_eq!(
            found,
            [
                Hierarchy { path: "/sys/fs/cgroup/a b".into(), unified: false },
                Hierarchy { path: "/sys/fs/cgroup/unified".into(), unified: true },
            ]
        );
        assert_eq!(parse_mounts(b""), []);
    }
}
