//! What commands tell.

use super::boundary::{ErrorOut, Failure, Out, Sized32, boundary, size_through, wrong};
use super::error::msb_error;
use super::handle::{Object, as_handle, get, msb_exec, open, remove};
use super::status::{MSB_AGAIN, MSB_E_LIMIT, MSB_EOF, MSB_OK, msb_status};
use super::wait::Timeout;
use crate::client::{Credit, Event, ExecCore, Next, Received, StreamEnd};
use crate::event::ExecFailed;
use bytes::Bytes;
use msb_wire::{Exited, OutputStream};
use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::Arc;

/// Running; `value` is its process id in the guest.
pub const MSB_EVENT_STARTED: u32 = 1;
/// `data` holds bytes it wrote to standard output; with a terminal, everything.
pub const MSB_EVENT_STDOUT: u32 = 2;
/// `data` holds bytes it wrote to standard error.
pub const MSB_EVENT_STDERR: u32 = 3;
/// It no longer reads its input; `value` is the guest's `errno`. It may run on.
pub const MSB_EVENT_STDIN_ERROR: u32 = 4;
/// It ended; `value` is its exit code, -1 for a death by signal; `exit` tells more. Only output
/// of other processes that still hold its output may come behind it.
pub const MSB_EVENT_EXITED: u32 = 5;
/// It never ran; `value` is the guest's `errno`; `failure` tells more. Last.
pub const MSB_EVENT_FAILED: u32 = 6;
/// The sandbox went first: how it ended is not known. `data` holds the reason, one line. Last.
pub const MSB_EVENT_LOST: u32 = 7;

/// Of the end of the stream: some other process still had the output open.
pub const MSB_EVENT_WRITER_LEFT: u32 = 1;
/// Of the end of the stream: the connection was lost after the exit.
pub const MSB_EVENT_CUT: u32 = 2;

/// Of an exit: it left a core dump.
pub const MSB_EXIT_CORE_DUMPED: u32 = 1;
/// Of an exit: its time had run out, and it was killed for it.
pub const MSB_EXIT_TIMED_OUT: u32 = 2;

/// How a command ended, and what it used; the children that it waited for included.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_exit {
    /// `sizeof(msb_exec_exit)` of the library.
    pub struct_size: u32,
    /// Exit code; -1 for a death by signal.
    pub code: i32,
    /// Number of the signal that killed it; 0 for none.
    pub signal: i32,
    /// `MSB_EXIT_*`.
    pub flags: u32,
    /// CPU time in user mode, in nanoseconds.
    pub user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub system_ns: u64,
    /// Time from start to exit, in nanoseconds.
    pub wall_ns: u64,
    /// Largest resident size, in bytes.
    pub max_rss: u64,
}

/// There is no such program.
pub const MSB_FAILURE_NOT_FOUND: u32 = 1;
/// The program may not be executed by this user.
pub const MSB_FAILURE_PERMISSION_DENIED: u32 = 2;
/// Not something that the kernel can run, or its interpreter is missing.
pub const MSB_FAILURE_NOT_EXECUTABLE: u32 = 3;
/// The working directory cannot be entered.
pub const MSB_FAILURE_BAD_CWD: u32 = 4;
/// Arguments or environment are too long, or the path cannot be resolved.
pub const MSB_FAILURE_BAD_ARGS: u32 = 5;
/// A limit on processes or descriptors, or a refused `setrlimit`.
pub const MSB_FAILURE_RESOURCE_LIMIT: u32 = 6;
/// The user or group is unknown, or may not be taken on.
pub const MSB_FAILURE_USER_SETUP_FAILED: u32 = 7;
/// Not enough memory.
pub const MSB_FAILURE_OUT_OF_MEMORY: u32 = 8;
/// No pseudo-terminal could be had.
pub const MSB_FAILURE_PTY_SETUP_FAILED: u32 = 9;
/// Anything else.
pub const MSB_FAILURE_OTHER: u32 = 10;

/// Why a command never ran. All pointers are borrowed until `msb_event_release`, and never NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_failure {
    /// `sizeof(msb_exec_failure)` of the library.
    pub struct_size: u32,
    /// One of `MSB_FAILURE_*`.
    pub kind: u32,
    /// The guest's `errno`; 0 when no system call failed.
    pub os_error: i32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. Name of the kind: `"not_found"`.
    pub kind_name: *const c_char,
    /// Borrowed. The step that failed: `"execve"`, `"chdir"`, ...
    pub stage: *const c_char,
    /// Borrowed. Name of the errno: `"ENOENT"`; empty when it is 0.
    pub os_error_name: *const c_char,
    /// Borrowed. One line for people.
    pub message: *const c_char,
    /// Borrowed. The program, directory or name that the step was about: bytes.
    pub path: *const c_char,
}

