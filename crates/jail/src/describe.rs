//! The description of a jail.

use crate::ids::{IDS_PER_SLOT, Slot};
use crate::seccomp::Program;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;
use std::path::Path;

/// The id inside of a process with a single id.
const INSIDE: u32 = 1000;

/// `CAP_DAC_READ_SEARCH`: read every file of an owner that the user namespace maps. A file server
/// needs it, since an image has files of many owners and modes.
pub const READ_ALL: u32 = 2;

/// `CAP_FOWNER`: act as the owner of every such file. A file server needs it, since overlayfs opens
/// files with `O_NOATIME`, which only owners may; the image is mounted read-only.
pub const OWN_ALL: u32 = 3;

/// A range of mapped ids of a user namespace.
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
    /// The mapped user ids.
    pub users: Vec<Map>,
    /// The mapped group ids.
    pub groups: Vec<Map>,
    /// The user id of the process, inside.
    pub user: u32,
    /// Its group id, inside.
    pub group: u32,
}

impl Ids {
    /// Returns a single id: the last one of a slot, which owns no file of a sandbox.
    pub fn single(slot: &Slot) -> Ids {
        Ids::one(slot.start() + IDS_PER_SLOT - 1, slot.start() + IDS_PER_SLOT - 1)
    }

    /// Returns all ids of a slot, the first of which is root inside. The process has the last one.
    pub fn all(slot: &Slot) -> Ids {
        let map = vec![Map { inside: 0, outside: slot.start(), count: IDS_PER_SLOT }];
        let last = IDS_PER_SLOT - 1;
        Ids { users: map.clone(), groups: map, user: last, group: last }
    }

    /// Returns all ids of the slot that starts at `start`. The process is root inside.
    pub fn root_of(start: u32) -> Ids {
        let map = vec![Map { inside: 0, outside: start, count: IDS_PER_SLOT }];
        Ids { users: map.clone(), groups: map, user: 0, group: 0 }
    }

    /// Returns an identity map of this user namespace. The process has the last id of a slot.
    ///
    /// For root's file server where the file system cannot map owners.
    pub fn unmapped(slot: &Slot) -> Ids {
        let map = vec![Map { inside: 0, outside: 0, count: u32::MAX }];
        let last = slot.start() + IDS_PER_SLOT - 1;
        Ids { users: map.clone(), groups: map, user: last, group: last }
    }

    /// Returns a single id of an ordinary user, in whose user namespace this process is: the last
    /// one of the user's range or, with `own`, the user's own, which may be the only one with
    /// access to `/dev/kvm`.
    pub fn nested_single(own: bool) -> io::Result<Ids> {
        let last = |file| Ok::<_, io::Error>(if own { 0 } else { last_of(&nested(file)?) });
        Ok(Ids::one(last("/proc/self/uid_map")?, last("/proc/self/gid_map")?))
    }

    /// Returns all ids of an ordinary user, in whose user namespace this process is. The process
    /// has the last one.
    pub fn nested_all() -> io::Result<Ids> {
        let (users, groups) = (nested("/proc/self/uid_map")?, nested("/proc/self/gid_map")?);
        let (user, group) = (last_of(&users), last_of(&groups));
        Ok(Ids { users, groups, user, group })
    }

    fn one(user: u32, group: u32) -> Ids {
        let map = |outside| vec![Map { inside: INSIDE, outside, count: 1 }];
        Ids { users: map(user), groups: map(group), user: INSIDE, group: INSIDE }
    }

    /// Gives the process the first id: that of the process that creates the jail.
    pub fn with_own_id(self) -> Ids {
        Ids { user: 0, group: 0, ..self }
    }

    /// Returns the process's ids outside.
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

/// Returns an identity map of this user namespace's ids.
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
        return Err(io::Error::other(format!("{file} maps no ids")));
    }
    Ok(maps)
}

fn last_of(maps: &[Map]) -> u32 {
    maps.iter().map(|map| map.inside.saturating_add(map.count - 1)).max().unwrap_or(0)
}

/// The source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A path of the host; links are followed.
    Path(OsString),
    /// A descriptor.
    Descriptor(i32),
}

/// A file or directory that is bind-mounted into the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The source.
    pub source: Source,
    /// The absolute path in the jail.
    pub target: OsString,
    /// Whether it is writable.
    pub writable: bool,
    /// Whether programs in it can be run and libraries loaded.
    pub executable: bool,
    /// Whether the mounts below it are bound as well, each with its own attributes.
    pub recursive: bool,
    /// Whether owners are mapped through the jail's user namespace: id 0 on disk is id 0 inside.
    pub idmapped: bool,
}

impl Bind {
    /// Binds a path of the host read-only, at the same path.
    pub fn read(path: &Path) -> Bind {
        Bind::at(Source::Path(path.into()), path)
    }

    /// Binds a program or library of the host, at the same path.
    pub fn program(path: &Path) -> Bind {
        Bind { executable: true, ..Bind::read(path) }
    }

    /// Binds a source read-only, at the given path.
    pub fn at(source: Source, target: &Path) -> Bind {
        let target = target.into();
        Bind {
            source,
            target,
            writable: false,
            executable: false,
            recursive: false,
            idmapped: false,
        }
    }
}

/// Resource limits; `None` keeps the current limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open descriptors.
    pub files: Option<u64>,
    /// Processes and threads of the user id. Only for an id that no other process has.
    pub processes: Option<u64>,
    /// Size of a written file, in bytes.
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

/// How much of `/proc` a jail has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proc {
    /// Nothing.
    None,
    /// Only `/proc/self/fd` of the jail's first process.
    Descriptors,
    /// The jail's own processes.
    Own,
    /// The jail's own processes and the setting `fs/file-max`. The other settings exist too; with
    /// Landlock they cannot be read.
    Settings,
}

/// The description of a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The ids of the process.
    pub ids: Ids,
    /// The ids to use if the owners of a bind cannot be mapped. `None`: that is an error.
    pub unmapped: Option<Ids>,
    /// The bind mounts.
    pub binds: Vec<Bind>,
    /// The device nodes of the host, such as `/dev/null`.
    pub devices: Vec<OsString>,
    /// `/proc`.
    pub proc: Proc,
    /// The descriptors that stay open besides 0, 1 and 2.
    pub descriptors: Vec<i32>,
    /// Keep the supplementary groups, which may give an ordinary user access to a device.
    pub keep_groups: bool,
    /// The capabilities that are kept, in the jail's user namespace.
    pub capabilities: Vec<u32>,
    /// Whether the program mounts file systems, which Landlock would forbid: it goes without.
    pub mounts: bool,
    /// Resource limits.
    pub limits: Limits,
    /// The environment of an executed program.
    pub environment: Vec<(OsString, OsString)>,
    /// The seccomp filter; `None` for a process that sets its own later.
    pub program: Option<Program>,
    /// Fail if a wall is missing.
    pub require: bool,
}

impl Jail {
    /// Creates the description of an empty jail, with the program's list of system calls.
    pub fn new(ids: Ids, program: Program) -> Jail {
        Jail { program: Some(program), ..Jail::without_call_list(ids) }
    }

    /// Creates the description of an empty jail for a program that restricts its system calls itself.
    pub fn without_call_list(ids: Ids) -> Jail {
        Jail {
            ids,
            unmapped: None,
            binds: Vec::new(),
            devices: Vec::new(),
            proc: Proc::None,
            descriptors: Vec::new(),
            keep_groups: false,
            capabilities: Vec::new(),
            mounts: false,
            limits: Limits::default(),
            environment: Vec::new(),
            program: None,
            require: false,
        }
    }
}
