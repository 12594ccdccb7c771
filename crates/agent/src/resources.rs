//! What the agent needs of the sandbox's file system, opened once before any command runs.
//!
//! Owns descriptors of `/dev/null`, of the terminals' file system and of `/proc`, and the thread
//! that reads `/etc/passwd`, which is opened anew each time. Invariant: after
//! the start nothing of these is opened through a name that a command can change, so a command that
//! removes, replaces or covers them changes nothing for the agent.

use crate::accounts::{self, Account, AccountError};
use crate::lookup::Lookup;
use crate::sys;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// The magic number of devpts (statfs(2)).
const DEVPTS_MAGIC: i64 = 0x1cd1;
/// The device numbers of `/dev/null` and `/dev/ptmx` (devices.txt of the kernel).
const NULL_DEVICE: (u32, u32) = (1, 3);
const PTMX_DEVICE: (u32, u32) = (5, 2);
/// Longer than any line of `/proc/PID/stat`.
const MAX_STAT: u64 = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    null: Option<OwnedFd>,
    terminals: Option<Terminals>,
    processes: Option<OwnedFd>,
    lookup: Option<Lookup>,
    commands_mount: bool,
}

/// The file system of the terminals.
#[derive(Debug)]
struct Terminals {
    /// As commands see it: a terminal has its usual name.
    shown: OwnedFd,
    /// A mount of the agent's own, on which nobody can mount anything. Only root has it.
    private: Option<OwnedFd>,
}

/// A process as `/proc/PID/stat` shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

impl Resources {
    /// Opens everything. Fails where `/dev/null` is not the null device: then it is the image's, or
    /// the runtime's, fault, and nothing could be started.
    pub(crate) fn open() -> io::Result<Resources> {
        let null = open_null().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open /dev/null: {error}"))
        })?;
        let processes = private_mount(c"/proc");
        Ok(Resources {
            null: Some(null),
            terminals: Terminals::open(),
            commands_mount: processes.is_some() && !sys::restricts_commands(),
            lookup: Some(Lookup::start()?),
            processes: processes.or_else(|| directory(c"/proc")),
        })
    }

    /// The account of a user specification; `None` is root.
    pub(crate) async fn account(&self, user: Option<&str>) -> Result<Account, AccountError> {
        match &self.lookup {
            Some(lookup) => lookup.resolve(user).await,
            None => accounts::without_files(user),
        }
    }

    /// The null device, for a command's standard input.
    pub(crate) fn null(&self) -> Result<OwnedFd, Errno> {
        let null = self.null.as_ref().ok_or(Errno::NOENT)?;
        rustix::io::fcntl_dupfd_cloexec(null, 3)
    }

    /// The master side of a new terminal.
    pub(crate) fn terminal(&self) -> Result<OwnedFd, Errno> {
        self.terminals.as_ref().ok_or(Errno::NOENT)?.new_terminal()
    }

    /// Whether the agent may mount, and so commands that are root as well: where they may not, as
    /// in a container, they cannot reach a cgroup other than their own.
    pub(crate) fn commands_mount(&self) -> bool {
        self.commands_mount
    }

    /// Every process in the sandbox.
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
    // Above 2: there it would become a command's stream by accident.
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

/// A copy of a mount that is attached nowhere, so that what is mounted on the original does not
/// show in it. Only root has it (open_tree(2)).
fn private_mount(path: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).ok()
}

impl Terminals {
    /// `None` where there is no devpts: a sandbox without terminals.
    fn open() -> Option<Terminals> {
        let shown = directory(c"/dev/pts")?;
        #[allow(clippy::useless_conversion, reason = "its type depends on the architecture")]
        let magic = i64::from(rustix::fs::fstatfs(&shown).ok()?.f_type);
        (magic == DEVPTS_MAGIC).then(|| Terminals { shown, private: private_mount(c"/dev/pts") })
    }

    fn new_terminal(&self) -> Result<OwnedFd, Errno> {
        match open_beneath(&self.shown) {
            // Something is mounted on it. The terminal's own name is not right then.
            Err(Errno::XDEV) => open_beneath(self.private.as_ref().ok_or(Errno::XDEV)?),
            // As a host has it that keeps the instance's own ptmx closed (devpts.rst): only an
            // ordinary user's agent outside any sandbox comes here.
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

/// Opens a devpts' own `ptmx`. Only the kernel makes files there.
fn open_beneath(devpts: &OwnedFd) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(devpts, c"ptmx", TERMINAL_FLAGS, Mode::empty(), resolve) {
        // Linux before 5.6, or a filter of system calls that does not know it.
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

/// The command name stands in parentheses and may hold any character, so the fields are counted
/// from the last one (proc_pid_stat(5)).
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
    fn j7_stat_line_with_odd_name_is_read() {
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