/// One event of a command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_event {
    /// `sizeof(msb_event)`.
    pub struct_size: u32,
    /// One of `MSB_EVENT_*`, 0 at the end of the stream. Ignore what you do not know.
    pub kind: u32,
    /// A number whose meaning `kind` gives.
    pub value: i64,
    /// Bytes, borrowed until `msb_event_release`.
    pub data: *const u8,
    /// How many bytes.
    pub len: usize,
    /// With `MSB_EVENT_EXITED`, borrowed until `msb_event_release`; else NULL.
    pub exit: *const msb_exec_exit,
    /// With `MSB_EVENT_FAILED`, borrowed until `msb_event_release`; else NULL.
    pub failure: *const msb_exec_failure,
    /// At the end of the stream: `MSB_EVENT_WRITER_LEFT`, `MSB_EVENT_CUT`.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

// SAFETY: `repr(C)`, starts with its size, and holds numbers and raw pointers only.
unsafe impl Sized32 for msb_event {
    const NAME: &'static str = "msb_event";
    const FIRST_SIZE: usize = size_through!(msb_event, owner, *mut c_void);
}

/// What an event's pointers point to, and the credit that goes back with it.
#[derive(Debug)]
pub(super) struct Loan {
    data: Bytes,
    exit: Option<msb_exec_exit>,
    failure: Option<OwnedFailure>,
    _credit: Credit,
}

#[derive(Debug)]
struct OwnedFailure {
    shown: msb_exec_failure,
    _texts: [CString; 5],
}

// SAFETY: the raw pointers in `shown` point into `_texts`, whose heap memory is never changed or
// moved while this lives.
unsafe impl Send for OwnedFailure {}
// SAFETY: as above; it is only ever read.
unsafe impl Sync for OwnedFailure {}

impl OwnedFailure {
    fn new(failed: &ExecFailed) -> OwnedFailure {
        let text = |bytes: &[u8]| {
            let until_nul = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            CString::new(until_nul).unwrap_or_default()
        };
        let texts = [
            text(failed.kind.name().as_bytes()),
            text(failed.stage.name().as_bytes()),
            text(failed.errno_name.as_bytes()),
            text(failed.message.as_bytes()),
            text(&failed.path),
        ];
        let [kind_name, stage, os_error_name, message, path] = &texts;
        let shown = msb_exec_failure {
            struct_size: size_of_u32::<msb_exec_failure>(),
            kind: kind_number(failed.kind),
            os_error: failed.errno,
            reserved: 0,
            kind_name: kind_name.as_ptr(),
            stage: stage.as_ptr(),
            os_error_name: os_error_name.as_ptr(),
            message: message.as_ptr(),
            path: path.as_ptr(),
        };
        OwnedFailure { shown, _texts: texts }
    }
}

