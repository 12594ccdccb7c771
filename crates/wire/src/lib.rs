//! The protocol between the host library and the agent inside a sandbox, without any I/O.
//!
//! A connection carries many *channels*. The host opens a channel by sending a request on a number
//! it has not used before: an [`Exec`], an [`Attach`], a [`SignalRequest`] and so on; everything
//! that belongs to the request, in both directions, travels on that number. Channel 0 is the
//! connection itself. A host that asked by [`FollowAll`] is told of every session on a channel
//! that the agent opens, with a number of the upper half. A *session* (one run of a command) is named by a [`SessionId`] and outlives
//! every channel.
//!
//! ```text
//!  0        4    5     6        8         12
//!  +--------+----+-----+--------+---------+----------------+
//!  | length |kind|flags|reserved| channel | payload ...    |   integers little-endian
//!  +--------+----+-----+--------+---------+----------------+
//! ```
//!
//! The payload of `Stdin`, `Stdout` and `Stderr` is the raw bytes; of `Credit` a `u64`; of every
//! other kind one CBOR map with numbered fields, so that a field that a peer does not know is
//! skipped. Invariant: whatever the bytes, decoding ends in a frame, in "not yet", or in a typed
//! error, with memory bounded by [`limits`].

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod check;
mod credit;
mod error;
mod exec_state;
mod failure;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
pub mod limits;
mod message;
mod session_id;
mod text;

pub use credit::{ReceiveCredit, SendCredit, cost};
pub use error::{Peer, WireError};
pub use exec_state::{ExecAction, ExecInput, ExecState};
pub use failure::{Failure, FailureKind, Stage, classify};
pub use frame::{Decoder, Frame, HEADER_LEN, Kind, data_header, encode};
pub use handshake::{
    Agreed, FEATURE_FOLLOW_ALL, FEATURES, Hello, PROTOCOL_MAX, PROTOCOL_MIN, agree,
};
pub use message::{
    Attach, Attached, End, Exec, Exited, FollowAll, Message, Opened, OutputStream, Refusal,
    ResizeRequest, Rlimit, Scope, SessionInfo, Sessions, Shutdown, SignalRequest, Started,
    StdinError, StdinMode, TtySize, Verdict,
};
pub use session_id::{InvalidSessionId, SessionId};
pub use text::{escape, escape_bytes, escape_json, one_line};
