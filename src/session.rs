//! The sessions of a sandbox.

use super::borrowed::{self, size_of_u32};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::event::exit_of;
use super::event::msb_exec_exit;
use super::failure::Failure;
use super::handle::{get_open, msb_sandbox};
use super::list::{hand_out, list};
use super::sandbox::SandboxObject;
use super::sized::Out;
use super::status::msb_status;
use super::table::Open;
use microsandbox::sandbox::SessionInfo;
use std::ffi::{c_char, c_void};
/// Of a session: it has a terminal.
pub const MSB_SESSION_TTY: u32 = 1;

/// A session. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_entry {
    /// `sizeof(msb_exec_entry)` of the library.
    pub struct_size: u32,
    /// `MSB_SESSION_TTY` or 0.
    pub flags: u32,
    /// Process id in the guest.
    pub pid: u32,
    /// Number of handles that follow it.
    pub followers: u32,
    /// Time since it started, in nanoseconds.
    pub age_ns: u64,
    /// Number of bytes of output.
    pub output_total: u64,
    /// Borrowed. Session id.
    pub id: *const c_char,
    /// Borrowed. `argv_len` texts: the program and its arguments, truncated if very long.
    pub argv: *const *const c_char,
    /// Number of elements.
    pub argv_len: usize,
    /// Borrowed. Its exit status; NULL while it runs.
    pub exit: *const msb_exec_exit,
}

/// A list of sessions.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_entries {
    /// `sizeof(msb_exec_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_exec_entries_release`. `len` pointers.
    pub entries: *const *const msb_exec_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

list!(msb_exec_entries of msb_exec_entry);

fn sessions(all: Vec<SessionInfo>, out: Out<msb_exec_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |info, backing| {
        let exit = backing.keep(info.status.as_ref().map(exit_of));
        msb_exec_entry {
            struct_size: size_of_u32::<msb_exec_entry>(),
            flags: if info.tty { MSB_SESSION_TTY } else { 0 },
            pid: info.pid,
            followers: info.followers,
            age_ns: u64::try_from(info.age.as_nanos()).unwrap_or(u64::MAX),
            output_total: info.output_total,
            id: backing.texts.text(&info.id),
            argv: backing.texts.list(&info.command),
            argv_len: info.command.len(),
            exit,
        }
    })
}

/// Lists the commands that run in a sandbox, and those that ended recently.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_exec_entries_release`.
/// `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet. `MSB_E_LOST`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_list(
    sandbox: *mut msb_sandbox,
    out_list: *mut msb_exec_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let (sandbox, out_list) = (object.sandbox()?, out_list?);
        sessions(waits.run(async move { sandbox.sessions().await })?, out_list)
    })
}

/// Releases a list of sessions. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_exec_entries_release(list: *mut msb_exec_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}
