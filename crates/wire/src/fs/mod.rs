//! Files in the sandbox: the channel family `fs`.
//!
//! A host may use it only if the peers have agreed on [`FEATURE_FS`](crate::FEATURE_FS): an older
//! agent would end the connection. Without it a client reports [`FsErrorKind::Unsupported`] itself.
//! An agent that knows the family and not the operation answers with that kind.
//!
//! A channel carries one operation. The host opens it with a [`FsRequest`]. The agent ends it with
//! [`FsReply`] (success) or [`FsError`], exactly one of them, and sends nothing afterwards.
//!
//! ```text
//!  host                                       agent
//!   FsRequest ──────────────────────────────>
//!             <──────────────────────────────  FsOpened    operations that send data; first
//!   FsData*   <──────────── or ──────────────> FsData*     raw bytes, under credit
//!   Credit*   <─────────────────────────────>  Credit*     for data of the other direction
//!   FsEof     ──────────────────────────────>              operations that receive data
//!   Close     ──────────────────────────────>              gives the operation up, at any time
//!             <──────────────────────────────  FsReply or FsError   last
//! ```
//!
//! | operation | data | `FsOpened` | reply |
//! | --- | --- | --- | --- |
//! | `Read` | to the host: content | stat of the file | `Done` |
//! | `ReadAt` | to the host: content | none | `Done` |
//! | `List`, `ReadDir` | to the host: pages, see [`decode_entries`] | none | `Done` |
//! | `CopyOut` | to the host: a tar archive | stat of the source | `Done` |
//! | `Watch` | to the host: [`decode_events`] | the watch is in place | `Done`, if the watched path is removed |
//! | `Write`, `WriteAt` | to the agent: content | none | `Done` |
//! | `CopyIn` | to the agent: a tar archive | none | `Done` |
//! | `Open` | | none | `Handle` |
//! | `Stat`, `StatHandle` | | none | `Stat` |
//! | `ReadLink`, `RealPath` | | none | `Path` |
//! | `Exists` | | none | `Exists` |
//! | all others | | none | `Done` |
//!
//! **Credit** is counted as for output of commands: a frame costs its payload plus
//! [`FRAME_OVERHEAD`](crate::limits::FRAME_OVERHEAD), and a limit is the total since the channel
//! was opened. The host grants [`FsRequest::window`] at the start, the agent
//! [`FS_WINDOW`](crate::limits::FS_WINDOW): a host may send data right behind its request. The
//! agent clamps the window to [`OUTPUT_WINDOW_MIN`](crate::limits::OUTPUT_WINDOW_MIN) and
//! [`OUTPUT_WINDOW_MAX`](crate::limits::OUTPUT_WINDOW_MAX).
//!
//! **Giving up.** `Close`, and the end of the connection, cancel an operation. A write that was
//! given up before its `FsEof` leaves the old content, or no file. A `CopyIn` that was given up
//! leaves nothing. After `Close` the agent sends nothing more on the channel, and the host knows
//! nothing about the outcome unless the reply came first. `Close` on a channel that has ended is
//! ignored, as are late `FsData`, `FsEof` and `Credit`.
//!
//! **Paths** are absolute, and any bytes but NUL. They are resolved inside the sandbox as the
//! user of the request. An operation whose path is relative, empty or has a NUL fails with
//! [`FsErrorKind::Invalid`] and `EINVAL`.
//!
//! **Archives** of `CopyIn` and `CopyOut` are GNU tar with pax records: `mtime`, `atime`, `path`,
//! `linkpath`, `size` and `SCHILY.xattr.*` where a header cannot hold the value; sparse files in
//! GNU's old format (type `S`). Members are regular files, directories, symbolic links and hard
//! links to earlier members; each directory precedes what is in it. The agent ends an archive with
//! two zero blocks; the host has to as well.
//!
//! **Handles** belong to the connection that opened them and close with it. They keep the rights
//! with which they were opened. At most [`FS_HANDLES`](crate::limits::FS_HANDLES) are open.

mod entry;
mod error;
mod frame;
mod reply;
mod request;
mod state;

pub use entry::{
    FsEntry, FsEvent, FsEventKind, FsFileKind, FsStat, FsTime, decode_entries, decode_events,
    encode_entries, encode_events,
};
pub use error::{FsError, FsErrorKind};
pub use frame::FsMessage;
pub(crate) use frame::{check, parse, put};
pub use reply::{FsDone, FsOpened, FsReply, FsSkipped};
pub use request::{
    FsAttributes, FsCopyIn, FsCopyOut, FsOp, FsOpen, FsRequest, FsWrite, FsWriteStart,
};
pub use state::{FsAction, FsInput, FsState};
