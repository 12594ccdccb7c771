//! The protocol between the host library and the agent inside a sandbox, without any I/O.
//!
//! A connection carries many *channels*. The host opens a channel by sending a request on an unused
//! number: an [`Exec`], an [`Attach`], an [`FsRequest`] and so on. All frames of the request, in
//! both directions, carry that number. Channel 0 is the connection itself. After [`FollowAll`] the
//! agent opens a channel for each new session, with a number from the upper half. A *session* (one
//! run of a command) has a [`SessionId`] and outlives every channel.
//!
//! ```text
//!  0        4    5     6        8         12
//!  +--------+----+-----+--------+---------+----------------+
//!  | length |kind|flags|reserved| channel | payload ...    |   integers little-endian
//!  +--------+----+-----+--------+---------+----------------+
//! ```
//!
//! Operations on files are a family of channels of their own: see [`fs`].
//!
//! The payload of `Stdin`, `Stdout`, `Stderr` and `FsData` is raw bytes; of `Credit` a `u64`; of every other
//! kind one CBOR map with numbered fields, of which a peer skips those that it does not know.
//! Invariant: for any input, decoding returns a frame, "incomplete", or a typed error, with memory
//! bounded by [`limits`].

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod bounded;
mod check;
mod codec;
mod credit;
mod error;
mod exec_state;
mod failure;
mod frame;
pub mod fs;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod kind;
pub mod limits;
mod message;
mod range;
mod session_id;
mod text;
mod tty_modes;

pub use credit::{ReceiveCredit, SendCredit, cost};
pub use error::{Peer, WireError};
pub use exec_state::{ExecAction, ExecInput, ExecState};
pub use failure::{Failure, FailureKind, Stage, classify};
pub use frame::{Decoder, Frame, HEADER_LEN, data_header, encode};
pub use fs::{
    FsAction, FsAttributes, FsCopyIn, FsCopyOut, FsDone, FsEntry, FsError, FsErrorKind, FsEvent,
    FsEventKind, FsFileKind, FsInput, FsMessage, FsOp, FsOpen, FsOpened, FsReply, FsRequest,
    FsSkipped, FsStat, FsState, FsTime, FsWrite, FsWriteStart, decode_entries, decode_events,
    encode_entries, encode_events,
};
pub use handshake::{
    Agreed, FEATURE_FOLLOW_ALL, FEATURE_FS, FEATURES, Hello, PROTOCOL_MAX, PROTOCOL_MIN, agree,
};
pub use kind::Kind;
pub use message::{
    Attach, Attached, End, Exec, Exited, FollowAll, Message, Opened, OutputStream, Refusal,
    ResizeRequest, Rlimit, Scope, SessionInfo, Sessions, Shutdown, SignalRequest, Started,
    StdinError, StdinMode, TtySize, Verdict,
};
pub use session_id::{InvalidSessionId, SessionId};
pub use text::{escape, escape_bytes, escape_json, one_line};
pub use tty_modes::TtyModes;
