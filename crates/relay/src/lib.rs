//! Multiplexes connections over the one byte stream into a virtual machine (virtio-serial).
//!
//! ```text
//!  clients ── agent.sock ──> host side ══ port, frames ══> guest side ── socket pairs ──> agent
//! ```
//!
//! Owns: the frames on the port, the credit of each connection and direction, and the shutdown
//! message by which the host distinguishes an orderly end from a crash. Does not own: the content
//! of the connections, which is the agent's protocol and passes unread, nor the machine.
//!
//! Invariant: neither peer sends more on a connection than the other has room for. So a connection
//! without a reader delays no other one, and memory is bounded by the number of connections times
//! [`WINDOW`].
//!
//! The guest is untrusted: an invalid or unexpected frame ends the host's side with a typed error.

#![forbid(unsafe_code)]

mod credit;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod port;
mod side;

pub use frame::{FrameError, Hello, NONCE, WINDOW, announcement};
pub use port::{Device, Port};
pub use side::{End, Guest, RelayError, Shutdown, guest, host};
