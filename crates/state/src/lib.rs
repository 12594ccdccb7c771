//! Sandboxes on the host: their state on disk, and how they are started.
//!
//! Owns: the state directory of every sandbox, the lock that is held while it runs, the search for
//! the companion programs, the start of `msb-runner`, the control protocol with it, and the files
//! of the session log. Does not own: the machine (the runner and its drivers do) nor the protocol
//! with the agent.
//!
//! Invariant: a sandbox is *running* exactly while its runner holds the lock in its directory.
//! Everything else on disk may be stale after a process was killed; every call here reads such a
//! state correctly and cleans it up.
//!
//! All calls block; none uses a process-wide lock, the standard streams or signals.

#![deny(unsafe_code)]

mod bounds;
mod byte_string;
mod clock;
mod companions;
mod config;
mod control;
mod copy_task;
mod dirs;
mod error;
mod gvisor;
mod home;
mod image_task;
mod kernel;
mod launch;
mod lock;
mod log;
mod mounts;
mod name;
mod records;
mod report;
mod runner;
mod signal;
mod socket;
mod store;
#[allow(unsafe_code, reason = "system calls that have no safe wrapper")]
mod sys;
mod tool;
mod tree;
mod trust;
mod volume_spec;
mod volumes;

pub use bounds::{Bounds, Cpus, DEFAULT_DISK_MIB, DEFAULT_PIDS, Protection, Security, memory_mib};
pub use byte_string::ByteString;
pub use clock::now_ms;
pub use companions::{Companions, find_companion};
pub use config::{
    CONFIG_VERSION, DriverChoice, LogConfig, SandboxConfig, jail_is_required, resolve_boot_timeout,
};
pub use control::{Control, Reply, Request};
pub use copy_task::{
    COPY_COMMIT, Copied, CopyFailure, CopyFailureKind, CopyOrder, CopyReport, CopyTask,
    begin_copy_task,
};
pub use dirs::{create_private_dir, retire, write_atomically};
pub use error::{Error, ErrorKind, Failure, FailureKind, Result};
pub use gvisor::{Gvisor, build_gvisor};
pub use home::{Home, SandboxDir};
pub use image_task::{IMAGE_MEMORY, ImageProcess, ImageTask, begin_image_task};
pub use kernel::fetch_kernel;
pub use launch::{
    CreateOptions, Pending, Ready, StatusRecord, check_driver, check_new, create, doctor, start,
};
pub use lock::SandboxLock;
pub use log::{LogEvent, LogOptions, LogReader, LogRecord, LogSource, LogStep, LogWriter};
pub use mounts::{Mount, MountSource, Owner, VolumeCreation, is_mountable, tmpfs_bytes};
pub use name::{InvalidName, Name};
pub use records::{Creator, Outcome, Reason, Started, Status, Stored};
pub use report::{DriverReport, HostReport, Isolation, Probe, WallReport};
pub use signal::Signal;
pub use socket::{bind_in, connect_in};
pub use store::{Info, get, list, remove, sweep};
pub use tree::remove_tree;
pub use trust::check_trusted;
pub use volume_spec::{NewVolume, VolumeKind, volume_name};
pub use volumes::{
    Volume, create_volume, prune_volumes, remove_volume, volume, volume_users, volumes,
};
