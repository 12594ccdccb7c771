//! The driver that runs a sandbox as a microVM of libkrun.
//!
//! ```text
//!  clients ── agent.sock ══ vsock 1024 ══ agent (PID 1)       libkrun maps one to the other
//!  msb-runner ── control.sock ══ vsock 1025 ══ agent          "up", what time it is, "bye"
//!     └ msb-runner vmm     becomes the VMM, since `krun_start_enter` never returns
//! ```
//!
//! Owns: whether libkrun can be used here, the VMM's command line, its jail and its end. Does not
//! own: the calls into libkrun, which are unsafe and in the runner's `vmm`, nor what the guest does
//! (the agent's `machine`).
//!
//! Invariant: the VMM ends with the runner, however that ends; an end is orderly only if the agent
//! said good-bye.

#![forbid(unsafe_code)]

mod control;
mod driver;
mod jail;
mod machine;
mod vmm;

pub use driver::{KrunDriver, Settings};
pub use vmm::{AGENT_PORT, AGENT_SOCKET, CONTROL_PORT, CONTROL_SOCKET, DISK, IMAGE, SOCKETS, Vmm};
