//! Host user and group ids for root's sandboxes.
//!
//! A reserved range is divided into slots of 65,536 ids. A sandbox holds one slot while it runs:
//! root inside maps to the slot's first id. A lock file in `/run`, which every state directory
//! shares, prevents two sandboxes from using the same ids; the lock ends with its process.

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Ids of one slot, for users and for groups.
pub const IDS_PER_SLOT: u32 = 65_536;

/// The variable with the reserved range: `START:COUNT`.
const VARIABLE: &str = "MSB_ID_RANGE";
/// First id of the default range. systemd leaves 0x7000_0000 to 0x7fff_ffff unused (its UIDS-GIDS
/// page), and so do the tools that fill `/etc/subuid`.
const DEFAULT_START: u32 = 0x7000_0000;
const DEFAULT_COUNT: u32 = 0x1000_0000;
/// Directory of the lock files.
const LOCKS: &str = "/run/microsandbox/ids";

/// Why a sandbox gets no ids.
#[derive(Debug)]
pub enum IdError {
    /// The range is malformed or not mapped.
    Range(String),
    /// All slots are in use.
    Full(IdRange),
    /// A lock file cannot be used.
    Lock(PathBuf, io::Error),
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdError::Range(why) => write!(f, "cannot use the range of ids: {why}"),
            IdError::Full(range) => {
                write!(f, "cannot take ids: all {} slots are in use", range.slots())?;
                write!(f, "; set {VARIABLE} to a larger range")
            }
            IdError::Lock(path, error) => write!(f, "cannot lock {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for IdError {}

/// A range of user and group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id.
    pub start: u32,
    /// Number of ids.
    pub count: u32,
}

impl IdRange {
    /// Returns the reserved range: `MSB_ID_RANGE`, else ids from 1,879,048,192 on.
    pub fn reserved() -> Result<IdRange, IdError> {
        let range = match std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
            Some(text) => IdRange::parse(&text.to_string_lossy())?,
            None => IdRange { start: DEFAULT_START, count: DEFAULT_COUNT },
        };
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if !is_mapped(&map, range) {
            let IdRange { start, count } = range;
            return Err(IdError::Range(format!(
                "{start}:{count} does not exist in this user namespace; set {VARIABLE}=START:COUNT \
                 to ids that /proc/self/uid_map has"
            )));
        }
        Ok(range)
    }

    fn parse(text: &str) -> Result<IdRange, IdError> {
        let malformed = || {
            IdError::Range(format!(
                "{VARIABLE} is {text:?}; it must be START:COUNT, with at least {IDS_PER_SLOT} ids"
            ))
        };
        let (start, count) = text.split_once(':').ok_or_else(malformed)?;
        let start: u32 = start.parse().map_err(|_| malformed())?;
        let count: u32 = count.parse().map_err(|_| malformed())?;
        // The last id means "no id" to the kernel; ids below 1000 are the system's.
        let fits = start.checked_add(count).is_some() && start >= 1000 && count >= IDS_PER_SLOT;
        if fits { Ok(IdRange { start, count }) } else { Err(malformed()) }
    }

    fn slots(self) -> u32 {
        self.count / IDS_PER_SLOT
    }
}

/// Returns whether a map (user_namespaces(7)) has every id of a range.
fn is_mapped(map: &str, range: IdRange) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        let (start, end) =
            (u64::from(range.start), u64::from(range.start) + u64::from(range.count));
        inside <= start && end <= inside + count
    })
}

/// The ids of one sandbox, reserved while the value lives.
#[derive(Debug)]
pub struct Slot {
    start: u32,
    _lock: OwnedFd,
}

impl Slot {
    /// Reserves a free slot. `seed`, such as a hash of the sandbox's name, selects the first slot
    /// to try, so that a sandbox usually gets the same ids again.
    pub fn take(seed: u64) -> Result<Slot, IdError> {
        Slot::take_in(Path::new(LOCKS), IdRange::reserved()?, seed)
    }

    fn take_in(locks: &Path, range: IdRange, seed: u64) -> Result<Slot, IdError> {
        make_private(locks)?;
        let slots = range.slots();
        let first = u32::try_from(seed % u64::from(slots)).unwrap_or(0);
        for number in (first..slots).chain(0..first) {
            let start = range.start + number * IDS_PER_SLOT;
            if let Some(lock) = try_lock(&locks.join(start.to_string()))? {
                return Ok(Slot { start, _lock: lock });
            }
        }
        Err(IdError::Full(range))
    }

    /// Reserves a free slot for a sandbox of this name. `None` for root of a user namespace without
    /// the default range.
    pub fn for_name(name: &str) -> Result<Option<Slot>, IdError> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let is_set = std::env::var_os(VARIABLE).is_some_and(|text| !text.is_empty());
        if !is_set && matches!(IdRange::reserved(), Err(IdError::Range(_))) {
            return Ok(None);
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Slot::take(hasher.finish()).map(Some)
    }

    /// Returns the host id of root inside, the first of the slot.
    pub fn start(&self) -> u32 {
        self.start
    }
}

fn make_private(locks: &Path) -> Result<(), IdError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(locks);
    made.map_err(|error| IdError::Lock(locks.to_path_buf(), error))
}

/// Returns `None` if another process has the lock.
fn try_lock(path: &Path) -> Result<Option<OwnedFd>, IdError> {
    let failed = |error: Errno| IdError::Lock(path.to_path_buf(), error.into());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j3_two_sandboxes_never_share_ids() {
        let scratch = tempfile::tempdir().unwrap();
        let range = IdRange { start: 1_000_000, count: 3 * IDS_PER_SLOT };
        let take = || Slot::take_in(scratch.path(), range, 7);
        let (a, b, c) = (take().unwrap(), take().unwrap(), take().unwrap());
        let mut starts = [a.start(), b.start(), c.start()];
        starts.sort_unstable();
        assert_eq!(starts, [1_000_000, 1_065_536, 1_131_072]);
        let error = take().unwrap_err().to_string();
        assert!(error.contains("all 3 slots are in use"), "{error}");
        let freed = b.start();
        drop(b);
        // A child of another test holds the lock until its exec.
        let again = (0..1000).find_map(|_| {
            std::thread::yield_now();
            take().ok()
        });
        assert_eq!(again.unwrap().start(), freed);
    }

    #[test]
    fn j3_malformed_range_is_refused() {
        assert_eq!(
            IdRange::parse("100000:65536").unwrap(),
            IdRange { start: 100_000, count: 65_536 }
        );
        for bad in ["", "1", "x:y", "0:65536", "100000:1", "4294967295:65536", "1000:-1"] {
            let error = IdRange::parse(bad).unwrap_err().to_string();
            assert!(error.contains("START:COUNT"), "{bad}: {error}");
        }
    }

    #[test]
    fn j3_ids_of_another_namespace_are_refused() {
        let range = IdRange { start: 100_000, count: 65_536 };
        assert!(is_mapped("         0          0 4294967295\n", range));
        assert!(is_mapped("0 100000 1\n100000 500000 65536\n", range));
        assert!(!is_mapped("0 100000 65536\n", range));
        assert!(!is_mapped("", range));
    }
}
