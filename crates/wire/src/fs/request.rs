//! The requests of a host.

use super::entry::FsTime;
use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode};

/// An operation on files. Opens a channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FsRequest {
    /// As whom: `name`, `uid`, `name:group` or `uid:gid` as in [`Exec`](crate::Exec::user); root
    /// when absent. Operations on a handle have the rights with which it was opened.
    #[n(0)]
    pub user: Option<String>,
    /// Initial credit for data to the host. 0 where there is none.
    #[n(1)]
    #[cbor(default)]
    pub window: u64,
    /// The operation.
    #[cbor(n(2), decode_with = "operation")]
    pub op: FsOp,
}

/// The operations.
///
/// A path is followed through symbolic links, its last component as well unless the operation says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FsOp {
    /// Reads a regular file.
    #[n(0)]
    #[cbor(map)]
    Read {
        /// The file.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// The first byte.
        #[n(1)]
        #[cbor(default)]
        offset: u64,
        /// The largest number of bytes; up to the end when absent.
        #[n(2)]
        length: Option<u64>,
        /// Whether the path may also name a device or FIFO. What would block fails with `EAGAIN`.
        #[n(3)]
        #[cbor(default)]
        special: bool,
    },
    /// Writes a file.
    #[n(1)]
    Write(#[n(0)] FsWrite),
    /// Opens a file or directory.
    #[n(2)]
    Open(#[n(0)] FsOpen),
    /// Reads from a handle. The offset of other operations is not changed.
    #[n(3)]
    #[cbor(map)]
    ReadAt {
        /// A handle that was opened to read.
        #[n(0)]
        handle: u64,
        /// The first byte.
        #[n(1)]
        #[cbor(default)]
        offset: u64,
        /// The largest number of bytes; up to the end when absent.
        #[n(2)]
        length: Option<u64>,
    },
    /// Writes to a handle, in place: each frame is in the file when its credit returns.
    #[n(4)]
    #[cbor(map)]
    WriteAt {
        /// A handle that was opened to write.
        #[n(0)]
        handle: u64,
        /// The first byte; ignored by a handle that appends.
        #[n(1)]
        #[cbor(default)]
        offset: u64,
    },
    /// Closes a handle. Fails if the file system reports an error only now.
    #[n(5)]
    #[cbor(map)]
    CloseHandle {
        /// The handle. It is closed also if this fails.
        #[n(0)]
        handle: u64,
        /// Whether to write content and metadata to the disk first.
        #[n(1)]
        #[cbor(default)]
        sync: bool,
    },
    /// Lists a directory, without `.` and `..`, in the order of the file system.
    #[n(6)]
    #[cbor(map)]
    List {
        /// The directory.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Lists the next entries of a directory that was opened. None: the end.
    #[n(7)]
    #[cbor(map)]
    ReadDir {
        /// A handle of a directory.
        #[n(0)]
        handle: u64,
        /// The largest number of entries; all when absent.
        #[n(1)]
        limit: Option<u32>,
    },
    /// Returns the attributes of a path.
    #[n(8)]
    #[cbor(map)]
    Stat {
        /// The path.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// Whether to follow a symbolic link at its end.
        #[n(1)]
        #[cbor(default)]
        follow: bool,
    },
    /// Returns the attributes of an open file or directory.
    #[n(9)]
    #[cbor(map)]
    StatHandle {
        /// The handle.
        #[n(0)]
        handle: u64,
    },
    /// Changes attributes of a path. In order: owner, mode, times.
    #[n(10)]
    #[cbor(map)]
    SetStat {
        /// The path.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// Whether to follow a symbolic link at its end. The mode of a link cannot be changed.
        #[n(1)]
        #[cbor(default)]
        follow: bool,
        /// The new attributes.
        #[n(2)]
        attributes: FsAttributes,
    },
    /// Changes attributes of an open file or directory, with the rights of the request's user.
    #[n(11)]
    #[cbor(map)]
    SetStatHandle {
        /// The handle.
        #[n(0)]
        handle: u64,
        /// The new attributes.
        #[n(1)]
        attributes: FsAttributes,
    },
    /// Makes a directory.
    #[n(12)]
    #[cbor(map)]
    Mkdir {
        /// The directory.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// Whether to make missing parents. An existing directory is then no error.
        #[n(1)]
        #[cbor(default)]
        parents: bool,
        /// Its mode, whatever the umask; 0755 when absent. Parents that are made have 0755.
        #[n(2)]
        mode: Option<u32>,
    },
    /// Removes a file, symbolic link or other thing that is no directory.
    #[n(13)]
    #[cbor(map)]
    Remove {
        /// The path. A link is not followed.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Removes a directory.
    #[n(14)]
    #[cbor(map)]
    RemoveDir {
        /// The directory. A link is not followed, neither here nor below.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// Whether to remove everything in it. Otherwise it must be empty.
        #[n(1)]
        #[cbor(default)]
        recursive: bool,
    },
    /// Renames a file or directory. No link is followed.
    #[n(15)]
    #[cbor(map)]
    Rename {
        /// The old path.
        #[cbor(n(0), with = "minicbor::bytes")]
        from: Vec<u8>,
        /// The new path.
        #[cbor(n(1), with = "minicbor::bytes")]
        to: Vec<u8>,
        /// Whether to fail with `EEXIST` if the new path exists.
        #[n(2)]
        #[cbor(default)]
        no_replace: bool,
    },
    /// Copies a file or a tree inside the sandbox: content, modes, times, links, holes, extended
    /// attributes, and the owner if the user is root. `from` is followed, links below it are
    /// copied. Given up or failed, it leaves nothing.
    #[n(16)]
    #[cbor(map)]
    Copy {
        /// The source.
        #[cbor(n(0), with = "minicbor::bytes")]
        from: Vec<u8>,
        /// The copy itself, not the directory to put it into. An existing file is replaced; of an
        /// existing directory, the content is merged with a directory's.
        #[cbor(n(1), with = "minicbor::bytes")]
        to: Vec<u8>,
        /// Whether to copy a directory. Otherwise it fails with `EISDIR`.
        #[n(2)]
        #[cbor(default)]
        recursive: bool,
    },
    /// Makes a symbolic link.
    #[n(17)]
    #[cbor(map)]
    Symlink {
        /// What the link says: any bytes but NUL, not empty, also relative.
        #[cbor(n(0), with = "minicbor::bytes")]
        target: Vec<u8>,
        /// The link. Must not exist.
        #[cbor(n(1), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Returns what a symbolic link says.
    #[n(18)]
    #[cbor(map)]
    ReadLink {
        /// The link.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Returns the absolute path without links, `.` and `..`. The path must exist.
    #[n(19)]
    #[cbor(map)]
    RealPath {
        /// The path.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Returns whether a path exists. A dangling link does not; a path that the user may not look
    /// at is an error.
    #[n(20)]
    #[cbor(map)]
    Exists {
        /// The path.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
    },
    /// Unpacks an archive.
    #[n(21)]
    CopyIn(#[n(0)] FsCopyIn),
    /// Packs a file or a tree into an archive.
    #[n(22)]
    CopyOut(#[n(0)] FsCopyOut),
    /// Reports changes of a file or directory, and of the names in it, until the channel is closed
    /// or the path is removed or renamed. What is in a new directory may be reported as created
    /// twice.
    #[n(23)]
    #[cbor(map)]
    Watch {
        /// The path.
        #[cbor(n(0), with = "minicbor::bytes")]
        path: Vec<u8>,
        /// Whether to watch the directories below as well, also new ones. Links are not followed,
        /// and at most [`FS_WATCHES`](crate::limits::FS_WATCHES) directories are watched.
        #[n(1)]
        #[cbor(default)]
        recursive: bool,
    },
    /// An operation of a newer host; the agent answers with `Unsupported`.
    #[n(65535)]
    Unknown,
}

/// The number of the last known operation.
const LAST: u32 = 23;

/// Decodes an operation, or skips one that is not known.
fn operation<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<FsOp, Error> {
    let mut probe = d.probe();
    probe.array()?;
    if probe.u32()? > LAST {
        d.skip()?;
        return Ok(FsOp::Unknown);
    }
    FsOp::decode(d, ctx)
}

impl FsOp {
    /// Returns the operation as a verb, for errors: `cannot VERB PATH: REASON`.
    pub const fn name(&self) -> &'static str {
        match self {
            FsOp::Read { .. } | FsOp::ReadAt { .. } => "read",
            FsOp::Write(_) | FsOp::WriteAt { .. } => "write",
            FsOp::Open(_) => "open",
            FsOp::CloseHandle { .. } => "close",
            FsOp::List { .. } | FsOp::ReadDir { .. } => "list",
            FsOp::Stat { .. } | FsOp::StatHandle { .. } | FsOp::Exists { .. } => "stat",
            FsOp::SetStat { .. } | FsOp::SetStatHandle { .. } => "set attributes of",
            FsOp::Mkdir { .. } => "make directory",
            FsOp::Remove { .. } => "remove",
            FsOp::RemoveDir { .. } => "remove directory",
            FsOp::Rename { .. } => "rename",
            FsOp::Copy { .. } | FsOp::CopyIn(_) | FsOp::CopyOut(_) => "copy",
            FsOp::Symlink { .. } => "make symbolic link",
            FsOp::ReadLink { .. } => "read link",
            FsOp::RealPath { .. } => "resolve",
            FsOp::Watch { .. } => "watch",
            FsOp::Unknown => "perform",
        }
    }

    /// Returns the path that the operation is about; empty for one on a handle.
    pub fn path(&self) -> &[u8] {
        match self {
            FsOp::Read { path, .. }
            | FsOp::List { path }
            | FsOp::Stat { path, .. }
            | FsOp::SetStat { path, .. }
            | FsOp::Mkdir { path, .. }
            | FsOp::Remove { path }
            | FsOp::RemoveDir { path, .. }
            | FsOp::Rename { from: path, .. }
            | FsOp::Copy { from: path, .. }
            | FsOp::Symlink { path, .. }
            | FsOp::ReadLink { path }
            | FsOp::RealPath { path }
            | FsOp::Exists { path }
            | FsOp::Watch { path, .. }
            | FsOp::Write(FsWrite { path, .. })
            | FsOp::Open(FsOpen { path, .. })
            | FsOp::CopyIn(FsCopyIn { path, .. })
            | FsOp::CopyOut(FsCopyOut { path, .. }) => path,
            FsOp::ReadAt { .. }
            | FsOp::WriteAt { .. }
            | FsOp::CloseHandle { .. }
            | FsOp::ReadDir { .. }
            | FsOp::StatHandle { .. }
            | FsOp::SetStatHandle { .. }
            | FsOp::Unknown => &[],
        }
    }

    /// Returns whether the agent sends `FsOpened` before its data.
    pub const fn is_announced(&self) -> bool {
        matches!(self, FsOp::Read { .. } | FsOp::CopyOut(_) | FsOp::Watch { .. })
    }

    /// Returns whether the agent sends data.
    pub const fn sends_data(&self) -> bool {
        self.is_announced()
            || matches!(self, FsOp::ReadAt { .. } | FsOp::List { .. } | FsOp::ReadDir { .. })
    }

    /// Returns whether the agent receives data.
    pub const fn receives_data(&self) -> bool {
        matches!(self, FsOp::Write(_) | FsOp::WriteAt { .. } | FsOp::CopyIn(_))
    }
}

/// Where a write begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum FsWriteStart {
    /// The data is the whole content. Atomic: the old content stays until the new is complete, and
    /// a reader sees one or the other. A link at the end of the path is followed; the file behind
    /// it is replaced, and keeps its mode, and its owner if the user may give it away. A file that
    /// is a mount point is overwritten in place, once the new content is complete.
    #[n(0)]
    #[default]
    Replace,
    /// The data follows the content, in place. Given up, the file is cut to its old length, if
    /// nobody else has written to it meanwhile.
    #[n(1)]
    Append,
    /// The data replaces the content from an offset, in place. Not undone when given up.
    #[n(2)]
    At(#[n(0)] u64),
}

/// A request to write a file. The host sends data, then `FsEof`.
///
/// Success means that the guest has closed the file without error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsWrite {
    /// The file.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Where the data goes.
    #[n(1)]
    #[cbor(default)]
    pub start: FsWriteStart,
    /// Mode of the file, whatever the umask. When absent, an existing file keeps its mode, and a
    /// new one has 0644.
    #[n(2)]
    pub mode: Option<u32>,
    /// Owner of the file.
    #[n(3)]
    pub uid: Option<u32>,
    /// Group of the file.
    #[n(4)]
    pub gid: Option<u32>,
    /// Whether to fail with `EEXIST` if the path exists, also as a dangling link.
    #[n(5)]
    #[cbor(default)]
    pub exclusive: bool,
    /// Whether to fail with `ENOENT` if the file does not exist.
    #[n(6)]
    #[cbor(default)]
    pub existing: bool,
    /// Whether to make missing parent directories, with mode 0755.
    #[n(7)]
    #[cbor(default)]
    pub parents: bool,
    /// Whether to write content and directory to the disk before the reply.
    #[n(8)]
    #[cbor(default)]
    pub sync: bool,
    /// Whether the path may also name a device or FIFO, which is written in place. What would
    /// block fails with `EAGAIN`.
    #[n(9)]
    #[cbor(default)]
    pub special: bool,
}

/// A request to open a file or directory. Answered by `Handle`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsOpen {
    /// The path.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// To read. One of `read`, `write`, `append` and `directory` is needed.
    #[n(1)]
    #[cbor(default)]
    pub read: bool,
    /// To write.
    #[n(2)]
    #[cbor(default)]
    pub write: bool,
    /// To write at the end, always.
    #[n(3)]
    #[cbor(default)]
    pub append: bool,
    /// Create the file if it does not exist. Needs `write` or `append`.
    #[n(4)]
    #[cbor(default)]
    pub create: bool,
    /// Fail with `EEXIST` if it exists. Needs `create`.
    #[n(5)]
    #[cbor(default)]
    pub exclusive: bool,
    /// Empty the file. Needs `write`.
    #[n(6)]
    #[cbor(default)]
    pub truncate: bool,
    /// A directory, for `ReadDir`, `StatHandle` and `SetStatHandle` only.
    #[n(7)]
    #[cbor(default)]
    pub directory: bool,
    /// Fail with `ELOOP` if the path ends in a symbolic link.
    #[n(8)]
    #[cbor(default)]
    pub no_follow: bool,
    /// Mode of a new file, whatever the umask; 0644 when absent.
    #[n(9)]
    pub mode: Option<u32>,
    /// Whether the path may also name a device or FIFO. What would block fails with `EAGAIN`.
    #[n(10)]
    #[cbor(default)]
    pub special: bool,
}

/// New attributes; absent ones stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsAttributes {
    /// Permissions with set-user-id, set-group-id and sticky bit: at most 07777.
    #[n(0)]
    pub mode: Option<u32>,
    /// Owner.
    #[n(1)]
    pub uid: Option<u32>,
    /// Group.
    #[n(2)]
    pub gid: Option<u32>,
    /// Time of the last access.
    #[n(3)]
    pub accessed: Option<FsTime>,
    /// Time of the last change of the content.
    #[n(4)]
    pub modified: Option<FsTime>,
    /// Length of a regular file, cut or extended by a hole.
    #[n(5)]
    pub size: Option<u64>,
}

/// A request to unpack an archive. The host sends the archive, then `FsEof`.
///
/// The archive is unpacked aside and moved into place when it is complete: given up, it leaves
/// nothing. A regular file or link replaces what is no directory; a directory is merged with an
/// existing one, which then takes over its attributes; anything else fails with `EISDIR` or
/// `ENOTDIR`. No link is followed below `path`. Names that are absolute or contain `..`, and hard
/// links to anything but an earlier member, fail with [`FsErrorKind::Invalid`]. Devices, FIFOs and
/// sockets are skipped and named in the reply.
///
/// [`FsErrorKind::Invalid`]: super::FsErrorKind::Invalid
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsCopyIn {
    /// An existing directory, which the names are relative to.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Whether to keep the owners that the archive names. Otherwise `uid` and `gid`, or the user
    /// of the request.
    #[n(1)]
    #[cbor(default)]
    pub keep_owner: bool,
    /// Owner of everything.
    #[n(2)]
    pub uid: Option<u32>,
    /// Group of everything.
    #[n(3)]
    pub gid: Option<u32>,
    /// Whether to fail with `EEXIST` instead of replacing a file.
    #[n(4)]
    #[cbor(default)]
    pub no_replace: bool,
    /// Whether to write everything to the disk before the reply.
    #[n(5)]
    #[cbor(default)]
    pub sync: bool,
}

/// A request to pack a file or a tree.
///
/// The first member is the source itself, named `name`; what is in it follows as `name/...`.
/// Links below the source are archived and not followed. Devices, FIFOs, sockets, and files that
/// vanish meanwhile are skipped and named in the reply; a file that changes is padded with zeros
/// or cut to the length in its header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsCopyOut {
    /// The source.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Name of the source in the archive; not empty.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Whether to follow a symbolic link at the end of the path.
    #[n(2)]
    #[cbor(default)]
    pub follow: bool,
}
