//! The agent as the init process of a virtual machine.
//!
//! ```text
//!  initramfs or a file system of libkrun's, with nothing in it but the agent
//!    └ /msb  tmpfs:  lower  the image, by virtiofs, read-only
//!                    disk   the sandbox's upper layer, ext4 on the first block device
//!                    root   both in an overlay; becomes /
//! ```
//!
//! Owns: mounts, host name, loopback, clock, the link to the host, and the power-off. Does not own:
//! what happens once the host can connect, which is the same in every kind of sandbox.
//!
//! Invariant: the machine ends when the agent does. The host learns of an orderly end before; an
//! end without that is a crash.

mod boot;
mod host;
mod mounts;

pub use boot::{Settings, prepare, reset};
pub use host::HostLink;
pub(crate) use host::{Listener, Shutdown};
pub use mounts::show_own_tmp;
