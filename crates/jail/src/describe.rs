//! What a jail is to hold.

use crate::ids::{IDS_PER_SLOT, Slot};
use crate::seccomp::Program;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// The id that a process with a single id has inside.
const INSIDE: u32 = 1000;

/// `CAP_DAC_READ_SEARCH`: read every file, whatever its mode, whose owner exists in the jail's user
/// namespace. A file server needs it, because an image has files of many owners and modes.
pub const READ_ALL: u32 = 2;

/// `CAP_FOWNER`: be the owner of every such file. A file server needs it, because overlayfs opens
/// files with `O_NOATIME`, which only their owners may; the image is mounted read-only.
pub const OWN_ALL: u32 = 3;

/// A range of ids of the jail's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// Number of ids.
    pub count: u32,
}

/// The ids of a jailed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User ids that exist inside.
    pub users: Vec<Map>,
    /// Group ids that exist inside.
    pub groups: Vec<Map>,
    /// The user id of the process, inside.
    pub user: u32,
    /// Its group id, inside.
    pub group: u32,
}

impl Ids {
    /// A single id: the last one of a slot, which no file of a sandbox has.
    pub fn single(slot: &Slot) -> Ids {
        Ids::one(slot.start() + IDS_PER_SLOT - 1, slot.start() + IDS_PER_SLOT - 1)
    }

    /// All ids of a slot, the first of which is root inside. The process has the last one.
    pub fn all(slot: &Slot) -> Ids {
        let map = vec![Map { inside: 0, outside: slot.start(), count: IDS_PER_SLOT }];
        let last = IDS_PER_SLOT - 1;
        Ids { users: map.clone(), groups: map, user: last, group: last }
    }

    /// Every id of this user namespace as it is. The process has the last one of a slot.
    ///
    /// For a file server as root where the file system cannot map the owners.
    pub fn unmapped(slot: &Slot) -> Ids {
        let map = vec![Map { inside: 0, outside: 0, count: u32::MAX }];
        let last = slot.start() + IDS_PER_SLOT - 1;
        Ids { users: map.clone(), groups: map, user: last, group: last }
    }

    /// A single id of an ordinary user, whose user namespace this process is in: the last one of
    /// the user's range, or, with `own`, the user's own, which alone may have been given access to
    /// `/dev/kvm`.
    pub fn nested_single(own: bool) -> io::Result<Ids> {
        let last = |file| Ok::<_, io::Error>(if own { 0 } else { last_of(&nested(file)?) });
        Ok(Ids::one(last("/proc/self/uid_map")?, last("/proc/self/gid_map")?))
    }

    /// All ids of an ordinary user, whose user namespace this process is in. The process has the
    /// last one.
    pub fn nested_all() -> io::Result<Ids> {
        let (users, groups) = (nested("/proc/self/uid_map")?, nested("/proc/self/gid_map")?);
        let (user, group) = (last_of(&users), last_of(&groups));
        Ok(Ids { users, groups, user, group })
    }

    fn one(user: u32, group: u32) -> Ids {
        let map = |outside| vec![Map { inside: INSIDE, outside, count: 1 }];
        Ids { users: map(user), groups: map(group), user: INSIDE, group: INSIDE }
    }

    /// The same ids, of which the process has the first one: that of the process that makes the jail.
    pub fn with_own_id(self) -> Ids {
        Ids { user: 0, group: 0, ..self }
    }

    /// The process's ids outside.
    pub fn outside(&self) -> (u32, u32) {
        (outside(&self.users, self.user), outside(&self.groups, self.group))
    }
}

fn outside(maps: &[Map], id: u32) -> u32 {
    let found = maps.iter().find_map(|map| {
        let offset = id.checked_sub(map.inside).filter(|offset| *offset < map.count)?;
        Some(map.outside + offset)
    });
    found.unwrap_or(id)
}

