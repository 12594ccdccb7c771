//! Byte-stream connections between the host library and the agent.
//!
//! Owns: the kinds of stream, and non-blocking reads and writes on them. Does not own: frames (the
//! `wire` crate) or the order of messages (the client, the agent). Everything takes `&self` and
//! works on any thread, so that a caller writes at once and only a full socket needs the I/O
//! thread.

#![forbid(unsafe_code)]

pub mod memory;
mod outbox;
mod stream;

pub use outbox::Outbox;
pub use stream::{Listener, Stream};
