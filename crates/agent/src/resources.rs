//! What the agent shares among all sessions.
//!
//! Owns descriptors of `/dev/null`, the devpts mount and `/proc`, opened before any command runs,
//! the thread that reads `/etc/passwd`, and the read buffer. Invariant: after the start no
//! descriptor is opened by a path that a command can change, so removing, replacing or covering
//! these files does not affect the agent.

use crate::accounts::{self, Account, AccountError};
use crate::lookup::Lookup;
use crate::sys;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::pty::OpenptFlags;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// The magic number of devpts (statfs(2)).
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// The device numbers of `/dev/null` and `/dev/ptmx` (devices.txt of the kernel).
const NULL_DEVICE: (u32, u32) = (1, 3);
const PTMX_DEVICE: (u32, u32) = (5, 2);
const SIGWINCH: i32 = 28;
/// Longer than any line of `/proc/PID/stat`.
const MAX_STAT: u64 = 4096;

/// The shared resources.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    null: Option<OwnedFd>,
    terminals: Option<Terminals>,
    processes: Option<OwnedFd>,
    lookup: Option<Lookup>,
    can_commands_mount: bool,
    opens_by_name: Cell<bool>,
    scratch: RefCell<Vec<u8>>,
}

/// The devpts mount.
#[derive(Debug)]
struct Terminals {
    /// As commands see it, so that a terminal has its usual name.
    shown: OwnedFd,
    /// A detached copy, on which commands cannot mount. Only root has it.
    private: Option<OwnedFd>,
}

/// A process, from `/proc/PID/stat`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

impl Resources {
    /// Opens everything. Fails where `/dev/null` is not the null device: no command could start.
    pub(crate) fn open() -> io::Result<Resources> {
        let null = open_null().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open /dev/null: {error}"))
        })?;
        let processes = private_mount(c"/proc");
        Ok(Resources {
            null: Some(null),
            terminals: Terminals::open(),
            can_commands_mount: processes.is_some() && sys::confinement().is_none(),
            lookup: Some(Lookup::start()?),
            processes: processes.or_else(|| directory(c"/proc")),
            opens_by_name: Cell::new(false),
            scratch: RefCell::default(),
        })
    }

    /// Resolves a user specification; `None` is root.
    pub(crate) async fn account(&self, user: Option<&str>) -> Result<Account, AccountError> {
        match &self.lookup {
            Some(lookup) => lookup.resolve(user).await,
            None => accounts::without_files(user),
        }
    }

    /// Returns the null device, for a command's standard input.
    pub(crate) fn null(&self) -> Result<OwnedFd, Errno> {
        let null = self.null.as_ref().ok_or(Errno::NOENT)?;
        rustix::io::fcntl_dupfd_cloexec(null, 3)
    }

    /// Opens a terminal and returns its master side.
    pub(crate) fn terminal(&self) -> Result<OwnedFd, Errno> {
        self.terminals.as_ref().ok_or(Errno::NOENT)?.new_terminal()
    }

    /// Opens the slave side of a terminal.
    pub(crate) fn other_side(&self, master: &OwnedFd) -> Result<OwnedFd, Errno> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // By descriptor: /dev/pts of the image may be another instance than the master's.
        match rustix::pty::ioctl_tiocgptpeer(master, flags) {
            // gVisor does not have it; its only instance is the one that was opened.
            Err(Errno::NOTTY) => {
                self.opens_by_name.set(true);
                self.terminals.as_ref().ok_or(Errno::NOENT)?.other_side(master)
            }
            result => result,
        }
    }

    /// Sends SIGWINCH to the processes of a session (setsid(2)) whose terminal has a new size, where
    /// the kernel does not: gVisor, which also lacks the call by which [`Resources::other_side`]
    /// opens terminals elsewhere. It does not say which group is in the foreground, and the others
    /// ignore the signal unless they handle it.
    pub(crate) fn announce_resize(&self, session: i32) {
        if self.opens_by_name.get() {
            // A list that changes while it is read may have a process twice.
            let all = self.processes().into_iter();
            let members = all.filter(|process| process.session == session);
            let pids: BTreeSet<i32> = members.map(|process| process.pid).collect();
            for pid in pids {
                // Fails only if it has exited.
                let _ = sys::kill_process(pid, SIGWINCH);
            }
        }
    }

    /// Returns whether commands as root may mount. If not, as in a container, they cannot reach
    /// another cgroup than their own.
    pub(crate) fn can_commands_mount(&self) -> bool {
        self.can_commands_mount
    }

    /// Calls a function with the buffer that all reads share. The agent has one thread, and no
    /// await happens during the call.
    pub(crate) fn with_scratch<T>(&self, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        f(&mut self.scratch.borrow_mut())
    }

    /// Lists every process in the sandbox.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let Some(processes) = &self.processes else { return Vec::new() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(processes, c".", flags, Mode::empty());
        let Ok(folder) = folder.and_then(rustix::fs::Dir::new) else { return Vec::new() };
        folder
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse::<i32>().ok())
            .filter_map(|pid| {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let path = format!("{pid}/stat");
                let file = rustix::fs::openat(processes, path, flags, Mode::empty()).ok()?;
                let mut bytes = Vec::new();
                std::fs::File::from(file).take(MAX_STAT).read_to_end(&mut bytes).ok()?;
                parse_stat(pid, &bytes)
            })
            .collect()
    }
}

