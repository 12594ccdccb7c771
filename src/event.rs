//! Events of a command.

use super::borrowed::{self, Arena, Borrowed, Released, no_owner, size_of_u32};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::handle::{get, msb_exec};
use super::sized::{Out, OutArray, out, sized};
use super::status::{MSB_AGAIN, MSB_E_LIMIT, MSB_EOF, MSB_OK, msb_status};
use super::wait::Timeout;
use bytes::Bytes;
use microsandbox::pull::{Batch, Credit, Ending, Event, Exec, Next, StreamEnd, errno_name};
use microsandbox::{ExecFailed, ExecLost, ExitStatus, escape};
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// The command is running; `value` is its process id in the guest.
pub const MSB_EVENT_STARTED: u32 = 1;
/// `data` holds bytes of standard output; with a terminal, of all output.
pub const MSB_EVENT_STDOUT: u32 = 2;
/// `data` holds bytes of standard error.
pub const MSB_EVENT_STDERR: u32 = 3;
/// The command no longer reads its input; `value` is the guest's `errno`. It may continue to run.
pub const MSB_EVENT_STDIN_ERROR: u32 = 4;
/// The command exited; `value` is its exit code, -1 if a signal killed it; `exit` has details. Only
/// output of background processes may follow.
pub const MSB_EVENT_EXITED: u32 = 5;
/// The command failed to start; `value` is the guest's `errno`; `failure` has details. Last event.
pub const MSB_EVENT_FAILED: u32 = 6;
/// The connection to the sandbox was lost; the exit status is unknown. `data` holds the reason, one
/// line. Last event.
pub const MSB_EVENT_LOST: u32 = 7;

/// At the end of the stream: a background process still had the output open.
pub const MSB_EVENT_WRITER_LEFT: u32 = 1;
/// At the end of the stream: the connection was lost after the exit.
pub const MSB_EVENT_CUT: u32 = 2;

/// Of an exit: the command dumped core.
pub const MSB_EXIT_CORE_DUMPED: u32 = 1;
/// Of an exit: the command was killed by its timeout.
pub const MSB_EXIT_TIMED_OUT: u32 = 2;

/// Exit status and resource usage of a command, including children that it waited for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_exit {
    /// `sizeof(msb_exec_exit)` of the library.
    pub struct_size: u32,
    /// Exit code; -1 if a signal killed it.
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
    /// Maximum resident set size, in bytes.
    pub max_rss: u64,
}

/// The program does not exist.
pub const MSB_FAILURE_NOT_FOUND: u32 = 1;
/// This user may not execute the program.
pub const MSB_FAILURE_PERMISSION_DENIED: u32 = 2;
/// Not an executable format, or its interpreter is missing.
pub const MSB_FAILURE_NOT_EXECUTABLE: u32 = 3;
/// The working directory cannot be entered.
pub const MSB_FAILURE_BAD_CWD: u32 = 4;
/// Arguments or environment are too long, or the path cannot be resolved.
pub const MSB_FAILURE_BAD_ARGS: u32 = 5;
/// A limit on processes or descriptors, or a failed `setrlimit`.
pub const MSB_FAILURE_RESOURCE_LIMIT: u32 = 6;
/// The user or group is unknown, or may not be assumed.
pub const MSB_FAILURE_USER_SETUP_FAILED: u32 = 7;
/// Out of memory.
pub const MSB_FAILURE_OUT_OF_MEMORY: u32 = 8;
/// A pseudo-terminal cannot be opened.
pub const MSB_FAILURE_PTY_SETUP_FAILED: u32 = 9;
/// Any other failure.
pub const MSB_FAILURE_OTHER: u32 = 10;

/// Why a command failed to start. All pointers are borrowed until `msb_event_release`, and never
/// NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_failure {
    /// `sizeof(msb_exec_failure)` of the library.
    pub struct_size: u32,
    /// One of `MSB_FAILURE_*`.
    pub kind: u32,
    /// The guest's `errno`; 0 if no system call failed.
    pub os_error: i32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. Name of the kind, such as `"not_found"`.
    pub kind_name: *const c_char,
    /// Borrowed. The step that failed, such as `"execve"` or `"chdir"`.
    pub stage: *const c_char,
    /// Borrowed. Name of the errno, such as `"ENOENT"`; empty if it is 0.
    pub os_error_name: *const c_char,
    /// Borrowed. One line of text.
    pub message: *const c_char,
    /// Borrowed. The program, directory or name that the step concerned: bytes.
    pub path: *const c_char,
}

