//! The driver that runs a sandbox as a virtual machine of QEMU, with the processor's own
//! virtualisation or, where there is none, in software.
//!
//! ```text
//!  msb-runner ─ relay ══ virtio-serial ══ agent (PID 1)
//!     ├ qemu-system-x86_64   kernel and initramfs by -kernel, the sandbox's layer as a disk
//!     └ virtiofsd            shows the image, read-only
//! ```
//!
//! Owns: the search for a kernel, the initramfs, QEMU's command line, and the two processes. Does
//! not own: the relay (a crate of its own) nor what the guest does (the agent's `machine`).
//!
//! Invariant: both processes end with the runner, however that ends, and each takes the other
//! along; an end is orderly only if the agent said good-bye.
//!
//! Emulation is asked for by name only: QEMU's own documentation does not call its emulator a
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
