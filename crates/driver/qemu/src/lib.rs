//! The driver that runs a sandbox as a virtual machine of QEMU, with hardware virtualisation if
//! there is any, else emulated.
//!
//! ```text
//!  msb-runner ─ relay ══ virtio-serial ══ agent (PID 1)
//!     ├ qemu-system-x86_64   kernel and initramfs by -kernel, the upper layer as a disk
//!     └ virtiofsd            serves the image, read-only
//! ```
//!
//! Owns: the search for a kernel, the initramfs, QEMU's command line, and the two processes. Does
//! not own: the relay (a separate crate) nor the guest's side (the agent's `machine`).
//!
//! Invariant: both processes die with the runner and with each other; an exit is orderly only after
//! the agent's shutdown message.
//!
//! Emulation has to be requested by name: QEMU's documentation does not call its emulator a
//! security boundary.

#![forbid(unsafe_code)]

mod arguments;
mod cpio;
mod driver;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod jail;
mod kernel;
mod machine;
mod modules;
mod qmp;

pub use driver::{QemuDriver, Settings};