/// One event of a command.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_event {
    /// `sizeof(msb_event)`.
    pub struct_size: u32,
    /// One of `MSB_EVENT_*`, 0 at the end of the stream. Ignore kinds that you do not know.
    pub kind: u32,
    /// A number whose meaning depends on `kind`.
    pub value: i64,
    /// Bytes, not text: borrowed until `msb_event_release`. NULL if there are none.
    pub data: *const u8,
    /// Length in bytes.
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

sized!(msb_event, owner);

impl Released for msb_event {
    fn owner(&self) -> *mut c_void {
        self.owner
    }

    fn emptied(&self) -> msb_event {
        msb_event { kind: self.kind, value: self.value, owner: no_owner(), ..NO_EVENT }
    }
}

/// A failure as a C struct, and its texts.
#[derive(Debug)]
pub(super) struct OwnedFailure {
    shown: msb_exec_failure,
    _texts: Arena,
}

// SAFETY: the raw pointers in `shown` point into `_texts`, whose heap memory is never changed or
// moved while this lives.
unsafe impl Send for OwnedFailure {}
// SAFETY: as above; it is only ever read.
unsafe impl Sync for OwnedFailure {}

impl OwnedFailure {
    fn new(failed: &ExecFailed) -> OwnedFailure {
        let (kind, stage) = (failed.kind.name(), failed.stage.name());
        OwnedFailure::of(kind, stage, failed.errno, &failed.message, &failed.path)
    }

    /// Converts the failure of a log record, which has names and no path.
    pub(super) fn from_log(kind: &str, stage: &str, errno: i32, message: &str) -> OwnedFailure {
        OwnedFailure::of(kind, stage, errno, &escape(message), &[])
    }

    fn of(kind: &str, stage: &str, errno: i32, message: &str, path: &[u8]) -> OwnedFailure {
        let mut texts = Arena::default();
        let shown = msb_exec_failure {
            struct_size: size_of_u32::<msb_exec_failure>(),
            kind: kind_number(kind),
            os_error: errno,
            reserved: 0,
            kind_name: texts.text(kind),
            stage: texts.text(stage),
            os_error_name: texts.text(errno_name(errno)),
            message: texts.text(message),
            path: texts.text(path),
        };
        OwnedFailure { shown, _texts: texts }
    }

    /// Returns the C struct, valid for as long as this does not move.
    pub(super) fn shown(&self) -> *const msb_exec_failure {
        ptr::from_ref(&self.shown)
    }
}

/// How a command ended, as C structs and the memory that they point to.
#[derive(Debug)]
pub(super) struct OwnedEnding {
    exit: Option<msb_exec_exit>,
    failure: Option<OwnedFailure>,
    lost: Option<String>,
}

impl OwnedEnding {
    pub(super) fn new(ending: &Ending) -> OwnedEnding {
        let mut owned = OwnedEnding { exit: None, failure: None, lost: None };
        match ending {
            Ending::Exited(status) => owned.exit = Some(exit_of(status)),
            Ending::Failed(failed) => owned.failure = Some(OwnedFailure::new(failed)),
            Ending::Lost(ExecLost { message, .. }) => owned.lost = Some(message.clone()),
        }
        owned
    }

    /// Returns the event without an owner. Its pointers are valid while this does not move.
    pub(super) fn event(&self) -> msb_event {
        if let Some(exit) = &self.exit {
            let (kind, value) = (MSB_EVENT_EXITED, i64::from(exit.code));
            return msb_event { kind, value, exit: ptr::from_ref(exit), ..NO_EVENT };
        }
        if let Some(failure) = &self.failure {
            let (kind, value) = (MSB_EVENT_FAILED, i64::from(failure.shown.os_error));
            return msb_event { kind, value, failure: failure.shown(), ..NO_EVENT };
        }
        let why = self.lost.as_deref().unwrap_or_default();
        msb_event {
            kind: MSB_EVENT_LOST,
            data: borrowed::start_of(why.as_bytes()),
            len: why.len(),
            ..NO_EVENT
        }
    }
}

