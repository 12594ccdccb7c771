//! Many connections over the one stream that leads into a virtual machine (virtio-serial).
//!
//! ```text
//!  clients ── agent.sock ──> host side ══ port, frames ══> guest side ── socket pairs ──> agent
//! ```
//!
//! Owns: the frames on the port, the credit of each connection and direction, and the farewell by
//! which the host tells a wanted end from a crash. Does not own: what the connections carry, which
//! is the agent's protocol and goes through unread, nor the machine.
//!
//! Invariant: nobody sends more on a connection than the other side has room for, so that a
//! connection that is not read delays no other one, and memory is bounded by the number of
//! connections times [`WINDOW`].
//!
//! The guest is not trusted: whatever it sends that is no frame, or is one out of turn, ends the
//! host's side with a typed error.

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
pub use side::{End, Farewell, Guest, RelayError, guest, host};
