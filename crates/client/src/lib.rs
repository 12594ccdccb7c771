//! The host's end of a connection to the agent of a sandbox.
//!
//! Owns: the connection and its two tasks, and the queue of events and the input of every command,
//! and every operation on files.
//! Does not own: the runtime that the tasks run on, sandboxes and their state on disk, nor the API
//! of a language.
//!
//! Every wait has three forms: polling, blocking on a condition variable, and a waker or
//! descriptor; none needs an executor. Invariant: the holder of each channel sees exactly one
//! ending, whatever the other side sends.

#![forbid(unsafe_code)]

mod completion;
mod connection;
mod deadlines;
mod error;
mod exec;
mod frames;
mod fs;
mod fs_queue;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod input;
mod link;
mod lost;
mod monitor;
mod origin;
mod queue;
mod sink;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
pub mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

/// Linux's number of SIGKILL.
pub const SIGKILL: i32 = 9;

pub use completion::{Pending, Promise, completion};
pub use connection::{Connection, checked_size};
pub use deadlines::Limits;
pub use error::{Error, check_pid};
pub use exec::{ExecCore, ExecRequest, Next, Received, StdinSource, Turn};
pub use frames::Frames;
pub use fs::{FsCore, FsRefusal};
pub use fs_queue::FsFailure;
pub use link::{Credit, Joined};
pub use lost::ExecLost;
pub use monitor::{Monitor, Ready, Until, lock};
pub use origin::Origin;
pub use queue::{Batch, Event, StreamEnd};
pub use sink::SinkCore;
