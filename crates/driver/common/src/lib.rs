//! What the drivers share, so that none of them needs another one.
//!
//! Owns: waiting for child processes, and what every virtual machine is made from: the search for a
//! guest kernel, the disk that holds the sandbox's own layer, and what the guest is told. Does not
//! own: any machine.

#![forbid(unsafe_code)]

mod disk;
mod driver;
mod guest;
mod hold;
mod krunfw;
mod kvm;
mod process;

pub use disk::{make_disk, probe_disk};
pub use driver::{BoxFuture, Driver, Exit, Machine, MachineSpec, Root, Users, choose};
pub use guest::{Guest, IMAGE_TAG, MEMORY_MIB, PORT_NAME};
pub use hold::{hold, largest_file, let_go};
pub use krunfw::{KernelBundle, Krunfw, find_krunfw};
pub use kvm::kvm;
pub use process::{Bound, Ended, on_path, watch};
