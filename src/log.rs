//! The log of a sandbox: the recorded output of its sessions.

use super::borrowed::{self, Arena, Borrowed, Released, no_owner};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::event::{OwnedFailure, exit_from_log, msb_exec_exit, msb_exec_failure};
use super::failure::{Failure, wrong};
use super::handle::{Object, get, get_open, msb_log, msb_sandbox, open};
use super::input::text;
use super::sandbox::SandboxObject;
use super::session::MSB_SESSION_TTY;
use super::sized::{Out, copy_in, out, sized};
use super::status::{MSB_AGAIN, MSB_E_INVALID, MSB_E_LIMIT, MSB_EOF, MSB_OK, msb_status};
use super::table::{Kind, Open, Table};
use super::wait::Timeout;
use microsandbox::pull::{LogItem, LogNext};
use microsandbox::{LogEvent, LogOptions, LogRecord, LogSource, LogStream};
use std::ffi::{c_char, c_void};
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Continue with new records until the sandbox ends.
pub const MSB_LOG_FOLLOW: u32 = 1;

/// The part of a log to read. Zero means all of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_log_options {
    /// `sizeof(msb_log_options)`.
    pub struct_size: u32,
    /// `MSB_LOG_FOLLOW` or 0.
    pub flags: u32,
    /// Lent. Only records of the session with this id; NULL: of all sessions.
    pub session: *const c_char,
    /// Only records from this time on, in nanoseconds since 1970; 0: all.
    pub since_ns: i64,
}

sized!(msb_log_options, since_ns);

/// `data` holds bytes of standard output of the session; with a terminal, of all output.
pub const MSB_LOG_STDOUT: u32 = 1;
/// `data` holds bytes of standard error of the session.
pub const MSB_LOG_STDERR: u32 = 2;
/// The session started; `value` is its process id in the guest, `argv` its command.
pub const MSB_LOG_STARTED: u32 = 3;
/// The session ended; `value` is its exit code, -1 if a signal killed it; `exit` has details,
/// without resource usage, which the log does not record. All output of the command itself precedes
/// this record.
pub const MSB_LOG_EXITED: u32 = 4;
/// The session failed to start; `value` is the guest's `errno`; `failure` has details, without
/// `path`, which the log does not record. `argv` is its command.
pub const MSB_LOG_FAILED: u32 = 5;
/// The connection to the sandbox was lost; how the session ended is unknown.
pub const MSB_LOG_LOST: u32 = 6;
/// A record of a later version of the library.
pub const MSB_LOG_OTHER: u32 = 7;
/// The end of an incomplete log, without a session. `data` says what is missing, in one line of
/// text: files that were deleted because the log was full, before this reader reached them; or the
/// end, which could not be written.
pub const MSB_LOG_INCOMPLETE: u32 = 8;

/// One record of a log.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_log_record {
    /// `sizeof(msb_log_record)`.
    pub struct_size: u32,
    /// One of `MSB_LOG_STDOUT` to `MSB_LOG_INCOMPLETE`; 0 at the end. Ignore unknown kinds.
    pub kind: u32,
    /// When it was recorded, by the clock of the host, in nanoseconds since 1970. Does not
    /// decrease, unless the clock was set.
    pub time_ns: i64,
    /// A number whose meaning depends on `kind`.
    pub value: i64,
    /// Borrowed until `msb_log_record_release`, like all pointers below. Session id, as of
    /// `msb_exec_id`; NULL with `MSB_LOG_INCOMPLETE`.
    pub session: *const c_char,
    /// Borrowed. Bytes, not text. NULL if there are none.
    pub data: *const u8,
    /// Length in bytes.
    pub len: usize,
    /// Borrowed. `argv_len` texts with `MSB_LOG_STARTED` and `MSB_LOG_FAILED`: the program and its
    /// arguments. Bytes that are not UTF-8 were replaced.
    pub argv: *const *const c_char,
    /// Number of elements.
    pub argv_len: usize,
    /// Borrowed. With `MSB_LOG_EXITED`; else NULL.
    pub exit: *const msb_exec_exit,
    /// Borrowed. With `MSB_LOG_FAILED`; else NULL.
    pub failure: *const msb_exec_failure,
    /// With `MSB_LOG_STARTED`: `MSB_SESSION_TTY` or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

