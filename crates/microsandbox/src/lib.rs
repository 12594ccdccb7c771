//! Runs commands in isolated sandboxes, and reports every byte, exit and failure exactly once.
//!
//! ```no_run
//! use microsandbox::Sandbox;
//!
//! # async fn example() -> microsandbox::MicrosandboxResult<()> {
//! let sb = Sandbox::builder("api").image("./rootfs").create().await?;
//! let out = sb.exec("python", ["-c", "print('hi')"]).await?;
//! println!("{}", out.stdout()?);
//! sb.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The futures of this crate run on any executor: the library does its I/O on a thread of its own,
//! and a future only waits for a notification from it.

#![forbid(unsafe_code)]

mod attach;
mod completion;
mod doctor;
mod error;
mod event;
mod exec;
mod files;
mod fs_failed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
mod library;
mod mount;
mod options;
mod output;
pub mod pull;
mod reattach;
mod record;
mod runtime;
pub mod sandbox;
mod sink;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
mod tests;
mod volume;

pub use attach::{AttachOptions, AttachOptionsBuilder, AttachOutcome, restore_terminal};
pub use doctor::{
    DriverReport, GvisorSetup, HostReport, WallReport, doctor, setup_gvisor, setup_kernel,
};
pub use error::{Error, ErrorKind, MicrosandboxError, MicrosandboxResult, Origin};
pub use event::{ExecEvent, ExecFailed, ExecLost, ExecStdinError};
pub use exec::{ExecControl, ExecHandle};
pub use files::{
    Fs, FsCopied, FsCopyOptions, FsEntry, FsEntryKind, FsEvent, FsEventKind, FsHandle, FsMetadata,
    FsOpenOptions, FsReadStream, FsSetAttrs, FsWatch, FsWriteOptions, FsWriteSink, SandboxFsOps,
};
pub use fs_failed::FsFailed;
pub use image::{
    BuildOptions, Image, ImageInfo, ImageOperation, ImagePhase, ImageProgress, PruneReport,
    PullPolicy,
};
pub use mount::{DiskImageFormat, MountBuilder, NamedVolumeBuilder, VolumeMount};
pub use msb_state::{MountSource, Owner, VolumeCreation};
pub use msb_wire::{
    FailureKind as ExecFailureKind, FsErrorKind as FsFailureKind, Stage as ExecStage,
};
#[doc(hidden)]
pub use msb_wire::{escape, escape_json};
pub use options::{ExecOptions, ExecOptionsBuilder, Rlimit, RlimitResource};
pub use output::{ExecOutput, ExitStatus, ResourceUsage};
pub use reattach::ReattachFrom;
pub use sandbox::{
    Attachment, Bounds, Cpus, LogEvent, LogOptions, LogRecord, LogSource, LogStream, Sandbox,
    SandboxBuilder, SandboxInfo, SandboxStatus, Security, SessionInfo, Signal, logs,
};
pub use sink::ExecSink;
pub use volume::{Volume, VolumeBuilder, VolumeConfig, VolumeHandle, VolumeKind};
