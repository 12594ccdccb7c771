//! The host's terminal, tied to a session.
//!
//! Owns: the terminal's settings while it is tied, the thread `msb-attach` that carries bytes
//! between the two, and the keys that part them. Does not own: the session, which lives on when
//! they part. Invariant: however an attach ends, the terminal has its settings back before anybody
//! hears of the end, and no byte is taken from it that was typed behind the detach keys.
//!
//! One thread does all of it, by polling: the terminal, the session's events, the session's input,
//! and a descriptor that tells it to stop. The library installs no signal handlers, so it learns of
//! a new window size by looking, ten times a second.

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