sized!(msb_log_record, owner);

impl Released for msb_log_record {
    fn owner(&self) -> *mut c_void {
        self.owner
    }

    fn emptied(&self) -> msb_log_record {
        let msb_log_record { kind, time_ns, value, .. } = *self;
        msb_log_record { kind, time_ns, value, owner: no_owner(), ..NO_RECORD }
    }
}

const NO_RECORD: msb_log_record = msb_log_record {
    struct_size: 0,
    kind: 0,
    time_ns: 0,
    value: 0,
    session: ptr::null(),
    data: ptr::null(),
    len: 0,
    argv: ptr::null(),
    argv_len: 0,
    exit: ptr::null(),
    failure: ptr::null(),
    flags: 0,
    reserved: 0,
    owner: ptr::null_mut(),
};

/// The memory that the pointers of a record refer to.
#[derive(Debug, Default)]
struct Backing {
    data: Vec<u8>,
    texts: Arena,
    exit: Option<msb_exec_exit>,
    failure: Option<OwnedFailure>,
}

impl Object for LogStream {
    const WHAT: &'static str = "log";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<LogStream> = Table::new(Kind::Log);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.fd().map_err(Failure::from)
    }

    fn on_close(&self) {
        self.close();
    }
}

/// Opens the log of a sandbox: the output of its sessions, byte for byte, and how each ended. It
/// exists only if the sandbox was created with `MSB_SANDBOX_LOG`. It is kept until the sandbox is
/// removed, also after the sandbox has ended; when it is full, its oldest part is deleted. Messages
/// of the library itself are not in it: see `msb_trace_set`.
///
/// `options` is lent and may be NULL. The sandbox's handle may be closed before this one. Any
/// number of handles may read one log, each with a thread and a read-ahead of about a mebibyte;
/// reading blocks neither the sandbox nor its commands. This call waits for the disk.
///
/// `MSB_OK`: `*out_log` is owned. `MSB_E_CONFIG`: the sandbox keeps no log. `MSB_E_NOT_FOUND`: it
/// was removed. `MSB_E_NOT_RUNNING`: its creation is pending, see `msb_sandbox_wait_ready`.
/// `MSB_E_CLOSED`: the sandbox's handle was closed meanwhile.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_log_open(
    sandbox: *mut msb_sandbox,
    options: *const msb_log_options,
    out_log: *mut *mut msb_log,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_log = unsafe { out(out_log, "a log") };
    // SAFETY: as above; what the fields point to is lent for this call.
    let options = unsafe { options_in(options) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let (out_log, options) = (out_log?, options?);
        let core = waits.run(async move { sandbox.logs(options).await })?;
        out_log.write(open(Arc::new(core))?);
        Ok(MSB_OK)
    })
}

/// # Safety
/// `options` is NULL or valid, and so is what it points to.
unsafe fn options_in(options: *const msb_log_options) -> Result<LogOptions, Failure> {
    if options.is_null() {
        return Ok(LogOptions::default());
    }
    // SAFETY: by the contract, as for the pointer below.
    let options = unsafe { copy_in(options) }?;
    if options.flags & !MSB_LOG_FOLLOW != 0 {
        return Err(wrong(MSB_E_INVALID, format!("unknown log flags {:#x}", options.flags)));
    }
    let since = u64::try_from(options.since_ns)
        .map_err(|_| wrong(MSB_E_INVALID, format!("{} is a time before 1970", options.since_ns)))?;
    Ok(LogOptions {
        // SAFETY: as above.
        session: unsafe { text(options.session, "the session id") }?,
        since: (since > 0).then(|| UNIX_EPOCH + Duration::from_nanos(since)),
        follow: options.flags & MSB_LOG_FOLLOW != 0,
    })
}

