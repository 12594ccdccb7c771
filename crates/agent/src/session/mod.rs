//! A session: one run of a command, from its start to the last byte of output that is kept.
//!
//! Owns the state that outlives connections: the process, its recent output, its pending input, its
//! followers. `start` creates the process, `pump` moves the bytes, `output_state` decides when exit
//! and end of output are reported. Invariant: the pump reads output only while no follower is
//! behind, so the replay never drops a byte that was not sent.

mod follower;
mod kill;
mod output_state;
mod pump;
mod replay;
mod start;
mod state;
mod stdin;
mod streams;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use output_state::{Actions, Input, OutputState};
pub(crate) use pump::{Times, run};
pub(crate) use start::{not_admitted, start, unknown_user};
pub(crate) use state::{Session, shown_argv};
