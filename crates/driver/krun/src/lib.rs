//! The driver that runs a sandbox as a microVM of libkrun.
//!
//! ```text
//!  clients ── agent.sock ══ vsock 1024 ══ agent (PID 1)       libkrun maps one to the other
//!  msb-runner ── control.sock ══ vsock 1025 ══ agent          "up", the time, "bye"
//!     └ msb-runner vmm     becomes the VMM, since `krun_start_enter` never returns
//! ```
//!
//! Owns: the probe for libkrun, the VMM's command line, its jail and its exit. Does not own: the
//! calls into libkrun, which are unsafe and in the runner's `vmm`, nor the guest's side (the
//! agent's `machine`).
//!
//! Invariant: the VMM dies with the runner; an exit is orderly only after the agent's "bye".

#![forbid(unsafe_code)]

mod control;
mod driver;
mod jail;
mod machine;
mod vmm;

pub use driver::{KrunDriver, Settings};
pub use vmm::{AGENT_PORT, AGENT_SOCKET, CONTROL_PORT, CONTROL_SOCKET, DISK, IMAGE, SOCKETS, Vmm};