/// Returns the number of a failure kind by its name; a log has only names.
fn kind_number(name: &str) -> u32 {
    use microsandbox::ExecFailureKind as Kind;
    let numbers = [
        (Kind::NotFound, MSB_FAILURE_NOT_FOUND),
        (Kind::PermissionDenied, MSB_FAILURE_PERMISSION_DENIED),
        (Kind::NotExecutable, MSB_FAILURE_NOT_EXECUTABLE),
        (Kind::BadCwd, MSB_FAILURE_BAD_CWD),
        (Kind::BadArgs, MSB_FAILURE_BAD_ARGS),
        (Kind::ResourceLimit, MSB_FAILURE_RESOURCE_LIMIT),
        (Kind::UserSetupFailed, MSB_FAILURE_USER_SETUP_FAILED),
        (Kind::OutOfMemory, MSB_FAILURE_OUT_OF_MEMORY),
        (Kind::PtySetupFailed, MSB_FAILURE_PTY_SETUP_FAILED),
    ];
    let known = numbers.iter().find(|(kind, _)| kind.name() == name);
    known.map_or(MSB_FAILURE_OTHER, |(_, number)| *number)
}

/// Converts the exit of a log record, which has no resource usage.
pub(super) fn exit_from_log(
    code: i32,
    signal: Option<u8>,
    core_dumped: bool,
    timed_out: bool,
) -> msb_exec_exit {
    msb_exec_exit {
        struct_size: size_of_u32::<msb_exec_exit>(),
        code,
        signal: signal.map_or(0, i32::from),
        flags: exit_flags(core_dumped, timed_out),
        user_ns: 0,
        system_ns: 0,
        wall_ns: 0,
        max_rss: 0,
    }
}

fn exit_flags(core_dumped: bool, timed_out: bool) -> u32 {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    flag(core_dumped, MSB_EXIT_CORE_DUMPED) | flag(timed_out, MSB_EXIT_TIMED_OUT)
}

/// Converts an exit to a C struct.
pub(super) fn exit_of(status: &ExitStatus) -> msb_exec_exit {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let usage = status.usage.unwrap_or_default();
    msb_exec_exit {
        struct_size: size_of_u32::<msb_exec_exit>(),
        code: status.code,
        signal: status.signal.unwrap_or(0),
        flags: exit_flags(status.core_dumped, status.timed_out),
        user_ns: nanos(usage.user_time),
        system_ns: nanos(usage.system_time),
        wall_ns: nanos(usage.wall_time),
        max_rss: usage.max_rss,
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

/// Converts an event to a C struct. The memory that it points to is kept until the release.
fn to_c(event: Event) -> Result<msb_event, Failure> {
    match event {
        Event::Started(pid) => {
            Ok(msb_event { kind: MSB_EVENT_STARTED, value: i64::from(pid), ..NO_EVENT })
        }
        Event::StdinError(error) => {
            let (kind, value) = (MSB_EVENT_STDIN_ERROR, i64::from(error.errno));
            Ok(msb_event { kind, value, ..NO_EVENT })
        }
        Event::Stdout(bytes, credit) => output_to_c(MSB_EVENT_STDOUT, bytes, credit),
        Event::Stderr(bytes, credit) => output_to_c(MSB_EVENT_STDERR, bytes, credit),
        Event::Ended(ending) => ending_to_c(&ending),
    }
}

fn output_to_c(kind: u32, bytes: Bytes, credit: Credit) -> Result<msb_event, Failure> {
    // The bytes do not move with their owner.
    let (data, len) = (bytes.as_ptr(), bytes.len());
    let owner = borrowed::keep(Arc::new(Borrowed::Bytes(bytes, credit)))?;
    Ok(msb_event { kind, data, len, owner, ..NO_EVENT })
}

fn ending_to_c(ending: &Ending) -> Result<msb_event, Failure> {
    let owned = Box::new(OwnedEnding::new(ending));
    let event = owned.event();
    let owner = borrowed::keep(Arc::new(Borrowed::Other(owned)))?;
    Ok(msb_event { owner, ..event })
}

/// Returns the flags of the end of a stream.
pub(super) fn end_flags(end: StreamEnd) -> u32 {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    flag(end.writer_left, MSB_EVENT_WRITER_LEFT) | flag(end.cut, MSB_EVENT_CUT)
}

/// Fails unless this many events are guaranteed to fit. Called before anything is dequeued.
fn check_room(events: usize) -> Result<(), Failure> {
    match borrowed::has_room(events) {
        true => Ok(()),
        false => Err(wrong(MSB_E_LIMIT, "hundreds of thousands of events are not released")),
    }
}

/// Receives the next event. Waits up to `timeout_ms`.
///
/// The events of a command are STARTED, any number of STDOUT, STDERR and STDIN_ERROR, and one of
/// EXITED, FAILED and LOST; FAILED comes without STARTED. A failed call loses no event. One thread
/// at a time.
///
/// `MSB_OK`: `*out_event` is filled; release it with `msb_event_release`. `MSB_AGAIN`: nothing yet.
/// `MSB_EOF`: the end of the stream; `out_event->flags` has details, and there is nothing to
/// release. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`: the handle was closed meanwhile.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_recv(
    exec: *mut msb_exec,
    timeout_ms: i64,
    out_event: *mut msb_event,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_event = unsafe { Out::new(out_event) };
    boundary(err, || {
        // Before anything is dequeued: an invalid output loses no event.
        let (exec, out_event) = (get::<Exec, _>(exec)?, out_event?);
        check_room(1)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match exec.recv(deadline)? {
            Next::Event(event) => Ok(out_event.write(&to_c(event)?)),
            Next::Nothing => Ok(MSB_AGAIN),
            Next::End(end) => {
                out_event.write(&msb_event { flags: end_flags(end), ..NO_EVENT });
                Ok(MSB_EOF)
            }
        }
    })
}

/// Maximum number of events that one call of `msb_exec_recv_many` returns.
pub const MSB_RECV_MAX: usize = 256;

/// Receives the available events, up to `capacity` and `MSB_RECV_MAX`; waits for the first like
/// `msb_exec_recv`. `events` is an array of at least one, each element started from
/// `MSB_EVENT_INIT`, so that all have the same size. One thread at a time.
///
/// `MSB_OK`: the first `*out_len` elements are filled, at least one; release each, or all with
/// `msb_event_release_many`. `MSB_AGAIN`: nothing yet. `MSB_EOF`: the end of the stream; `*out_len`
/// is 0 and `events[0].flags` has details. `MSB_E_BUSY` and `MSB_E_CLOSED` as with `msb_exec_recv`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_recv_many(
    exec: *mut msb_exec,
    timeout_ms: i64,
    events: *mut msb_event,
    capacity: usize,
    out_len: *mut usize,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_len = unsafe { out(out_len, "the number of events") };
    let capacity = capacity.min(MSB_RECV_MAX);
    // SAFETY: as above; the array has at least `capacity` elements.
    let array = unsafe { OutArray::new(events, capacity) };
    boundary(err, || {
        let (exec, array, out_len) = (get::<Exec, _>(exec)?, array?, out_len?);
        check_room(capacity)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        let (mut filled, mut failed) = (0, None);
        let batch = exec.recv_many(deadline, capacity, |event| match to_c(event) {
            Ok(event) => {
                array.write(filled, &event);
                filled += 1;
            }
            Err(failure) => failed = Some(failure),
        })?;
        match (batch, failed) {
            (_, Some(failure)) => Err(failure),
            (Batch::Events, None) => {
                out_len.write(filled);
                Ok(MSB_OK)
            }
            (Batch::Nothing, None) => Ok(MSB_AGAIN),
            (Batch::End(end), None) => {
                array.write(0, &msb_event { flags: end_flags(end), ..NO_EVENT });
                out_len.write(0);
                Ok(MSB_EOF)
            }
        }
    })
}

