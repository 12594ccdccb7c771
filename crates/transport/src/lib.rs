//! Byte-stream connections between the host library and the agent.
//!
//! Owns: what kinds of stream there are and how bytes get in and out of them without waiting. Does
//! not own: frames (the `wire` crate) or who talks when (the client, the agent). Everything works
//! on `&self` and from any thread, so that whoever has bytes can write them at once and only a
//! full socket needs the I/O thread.

#![forbid(unsafe_code)]

pub mod memory;
mod outbox;
mod stream;

pub use outbox::Outbox;
pub use stream::{Listener, Stream};