/// The ids of this user namespace, to be mapped to themselves.
fn nested(file: &str) -> io::Result<Vec<Map>> {
    let maps: Vec<Map> = std::fs::read_to_string(file)?
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            let (inside, _, count) =
                (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
            Some(Map { inside, outside: inside, count })
        })
        .collect();
    if maps.is_empty() {
        return Err(io::Error::other(format!("{file} has no ids")));
    }
    Ok(maps)
}

fn last_of(maps: &[Map]) -> u32 {
    maps.iter().map(|map| map.inside.saturating_add(map.count - 1)).max().unwrap_or(0)
}

/// Where a file or directory of the jail comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host; links are followed.
    Path(OsString),
    /// What a descriptor with this number leads to.
    Descriptor(i32),
}

/// A file or directory that the jail holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it comes from.
    pub source: Source,
    /// Where it is in the jail, as an absolute path.
    pub target: OsString,
    /// It can be written to.
    pub writable: bool,
    /// Programs in it can be run and libraries loaded.
    pub executable: bool,
    /// Its owners are those of the jail's user namespace: id 0 on disk is id 0 inside.
    pub idmapped: bool,
}

impl Bind {
    /// A file or directory of the host that can be read, at the same place.
    pub fn read(path: &Path) -> Bind {
        Bind::at(Source::Path(path.into()), path)
    }

    /// A program or library of the host, at the same place.
    pub fn program(path: &Path) -> Bind {
        Bind { executable: true, ..Bind::read(path) }
    }

    /// Something that can be read, at the given place.
    pub fn at(source: Source, target: &Path) -> Bind {
        let target = target.into();
        Bind { source, target, writable: false, executable: false, idmapped: false }
    }
}

/// Resource limits; `None` leaves a limit as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open descriptors.
    pub files: Option<u64>,
    /// Processes and threads of the user id. Set only where no other process has that id.
    pub processes: Option<u64>,
    /// Size of a file that it writes, in bytes.
    pub file_size: Option<u64>,
    /// Locked memory, in bytes.
    pub locked_memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        let (files, locked_memory) = (Some(1024), Some(64 * 1024));
        Limits { files, processes: None, file_size: None, locked_memory }
    }
}

/// How much of `/proc` a jail holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proc {
    /// Nothing.
    None,
    /// The descriptors of the jail's first process, as `/proc/self/fd`.
    Descriptors,
    /// The jail's own processes.
    Own,
    /// The jail's own processes, and one file of the kernel's settings, `fs/file-max`. The others
    /// exist as well; where the kernel has Landlock they cannot be read.
    Settings,
}

/// What a jail is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The ids of the process.
    pub ids: Ids,
    /// The ids where the owners of a bind cannot be mapped. Without them that is an error.
    pub unmapped: Option<Ids>,
    /// The files and directories.
    pub binds: Vec<Bind>,
    /// The device nodes of the host, such as `/dev/null`.
    pub devices: Vec<OsString>,
    /// `/proc`.
    pub proc: Proc,
    /// Numbers of the descriptors that stay open beside 0, 1 and 2.
    pub descriptors: Vec<i32>,
    /// Keep the supplementary groups, by which an ordinary user may be allowed to use a device.
    pub keep_groups: bool,
    /// Numbers of the capabilities that are kept, in the jail's user namespace.
    pub capabilities: Vec<u32>,
    /// Resource limits.
    pub limits: Limits,
    /// The whole environment of a program that is run.
    pub environment: Vec<(OsString, OsString)>,
    /// The system calls that are allowed; `None` for a process that sets its own filter later.
    pub program: Option<Program>,
    /// Fail when a wall is missing.
    pub require: bool,
}

impl Jail {
    /// A jail that holds nothing.
    pub fn new(ids: Ids, program: Program) -> Jail {
        Jail {
            ids,
            unmapped: None,
            binds: Vec::new(),
            devices: Vec::new(),
            proc: Proc::None,
            descriptors: Vec::new(),
            keep_groups: false,
            capabilities: Vec::new(),
            limits: Limits::default(),
            environment: Vec::new(),
            program: Some(program),
            require: false,
        }
    }
}
