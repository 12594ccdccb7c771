//! Collected output of a command.

use super::borrowed::{self, Borrowed, Released, no_owner};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::event::{
    MSB_EVENT_CUT, MSB_EVENT_WRITER_LEFT, OwnedEnding, end_flags, msb_exec_exit, msb_exec_failure,
};
use super::failure::wrong;
use super::handle::{get, msb_exec};
use super::sized::{Out, sized};
use super::status::{MSB_AGAIN, MSB_E_LIMIT, msb_status};
use super::wait::Timeout;
use microsandbox::pull::{Exec, Gathered, Stream};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

/// Of an output: `max_output` truncated it.
pub const MSB_OUTPUT_TRUNCATED: u32 = 4;
const _: () = assert!(MSB_OUTPUT_TRUNCATED & (MSB_EVENT_WRITER_LEFT | MSB_EVENT_CUT) == 0);

/// Exit status and collected output of a command. All pointers are borrowed until
/// `msb_output_release`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_output {
    /// `sizeof(msb_output)`.
    pub struct_size: u32,
    /// How it ended: `MSB_EVENT_EXITED`, `MSB_EVENT_FAILED` or `MSB_EVENT_LOST`.
    pub kind: u32,
    /// With `MSB_EVENT_EXITED`; else NULL. `MSB_EXIT_TIMED_OUT` in its flags reports a timeout.
    pub exit: *const msb_exec_exit,
    /// With `MSB_EVENT_FAILED`; else NULL.
    pub failure: *const msb_exec_failure,
    /// With `MSB_EVENT_LOST`, the reason, one line of `lost_len` bytes; else NULL.
    pub lost: *const u8,
    /// Length in bytes.
    pub lost_len: usize,
    /// Standard output; with a terminal, all output. NULL if it is empty.
    pub stdout_data: *const u8,
    /// Length in bytes.
    pub stdout_len: usize,
    /// Bytes written to standard output, including those beyond `max_output`.
    pub stdout_total: u64,
    /// Standard error. NULL if it is empty.
    pub stderr_data: *const u8,
    /// Length in bytes.
    pub stderr_len: usize,
    /// Bytes written to standard error, including those beyond `max_output`.
    pub stderr_total: u64,
    /// `MSB_OUTPUT_TRUNCATED`, `MSB_EVENT_WRITER_LEFT`, `MSB_EVENT_CUT`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

sized!(msb_output, owner);

const NO_OUTPUT: msb_output = msb_output {
    struct_size: 0,
    kind: 0,
    exit: ptr::null(),
    failure: ptr::null(),
    lost: ptr::null(),
    lost_len: 0,
    stdout_data: ptr::null(),
    stdout_len: 0,
    stdout_total: 0,
    stderr_data: ptr::null(),
    stderr_len: 0,
    stderr_total: 0,
    flags: 0,
    reserved: 0,
    owner: ptr::null_mut(),
};

impl Released for msb_output {
    fn owner(&self) -> *mut c_void {
        self.owner
    }

    fn emptied(&self) -> msb_output {
        msb_output { kind: self.kind, owner: no_owner(), ..NO_OUTPUT }
    }
}

/// The memory that an output's pointers refer to.
#[derive(Debug)]
struct Collected {
    ending: OwnedEnding,
    output: Gathered,
}

impl Collected {
    /// Returns the output without an owner. Its pointers are valid while this does not move.
    fn shown(&self) -> msb_output {
        let event = self.ending.event();
        let Gathered { stdout, stderr } = &self.output;
        let cut = |stream: &Stream| if stream.is_cut() { MSB_OUTPUT_TRUNCATED } else { 0 };
        msb_output {
            kind: event.kind,
            exit: event.exit,
            failure: event.failure,
            lost: event.data,
            lost_len: event.len,
            stdout_data: borrowed::start_of(&stdout.data),
            stdout_len: stdout.data.len(),
            stdout_total: stdout.total,
            stderr_data: borrowed::start_of(&stderr.data),
            stderr_len: stderr.data.len(),
            stderr_total: stderr.total,
            flags: cut(stdout) | cut(stderr),
            ..NO_OUTPUT
        }
    }
}

/// Waits for the exit of a command and the end of its output, up to `timeout_ms`, and collects the
/// output that was not received before. One thread at a time.
///
/// A command that failed to start, timed out or lost its sandbox is not a failure of this call:
/// `out_output->kind` and `out_output->exit` report it, together with the output so far. The
/// command continues to run if the caller stops waiting; `msb_exec_signal` kills it.
///
/// `MSB_OK`: `*out_output` is filled; release it with `msb_output_release`. Afterwards
/// `msb_exec_recv` returns `MSB_EOF`, and a second output has the same end and no bytes.
/// `MSB_AGAIN`: not yet; the next call continues with what was collected. `MSB_E_BUSY` and
/// `MSB_E_CLOSED` as with `msb_exec_recv`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_collect(
    exec: *mut msb_exec,
    timeout_ms: i64,
    out_output: *mut msb_output,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_output = unsafe { Out::new(out_output) };
    boundary(err, || {
        let (exec, out_output) = (get::<Exec, _>(exec)?, out_output?);
        if !borrowed::has_room(1) {
            return Err(wrong(MSB_E_LIMIT, "hundreds of thousands of outputs are not released"));
        }
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        let Some((ending, output, end)) = exec.collect(deadline)? else { return Ok(MSB_AGAIN) };
        let ending = OwnedEnding::new(&ending);
        let collected = Box::new(Collected { ending, output });
        let shown = collected.shown();
        let owner = borrowed::keep(Arc::new(Borrowed::Other(collected)))?;
        let flags = shown.flags | end_flags(end);
        Ok(out_output.write(&msb_output { flags, owner, ..shown }))
    })
}

/// Releases an output. NULL and a released one are no-ops; afterwards its pointers are NULL. Any
/// thread, also after the exec was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_output_release(output: *mut msb_output) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(output) }
}