/// Receives the next record. Waits up to `timeout_ms`.
///
/// Records are in the order in which they were recorded, across sessions. One thread at a time.
///
/// `MSB_OK`: `*out_record` is filled; release it with `msb_log_record_release`. `MSB_AGAIN`: no
/// record yet; possible also without `MSB_LOG_FOLLOW`, since a thread reads the files. `MSB_EOF`:
/// the end, with nothing to release: the log is read completely and, with `MSB_LOG_FOLLOW`, the
/// sandbox has ended. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`: the handle was closed
/// meanwhile. `MSB_E_IO`: a file cannot be read; `MSB_EOF` follows.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_log_recv(
    log: *mut msb_log,
    timeout_ms: i64,
    out_record: *mut msb_log_record,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_record = unsafe { Out::new(out_record) };
    boundary(err, || {
        // Before anything is dequeued: an invalid output loses no record.
        let (log, out_record) = (get::<LogStream, _>(log)?, out_record?);
        if !borrowed::has_room(1) {
            let text = "hundreds of thousands of records are not released";
            return Err(wrong(MSB_E_LIMIT, text));
        }
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match log.take_until(deadline)? {
            LogNext::Item(LogItem::Record(record)) => Ok(out_record.write(&to_c(record)?)),
            LogNext::Item(LogItem::Incomplete(text)) => {
                let backing = Backing { data: text.into_bytes(), ..Backing::default() };
                let kind = MSB_LOG_INCOMPLETE;
                Ok(out_record.write(&with_backing(msb_log_record { kind, ..NO_RECORD }, backing)?))
            }
            LogNext::Item(LogItem::Failed(error)) => Err(error.into()),
            LogNext::Nothing => Ok(MSB_AGAIN),
            LogNext::End => {
                out_record.write(&NO_RECORD);
                Ok(MSB_EOF)
            }
        }
    })
}

/// Converts a record to a C struct.
fn to_c(record: LogRecord) -> Result<msb_log_record, Failure> {
    let mut backing = Backing { data: record.data, ..Backing::default() };
    let session = backing.texts.text(&record.session);
    let mut shown = msb_log_record { time_ns: ns_of(record.time), session, ..NO_RECORD };
    shown.kind = match (record.stream, &record.event) {
        (LogSource::Stdout, None) => MSB_LOG_STDOUT,
        (LogSource::Stderr, None) => MSB_LOG_STDERR,
        (_, Some(event)) => note_event(event, &mut shown, &mut backing),
        _ => MSB_LOG_OTHER,
    };
    with_backing(shown, backing)
}

/// Converts an event of a session; returns the kind of the record.
fn note_event(event: &LogEvent, shown: &mut msb_log_record, backing: &mut Backing) -> u32 {
    match event {
        LogEvent::Started { pid, argv, tty } => {
            shown.value = i64::from(*pid);
            shown.flags = if *tty { MSB_SESSION_TTY } else { 0 };
            (shown.argv, shown.argv_len) = (backing.texts.list(argv), argv.len());
            MSB_LOG_STARTED
        }
        LogEvent::Exited { code, signal, core_dumped, timed_out } => {
            shown.value = i64::from(*code);
            backing.exit = Some(exit_from_log(*code, *signal, *core_dumped, *timed_out));
            MSB_LOG_EXITED
        }
        LogEvent::Failed { argv, failure, stage, errno, message } => {
            shown.value = i64::from(*errno);
            (shown.argv, shown.argv_len) = (backing.texts.list(argv), argv.len());
            backing.failure = Some(OwnedFailure::from_log(failure, stage, *errno, message));
            MSB_LOG_FAILED
        }
        LogEvent::Lost => MSB_LOG_LOST,
        _ => MSB_LOG_OTHER,
    }
}

/// Returns a record that points into `backing`.
fn with_backing(shown: msb_log_record, backing: Backing) -> Result<msb_log_record, Failure> {
    // Nothing that is pointed to moves after this.
    let backing = Box::new(backing);
    let (data, len) = (borrowed::start_of(&backing.data), backing.data.len());
    let exit = backing.exit.as_ref().map_or(ptr::null(), ptr::from_ref);
    let failure = backing.failure.as_ref().map_or(ptr::null(), OwnedFailure::shown);
    let owner = borrowed::keep(Arc::new(Borrowed::Other(backing)))?;
    Ok(msb_log_record { data, len, exit, failure, owner, ..shown })
}

fn ns_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Releases the memory that a record points to. Any thread, any order, also after the handle was
/// closed. NULL, a record that was never filled and a released one are no-ops.
///
/// Afterwards the record's pointers are NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_log_record_release(record: *mut msb_log_record) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(record) }
}
