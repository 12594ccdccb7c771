//! The host's side of a connection to a sandbox.
//!
//! Owns: the connection and its two tasks on the I/O thread, and the queue of events and the input
//! of every command. Does not own: sandboxes and their state on disk, nor the API of a language.
//!
//! Every wait has three forms: polling, blocking on a condition variable, and a waker or
//! descriptor; none needs an executor. Invariant: the holder of each channel sees exactly one
//! ending, whatever the other side sends.
//! channel that was opened, its holder sees exactly one ending, whatever the other side sends.

mod completion;
mod connection;
mod deadlines;
mod exec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod input;
mod link;
mod monitor;
mod queue;
mod sink;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// Linux's number of SIGKILL.
pub(crate) const SIGKILL: i32 = 9;

pub use completion::{Pending, Promise, completion};
pub(crate) use connection::{Connection, checked_size};
pub(crate) use deadlines::Limits;
pub(crate) use exec::{ExecCore, ExecRequest, Next, Received, StdinSource};
pub use link::Credit;
pub(crate) use link::Joined;
pub(crate) use monitor::lock;
pub use monitor::{Monitor, Ready};
pub(crate) use queue::Event;
pub use queue::{Batch, StreamEnd};
pub(crate) use sink::SinkCore;