fn open_null() -> io::Result<OwnedFd> {
    // Non-blocking, since an image may have a FIFO there.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
    if !is_device(&null, NULL_DEVICE) {
        return Err(io::Error::other("not the null device"));
    }
    rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
    // Above 2, so that it does not become a command's stream by accident.
    Ok(rustix::io::fcntl_dupfd_cloexec(&null, 3)?)
}

fn is_device(fd: &OwnedFd, (major, minor): (u32, u32)) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (major, minor)
    })
}

fn directory(path: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}

/// Returns a detached copy of a mount, in which mounts on the original do not appear. Only root can
/// create one (open_tree(2)).
fn private_mount(path: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).ok()
}

impl Terminals {
    /// Opens the devpts mount; `None` in a sandbox without terminals.
    fn open() -> Option<Terminals> {
        let shown = directory(c"/dev/pts")?;
        #[allow(clippy::useless_conversion, reason = "its type depends on the architecture")]
        let magic = i64::from(rustix::fs::fstatfs(&shown).ok()?.f_type);
        (magic == DEVPTS_MAGIC).then(|| Terminals { shown, private: private_mount(c"/dev/pts") })
    }

    fn other_side(&self, master: &OwnedFd) -> Result<OwnedFd, Errno> {
        let path = rustix::pty::ptsname(master, Vec::new())?;
        let name = path.to_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.shown, name, flags, Mode::empty())
    }

    fn new_terminal(&self) -> Result<OwnedFd, Errno> {
        match open_beneath(&self.shown) {
            // A command mounted something on it. The terminal then has another name.
            Err(Errno::XDEV) => open_beneath(self.private.as_ref().ok_or(Errno::XDEV)?),
            // A host without access to the instance's own ptmx (devpts.rst). Only the agent of an
            // ordinary user outside a sandbox reaches this.
            Err(Errno::ACCESS) => open_ptmx(),
            result => result,
        }
    }
}

const TERMINAL_FLAGS: OFlags = OFlags::RDWR
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW);

/// Opens the `ptmx` of a devpts. Only the kernel creates files there.
fn open_beneath(devpts: &OwnedFd) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(devpts, c"ptmx", TERMINAL_FLAGS, Mode::empty(), resolve) {
        // Linux before 5.6, or a seccomp filter without this call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let master = rustix::fs::openat(devpts, c"ptmx", TERMINAL_FLAGS, Mode::empty())?;
            checked(master)
        }
        result => checked(result?),
    }
}

fn open_ptmx() -> Result<OwnedFd, Errno> {
    checked(rustix::fs::open("/dev/ptmx", TERMINAL_FLAGS, Mode::empty())?)
}

fn checked(master: OwnedFd) -> Result<OwnedFd, Errno> {
    if is_device(&master, PTMX_DEVICE) { Ok(master) } else { Err(Errno::NODEV) }
}

/// Parses a line of `/proc/PID/stat`. The command name in parentheses may contain any character, so
/// the fields count from the last parenthesis (proc_pid_stat(5)).
fn parse_stat(pid: i32, line: &[u8]) -> Option<Process> {
    let after_name = line.rsplitn(2, |byte| *byte == b')').next()?;
    let text = std::str::from_utf8(after_name).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j7_stat_line_with_any_name_is_parsed() {
        for line in [&b"9 (a) S) b) S 7 9 5 34816 9 4194304"[..], b"9 (\xff) S 7 9 5 0"] {
            let process = parse_stat(9, line).unwrap();
            assert_eq!((process.pid, process.parent, process.session), (9, 7, 5));
        }
        assert!(parse_stat(9, b"9 (x").is_none());
    }

    #[test]
    fn j7_process_table_holds_this_process() {
        let resources = Resources::open().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(resources.processes().iter().any(|process| process.pid == own));
    }

    #[test]
    fn j5_null_is_the_null_device() {
        let null = Resources::open().unwrap().null().unwrap();
        assert!(is_device(&null, NULL_DEVICE));
        assert!(Resources::default().null().is_err());
    }
}
