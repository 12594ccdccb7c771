//! Attaching the host's terminal to a session.
//!
//! Owns: the terminal's settings during an attach, the thread `msb-attach` that copies between
//! terminal and session, and the detach keys. Does not own: the session, which continues after a
//! detach. Invariant: however an attach ends, the terminal's settings are restored before the end
//! is reported, and no byte typed after the detach keys is read.
//!
//! One thread polls the terminal, the session's events, the session's input, and a descriptor that
//! stops it. The library installs no signal handlers, so it polls the window size ten times a
//! second.

mod bridge;
mod guard;
mod keys;
mod modes;
mod options;
mod terminal;

pub use bridge::AttachOutcome;
pub(crate) use bridge::{Session, attach};
pub(crate) use keys::DetachKeys;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use keys::fuzzing;
pub use options::{AttachOptions, AttachOptionsBuilder};
pub(crate) use terminal::Claim;
pub use terminal::restore_terminal;
