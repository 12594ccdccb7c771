//! Attributes, directory entries and events, and the data frames that carry lists of them.
//!
//! The payload of one `FsData` frame is one CBOR array of whole entries or events.

use crate::error::WireError;
use crate::kind::Kind;
use minicbor::{Decode, Encode};

const NANOS: u32 = 1_000_000_000;

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum FsFileKind {
    /// A regular file.
    #[n(1)]
    File,
    /// A directory.
    #[n(2)]
    Directory,
    /// A symbolic link.
    #[n(3)]
    Symlink,
    /// A FIFO.
    #[n(4)]
    Fifo,
    /// A socket.
    #[n(5)]
    Socket,
    /// A character device.
    #[n(6)]
    CharDevice,
    /// A block device.
    #[n(7)]
    BlockDevice,
    /// Anything else.
    #[n(8)]
    #[default]
    Other,
}

/// A time since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsTime {
    /// Seconds; negative before 1970.
    #[n(0)]
    pub seconds: i64,
    /// Nanoseconds after them: less than a second.
    #[n(1)]
    #[cbor(default)]
    pub nanos: u32,
}

/// The attributes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsStat {
    /// Type.
    #[n(0)]
    pub kind: FsFileKind,
    /// Length in bytes; of a link, of what it says.
    #[n(1)]
    pub size: u64,
    /// Permissions with set-user-id, set-group-id and sticky bit, without the type.
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub uid: u32,
    /// Group.
    #[n(4)]
    pub gid: u32,
    /// Time of the last access.
    #[n(5)]
    pub accessed: FsTime,
    /// Time of the last change of the content.
    #[n(6)]
    pub modified: FsTime,
    /// Time of the last change of the attributes.
    #[n(7)]
    pub changed: FsTime,
    /// Time of creation, where the file system records it.
    #[n(8)]
    pub created: Option<FsTime>,
    /// Number of hard links.
    #[n(9)]
    #[cbor(default)]
    pub links: u64,
    /// Number of the file in its file system.
    #[n(10)]
    #[cbor(default)]
    pub inode: u64,
    /// Number of the file system.
    #[n(11)]
    #[cbor(default)]
    pub device: u64,
    /// Bytes on the disk.
    #[n(12)]
    #[cbor(default)]
    pub allocated: u64,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FsEntry {
    /// The name, without directory.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Attributes, of the link itself if it is one.
    #[n(1)]
    pub stat: FsStat,
}

/// What happened to a watched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum FsEventKind {
    /// It was created, or a link to it.
    #[n(1)]
    Created,
    /// Its content changed.
    #[n(2)]
    Modified,
    /// A writer closed it.
    #[n(3)]
    Closed,
    /// Its attributes changed.
    #[n(4)]
    Attributes,
    /// It was removed.
    #[n(5)]
    Removed,
    /// It was renamed from this path. `cookie` is that of the `MovedTo`, if there is one.
    #[n(6)]
    MovedFrom,
    /// It was renamed to this path.
    #[n(7)]
    MovedTo,
    /// Events were lost, or directories are not watched, since a bound was reached: look again at
    /// everything. `path` is the watched path.
    #[n(8)]
    Overflow,
}

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FsEvent {
    /// What happened.
    #[n(0)]
    pub kind: FsEventKind,
    /// To which file: the path of the request, and what is below it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Whether it is a directory.
    #[n(2)]
    #[cbor(default)]
    pub directory: bool,
    /// Joins the two events of a rename; otherwise 0.
    #[n(3)]
    #[cbor(default)]
    pub cookie: u32,
}

/// Encodes a page of entries as the payload of an `FsData` frame.
pub fn encode_entries(entries: &[FsEntry]) -> Vec<u8> {
    to_vec(entries)
}

/// Encodes events as the payload of an `FsData` frame.
pub fn encode_events(events: &[FsEvent]) -> Vec<u8> {
    to_vec(events)
}

