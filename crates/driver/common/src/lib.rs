//! The `Driver` trait, and what the drivers share.
//!
//! Owns: the traits [`Driver`] and [`Machine`], the choice of a driver, the wait for child
//! processes, what OCI configurations share, the records of trials, and the parts of a virtual machine: the search for a guest kernel, the disk of the
//! upper layer, and the guest's options. Does not own: any machine.

#![forbid(unsafe_code)]

mod bounds;
mod disk;
mod driver;
mod guest;
mod krunfw;
mod kvm;
mod mountpoints;
mod mounts;
pub mod oci;
mod open_mount;
mod process;
mod protection;
mod relay;
mod trial;

pub use bounds::{Controllers, MissingBounds, unbounded_disk};
pub use disk::{create_disk, probe_disk};
pub use driver::{BoxFuture, Driver, Exit, Machine, MachineSpec, Root, Users, choose};
pub use guest::{Guest, IMAGE_TAG, MEMORY_MIB, PORT_NAME};
pub use krunfw::{KernelBundle, Krunfw, find_krunfw};
pub use kvm::kvm;
pub use mountpoints::{Hosts, prepare_mount_points};
pub use mounts::{PlacedMount, attach_mounts, check_mounts};
pub use open_mount::OpenMount;
pub use process::{ChildExit, KillOnDrop, kill, on_path, watch};
pub use protection::{apply_limits, group_name, largest_file, remove_limits};
pub use relay::{Relay, RelayEnd};
pub use trial::{TrialLock, TrialRecord};