fn kind_number(kind: crate::ExecFailureKind) -> u32 {
    use crate::ExecFailureKind as Kind;
    match kind {
        Kind::NotFound => MSB_FAILURE_NOT_FOUND,
        Kind::PermissionDenied => MSB_FAILURE_PERMISSION_DENIED,
        Kind::NotExecutable => MSB_FAILURE_NOT_EXECUTABLE,
        Kind::BadCwd => MSB_FAILURE_BAD_CWD,
        Kind::BadArgs => MSB_FAILURE_BAD_ARGS,
        Kind::ResourceLimit => MSB_FAILURE_RESOURCE_LIMIT,
        Kind::UserSetupFailed => MSB_FAILURE_USER_SETUP_FAILED,
        Kind::OutOfMemory => MSB_FAILURE_OUT_OF_MEMORY,
        Kind::PtySetupFailed => MSB_FAILURE_PTY_SETUP_FAILED,
        _ => MSB_FAILURE_OTHER,
    }
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

fn exit_of(exited: &Exited) -> msb_exec_exit {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    msb_exec_exit {
        struct_size: size_of_u32::<msb_exec_exit>(),
        code: exited.code,
        signal: exited.signal.map_or(0, i32::from),
        flags: flag(exited.core_dumped, MSB_EXIT_CORE_DUMPED)
            | flag(exited.timed_out, MSB_EXIT_TIMED_OUT),
        user_ns: exited.user_ns,
        system_ns: exited.system_ns,
        wall_ns: exited.wall_ns,
        max_rss: exited.max_rss,
    }
}

const NO_EVENT: msb_event = msb_event {
    struct_size: 0,
    kind: 0,
    value: 0,
    data: ptr::null(),
    len: 0,
    exit: ptr::null(),
    failure: ptr::null(),
    flags: 0,
    reserved: 0,
    owner: ptr::null_mut(),
};

/// Puts an event into the caller's form. What it points to is kept until it is released.
fn lend(received: Received) -> Result<msb_event, Failure> {
    let Received { event, credit } = received;
    let (kind, value, data) = match &event {
        Event::Started { pid } => {
            return Ok(msb_event { kind: MSB_EVENT_STARTED, value: i64::from(*pid), ..NO_EVENT });
        }
        Event::StdinError(error) => {
            let (kind, value) = (MSB_EVENT_STDIN_ERROR, i64::from(error.errno));
            return Ok(msb_event { kind, value, ..NO_EVENT });
        }
        Event::Output(OutputStream::Stdout, data) => (MSB_EVENT_STDOUT, 0, data.clone()),
        Event::Output(OutputStream::Stderr, data) => (MSB_EVENT_STDERR, 0, data.clone()),
        Event::Exited(exited) => (MSB_EVENT_EXITED, i64::from(exited.code), Bytes::new()),
        Event::Failed(failure) => (MSB_EVENT_FAILED, i64::from(failure.errno), Bytes::new()),
        Event::Lost(lost) => (MSB_EVENT_LOST, 0, Bytes::from(lost.message.clone())),
    };
    let exit = if let Event::Exited(exited) = &event { Some(exit_of(exited)) } else { None };
    let failure = match event {
        Event::Failed(failure) => Some(OwnedFailure::new(&failure.into())),
        _ => None,
    };
    let loan = Arc::new(Loan { data, exit, failure, _credit: credit });
    // Pointers into the loan stay good while the table keeps it, which is until the release.
    let (data, len) = (loan.data.as_ptr(), loan.data.len());
    let exit = loan.exit.as_ref().map_or(ptr::null(), ptr::from_ref);
    let failure = loan.failure.as_ref().map_or(ptr::null(), |owned| ptr::from_ref(&owned.shown));
    let owner = open(loan)?;
    Ok(msb_event { kind, value, data, len, exit, failure, owner, ..NO_EVENT })
}

fn end(end: StreamEnd) -> msb_event {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(end.writer_left, MSB_EVENT_WRITER_LEFT) | flag(end.cut, MSB_EVENT_CUT);
    msb_event { flags, ..NO_EVENT }
}

/// Take the next event. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// The events of a command are STARTED, any number of STDOUT, STDERR and STDIN_ERROR, and one of
/// EXITED, FAILED and LOST; FAILED comes without STARTED. An event is delivered whole or not at
/// all, and no failure loses one. One thread at a time.
///
/// `MSB_OK`: `*out_event` is filled; give it back with `msb_event_release`. `MSB_AGAIN`: nothing
/// yet. `MSB_EOF`: nothing more, ever; `out_event->flags` tells about the end. `MSB_E_BUSY`:
/// another thread waits. `MSB_E_CLOSED`: the handle was closed meanwhile.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_recv(
    exec: *mut msb_exec,
    timeout_ms: i64,
    out_event: *mut msb_event,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see `ffi`), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_event = unsafe { Out::new(out_event) };
    boundary(err, || {
        // Before anything is taken out of the queue: a place that cannot be written to loses none.
        let (exec, out_event) = (get::<ExecCore, _>(exec)?, out_event?);
        if !Loan::table().has_room() {
            return Err(wrong(MSB_E_LIMIT, "a million events are not released"));
        }
        let next = match Timeout::from_ms(timeout_ms)? {
            Timeout::Look => exec.try_next()?,
            timeout => exec.wait_next(timeout.deadline())?,
        };
        match next {
            Next::Event(received) => Ok(out_event.write(&lend(received)?)),
            Next::Nothing => Ok(MSB_AGAIN),
            Next::End(how) => {
                out_event.write(&end(how));
                Ok(MSB_EOF)
            }
        }
    })
}

/// Give back an event's bytes, and with them the command's leave to send more. Any thread, any
/// order, also after the exec was closed. NULL and an event that was released before are fine.
///
/// Afterwards the event's pointers are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_event_release(event: *mut msb_event) {
    // SAFETY: NULL is always allowed.
    let err = unsafe { ErrorOut::new(ptr::null_mut()) };
    if event.is_null() {
        return;
    }
    // SAFETY: not NULL, so valid by the contract of every export.
    let Ok(place) = (unsafe { Out::<msb_event>::new(event) }) else {
        return;
    };
    // SAFETY: as above; `new` has checked that it is an event of our size at least.
    let held = unsafe { event.read_unaligned() };
    boundary(err, || {
        drop(remove::<Loan, c_void>(held.owner));
        Ok(MSB_OK)
    });
    let (kind, value) = (held.kind, held.value);
    place.write(&msb_event { kind, value, owner: as_handle(0), ..NO_EVENT });
}
