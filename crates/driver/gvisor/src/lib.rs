//! The driver that runs a sandbox under gVisor, which needs no hardware virtualisation.
//!
//! ```text
//!  msb-runner ─ relay ══ socket ══ agent (PID 1)
//!     └ runsc run     in a jail, with
//!          ├ gofer    opens the files of the root
//!          └ sentry   the sandbox's kernel and its processes
//! ```
//!
//! Owns: the search for `runsc` and its probe, its jail, the sandbox's OCI configuration, and the
//! processes. Does not own: the relay (`msb-driver`) nor the guest's side (the agent).
//!
//! Invariants: every process of `runsc` is in one PID namespace whose first process dies with the
//! runner; an exit is orderly only after the agent's shutdown message.

#![forbid(unsafe_code)]

mod bundle;
mod driver;
mod machine;
mod probe;
mod runsc;
mod settings;
mod spec;

pub use driver::GvisorDriver;
pub use settings::Settings;