/// Waits until the command has exited, up to `timeout_ms`, and discards its output until then. One
/// thread at a time.
///
/// `MSB_OK`: `*out_event` is its EXITED, FAILED or LOST, also when it was received before; release
/// it with `msb_event_release`. `msb_exec_recv` does not return it again, but continues after it
/// with the output of background processes. `MSB_AGAIN`: not yet; the output so far is discarded.
/// `MSB_E_BUSY` and `MSB_E_CLOSED` as with `msb_exec_recv`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_wait(
    exec: *mut msb_exec,
    timeout_ms: i64,
    out_event: *mut msb_event,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_event = unsafe { Out::new(out_event) };
    boundary(err, || {
        let (exec, out_event) = (get::<Exec, _>(exec)?, out_event?);
        check_room(1)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match exec.wait(deadline)? {
            Some(ending) => Ok(out_event.write(&ending_to_c(&ending)?)),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Releases an event's bytes, and with them the credit for the command to write more. Any thread,
/// any order, also after the exec was closed. NULL, an event that was never filled and a released
/// one are no-ops.
///
/// Afterwards the event's pointers are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_event_release(event: *mut msb_event) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(event) }
}

/// Releases the first `len` events of an array, each as `msb_event_release` does. All of them have
/// the same size; they need not be filled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_event_release_many(events: *mut msb_event, len: usize) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let Ok(array) = (unsafe { OutArray::new(events, len) }) else { return };
    for index in 0..len {
        // SAFETY: within the array.
        unsafe { borrowed::release(array.place(index)) }
    }
}