/// Decodes a page of entries that an agent sent. No name is empty, `.`, `..`, or contains a slash or
/// NUL.
pub fn decode_entries(payload: &[u8]) -> Result<Vec<FsEntry>, WireError> {
    let entries: Vec<FsEntry> = from_slice(payload)?;
    for entry in &entries {
        check_stat(&entry.stat).map_err(out_of_range)?;
        let is_special = matches!(entry.name.as_slice(), b"" | b"." | b"..");
        if is_special || entry.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(malformed("an entry with an impossible name".to_owned()));
        }
    }
    Ok(entries)
}

/// Decodes events that an agent sent. No path contains NUL.
pub fn decode_events(payload: &[u8]) -> Result<Vec<FsEvent>, WireError> {
    let events: Vec<FsEvent> = from_slice(payload)?;
    match events.iter().any(|event| event.path.contains(&0)) {
        true => Err(malformed("an event with an impossible path".to_owned())),
        false => Ok(events),
    }
}

/// Checks the numbers of an agent's attributes.
pub(super) fn check_stat(stat: &FsStat) -> Result<(), (&'static str, i128)> {
    let times = [Some(stat.accessed), Some(stat.modified), Some(stat.changed), stat.created];
    if let Some(time) = times.iter().flatten().find(|time| time.nanos >= NANOS) {
        return Err(("number of nanoseconds", time.nanos.into()));
    }
    if stat.mode > 0o7777 {
        return Err(("mode", stat.mode.into()));
    }
    match i64::try_from(stat.size) {
        Ok(_) => Ok(()),
        Err(_) => Err(("size", stat.size.into())),
    }
}

fn out_of_range((what, value): (&'static str, i128)) -> WireError {
    WireError::OutOfRange { kind: Kind::FsData, what, value }
}

fn malformed(detail: String) -> WireError {
    WireError::Malformed { kind: Kind::FsData, detail }
}

fn to_vec<T: Encode<()>>(items: &[T]) -> Vec<u8> {
    let mut payload = Vec::new();
    // Neither a vector nor any encoder of our types fails.
    let _ = minicbor::encode(items, &mut payload);
    payload
}

fn from_slice<'b, T: Decode<'b, ()>>(payload: &'b [u8]) -> Result<Vec<T>, WireError> {
    let mut decoder = minicbor::Decoder::new(payload);
    let items = decoder.decode().map_err(|error| malformed(error.to_string()))?;
    match decoder.position() == payload.len() {
        true => Ok(items),
        false => Err(malformed("bytes after the list".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> FsEntry {
        FsEntry { name: name.to_vec(), stat: FsStat::default() }
    }

    #[test]
    fn k1_entries_of_any_name_survive() {
        let entries = [entry(b"a\n\xff \\"), entry(b"..."), entry(&[b'x'; 255])];
        assert_eq!(decode_entries(&encode_entries(&entries)).unwrap(), entries);
        assert_eq!(decode_entries(&encode_entries(&[])).unwrap(), []);
    }

    #[test]
    fn k4_impossible_entries_of_an_agent_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"../x", b"a\0"] {
            assert!(decode_entries(&encode_entries(&[entry(name)])).is_err(), "{name:?}");
        }
        let late = FsTime { seconds: 0, nanos: NANOS };
        for stat in [
            FsStat { modified: late, ..FsStat::default() },
            FsStat { created: Some(late), ..FsStat::default() },
            FsStat { mode: 0o10000, ..FsStat::default() },
            FsStat { size: u64::MAX, ..FsStat::default() },
        ] {
            let payload = encode_entries(&[FsEntry { name: b"a".to_vec(), stat }]);
            let error = decode_entries(&payload).unwrap_err();
            assert!(matches!(error, WireError::OutOfRange { .. }), "{error}");
        }
        let mut payload = encode_entries(&[entry(b"a")]);
        payload.push(0);
        assert!(decode_entries(&payload).is_err());
        payload.truncate(10);
        assert!(decode_entries(&payload).is_err());
    }

    #[test]
    fn k1_events_survive_and_have_possible_paths() {
        let event = |path: &[u8]| FsEvent {
            kind: FsEventKind::MovedFrom,
            path: path.to_vec(),
            directory: true,
            cookie: 7,
        };
        let events = [event(b"/a/\xff"), event(b"/b")];
        assert_eq!(decode_events(&encode_events(&events)).unwrap(), events);
        assert!(decode_events(&encode_events(&[event(b"/\0")])).is_err());
    }
}
