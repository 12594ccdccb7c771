//! Information about sandboxes.

use super::borrowed::{self, size_of_u32};
use super::doctor::isolation_number;
use super::failure::Failure;
use super::list::{hand_out, list, ms_of};
use super::sandbox_options::MSB_SANDBOX_DETACHED;
use super::sized::Out;
use super::status::msb_status;
use microsandbox::sandbox::{Bounds, SandboxEndReason, SandboxInfo, SandboxStatus};
use std::ffi::{c_char, c_void};
/// Never started.
pub const MSB_STATE_CREATED: u32 = 1;
/// Running.
pub const MSB_STATE_RUNNING: u32 = 2;
/// Stopped or killed on request, or by its options.
pub const MSB_STATE_STOPPED: u32 = 3;
/// Ended unexpectedly.
pub const MSB_STATE_CRASHED: u32 = 4;

/// Every process of the sandbox on the host, except its supervisor, is in a jail with all walls.
pub const MSB_JAILED_YES: u32 = 1;
/// At least one wall is missing.
pub const MSB_JAILED_NO: u32 = 2;

/// Stopped on request.
pub const MSB_REASON_STOPPED: u32 = 1;
/// Killed on request.
pub const MSB_REASON_KILLED: u32 = 2;
/// The sandbox was not detached, and the process that created it ended.
pub const MSB_REASON_CREATOR_GONE: u32 = 3;
/// It reached its maximum duration.
pub const MSB_REASON_MAX_DURATION: u32 = 4;
/// It reached its idle timeout.
pub const MSB_REASON_IDLE: u32 = 5;
/// It crashed.
pub const MSB_REASON_CRASHED: u32 = 6;
/// It failed to boot.
pub const MSB_REASON_BOOT_FAILED: u32 = 7;

/// Resource limits of a sandbox; 0 for unlimited.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_bounds {
    /// `sizeof(msb_bounds)` of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Maximum number of concurrent processes and threads.
    pub pids: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Size of the upper layer in bytes.
    pub disk_bytes: u64,
    /// Number of processors; may be fractional.
    pub cpus: f64,
}

/// A sandbox. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_sandbox_entry {
    /// `sizeof(msb_sandbox_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_STATE_*`.
    pub state: u32,
    /// One of `MSB_ISOLATION_*`; 0 if it was never started.
    pub isolation: u32,
    /// Why it ended: one of `MSB_REASON_*`; 0 if it has not.
    pub reason: u32,
    /// `MSB_SANDBOX_DETACHED` or 0.
    pub flags: u32,
    /// One of `MSB_JAILED_*`; 0 if it never booted.
    pub jailed: u32,
    /// Requested memory in MiB; 0: not set.
    pub memory_mib: u32,
    /// Zero.
    pub reserved: u32,
    /// Requested number of processors; 0: not set.
    pub cpus: f64,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last started, in milliseconds since 1970; 0: never.
    pub started_ms: i64,
    /// Borrowed. Its name.
    pub name: *const c_char,
    /// Borrowed. Its image, a name or a path: bytes.
    pub image: *const c_char,
    /// Borrowed. The driver that runs it, or ran it last; NULL if it was never started.
    pub driver: *const c_char,
    /// Borrowed. Details of its end, one line; NULL if there are none.
    pub detail: *const c_char,
    /// Borrowed. `labels_len` texts `KEY=value`.
    pub labels: *const *const c_char,
    /// Number of elements.
    pub labels_len: usize,
    /// Borrowed. `command_len` texts: the image's default command, its entrypoint followed by its
    /// command. Commands started by a caller do not use it.
    pub command: *const *const c_char,
    /// Number of elements; 0 if the image has none.
    pub command_len: usize,
    /// Borrowed. `missing_walls_len` texts: the missing walls of the jail, each with the reason.
    pub missing_walls: *const *const c_char,
    /// Number of elements.
    pub missing_walls_len: usize,
    /// Borrowed. The limits in force; NULL if it never booted.
    pub bounds: *const msb_bounds,
}

/// A list of sandboxes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_sandbox_entries {
    /// `sizeof(msb_sandbox_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_sandbox_entries_release`. `len` pointers.
    pub entries: *const *const msb_sandbox_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

list!(msb_sandbox_entries of msb_sandbox_entry);

pub(super) fn sandboxes(
    all: Vec<SandboxInfo>,
    out: Out<msb_sandbox_entries>,
) -> Result<msb_status, Failure> {
    hand_out(all, out, |info, backing| {
        let bounds = backing.keep(info.bounds.as_ref().map(bounds_of));
        let texts = &mut backing.texts;
        let labels = info.labels.iter().map(|(key, value)| format!("{key}={value}"));
        msb_sandbox_entry {
            struct_size: size_of_u32::<msb_sandbox_entry>(),
            state: match info.status {
                SandboxStatus::Created => MSB_STATE_CREATED,
                SandboxStatus::Running => MSB_STATE_RUNNING,
                SandboxStatus::Stopped => MSB_STATE_STOPPED,
                SandboxStatus::Crashed => MSB_STATE_CRASHED,
                _ => 0,
            },
            isolation: info.isolation.map_or(0, isolation_number),
            reason: info.end_reason.map_or(0, reason_number),
            flags: if info.detached { MSB_SANDBOX_DETACHED } else { 0 },
            jailed: match info.jailed {
                None => 0,
                Some(true) => MSB_JAILED_YES,
                Some(false) => MSB_JAILED_NO,
            },
            memory_mib: info.memory.unwrap_or(0),
            reserved: 0,
            cpus: info.cpus.unwrap_or(0.0),
            created_ms: ms_of(info.created_at),
            started_ms: info.started_at.map_or(0, ms_of),
            name: texts.text(&info.name),
            image: texts.text(info.image.as_os_str().as_encoded_bytes()),
            driver: texts.text_or_null(info.driver.as_ref()),
            detail: texts.text_or_null(info.end_detail.as_ref()),
            labels: texts.list(labels),
            labels_len: info.labels.len(),
            command: texts.list(&info.default_command),
            command_len: info.default_command.len(),
            missing_walls: texts.list(&info.missing_walls),
            missing_walls_len: info.missing_walls.len(),
            bounds,
        }
    })
}

fn bounds_of(bounds: &Bounds) -> msb_bounds {
    msb_bounds {
        struct_size: size_of_u32::<msb_bounds>(),
        reserved: 0,
        pids: bounds.pids.unwrap_or(0),
        memory_bytes: bounds.memory_bytes.unwrap_or(0),
        disk_bytes: bounds.disk_bytes.unwrap_or(0),
        cpus: bounds.cpus().unwrap_or(0.0),
    }
}

fn reason_number(reason: SandboxEndReason) -> u32 {
    match reason {
        SandboxEndReason::Stopped => MSB_REASON_STOPPED,
        SandboxEndReason::Killed => MSB_REASON_KILLED,
        SandboxEndReason::CreatorGone => MSB_REASON_CREATOR_GONE,
        SandboxEndReason::MaxDuration => MSB_REASON_MAX_DURATION,
        SandboxEndReason::Idle => MSB_REASON_IDLE,
        SandboxEndReason::Crashed => MSB_REASON_CRASHED,
        SandboxEndReason::BootFailed => MSB_REASON_BOOT_FAILED,
        _ => 0,
    }
}

/// Releases a list of sandboxes. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_sandbox_entries_release(list: *mut msb_sandbox_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}
