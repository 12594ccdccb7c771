//! Commands: starting, signalling and reattaching.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::handle::{Object, get, get_open, msb_exec, msb_sandbox, msb_sink, open, remove};
use super::input::{array, bytes, lent, pair, text, texts};
use super::sandbox::SandboxObject;
use super::sized::{Destination, copy_in, out, sized};
use super::status::{MSB_E_INVALID, MSB_OK, msb_status};
use super::table::{Kind, Open, Table};
use super::wait::Waits;
use microsandbox::pull::{Exec, Link, Program, Request, Scope};
use microsandbox::{ExecOptions, ExecOptionsBuilder, ReattachFrom, RlimitResource, Sandbox};
use std::ffi::c_char;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// The command gets a terminal; standard output then carries its standard error, too.
pub const MSB_EXEC_TTY: u32 = 1;
/// Forward output until every writer has closed it, without a time limit.
pub const MSB_EXEC_WAIT_FOR_EOF: u32 = 2;
/// `cmd` is a script for the sandbox's shell, as with `sh -c`: the first of `args` is its `$0`, the
/// second its `$1`.
pub const MSB_EXEC_SHELL: u32 = 4;

const FLAGS: u32 = MSB_EXEC_TTY | MSB_EXEC_WAIT_FOR_EOF | MSB_EXEC_SHELL;

/// Length of a session id with its NUL: 32 hexadecimal digits.
pub const MSB_SESSION_ID_LEN: usize = 33;

/// The limits of a resource. `UINT64_MAX` is unlimited.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_rlimit {
    /// Linux's `RLIMIT_*` number, 0 to 15.
    pub resource: u32,
    /// Zero.
    pub reserved: u32,
    /// The soft limit, in force.
    pub soft: u64,
    /// The hard limit, up to which the command may raise the soft one.
    pub hard: u64,
}

/// Options of a command. Zero means default, except for `cmd`. All pointers are lent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_exec_options {
    /// `sizeof(msb_exec_options)`.
    pub struct_size: u32,
    /// `MSB_EXEC_*`.
    pub flags: u32,
    /// Lent. The program: a path, or a name to look up in the command's own `PATH`.
    pub cmd: *const c_char,
    /// Lent. `args_len` arguments, without the program.
    pub args: *const *const c_char,
    /// Number of elements.
    pub args_len: usize,
    /// Lent. `env_len` texts `NAME=value`, which override the sandbox's; of two with the same name
    /// the last one counts.
    pub env: *const *const c_char,
    /// Number of elements.
    pub env_len: usize,
    /// Lent. Working directory; NULL: the sandbox's.
    pub cwd: *const c_char,
    /// Lent. `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's.
    pub user: *const c_char,
    /// Copied. Standard input: `stdin_len` bytes, then end of file; not together with a sink.
    pub stdin_data: *const u8,
    /// Length in bytes.
    pub stdin_len: usize,
    /// Lent. `rlimits_len` resource limits.
    pub rlimits: *const msb_rlimit,
    /// Number of elements.
    pub rlimits_len: usize,
    /// Kill the command and everything it started after this many nanoseconds; 0: never.
    pub timeout_ns: u64,
    /// How long to forward the output of background processes after the exit, in nanoseconds; 0:
    /// 250 ms.
    pub drain_ns: u64,
    /// Rows of the terminal; 0: 24.
    pub rows: u16,
    /// Columns of the terminal; 0: 80.
    pub cols: u16,
    /// Zero.
    pub reserved: u32,
    /// `msb_exec_collect` keeps at most this many bytes of each stream and counts the rest; 0: all.
    pub max_output: u64,
}

sized!(msb_exec_options, max_output);

impl Object for Exec {
    const WHAT: &'static str = "exec";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<Exec> = Table::new(Kind::Exec);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.fd().map_err(Failure::from)
    }

    fn on_close(&self) {
        self.close();
    }
}

/// Starts a command. Returns at once; `msb_exec_recv` reports its events, also a failure to start.
///
/// `options` is lent. With `out_stdin`, `msb_sink_write` writes its input; with `out_stdin` NULL it
/// is `stdin_data` if given, else `/dev/null`.
///
/// `MSB_OK`: `*out_exec` and, if requested, `*out_stdin` are owned. `MSB_E_INVALID`: an invalid
/// option. `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_stream(
    sandbox: *mut msb_sandbox,
    options: *const msb_exec_options,
    out_exec: *mut *mut msb_exec,
    out_stdin: *mut *mut msb_sink,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_exec = unsafe { out(out_exec, "an exec") };
    // SAFETY: as above.
    let out_stdin = (!out_stdin.is_null()).then(|| unsafe { out(out_stdin, "a sink") });
    // SAFETY: as above; what the fields point to is lent for this call.
    let options = unsafe { copy_in(options) };
    let pipe = out_stdin.is_some();
    // SAFETY: as above.
    let request = options.and_then(|options| unsafe { request(&options, pipe) });
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let (out_exec, (program, options)) = (out_exec?, request?);
        let exec = start(&sandbox, &waits, program, options)?;
        open_handles(exec, out_exec, out_stdin)?;
        Ok(MSB_OK)
    })
}

/// Opens the handles of an exec and, if requested and available, of its sink.
fn open_handles(
    exec: Exec,
    out_exec: Destination<*mut msb_exec>,
    out_stdin: Option<Result<Destination<*mut msb_sink>, Failure>>,
) -> Result<(), Failure> {
    let out_stdin = out_stdin.transpose()?;
    let sink = out_stdin.as_ref().and_then(|_| exec.take_stdin());
    let exec_handle = open(Arc::new(exec))?;
    if let Some(out_stdin) = out_stdin {
        match sink.map(|sink| open(Arc::new(sink))).transpose() {
            Ok(sink_handle) => out_stdin.write(sink_handle.unwrap_or(std::ptr::null_mut())),
            Err(failure) => {
                drop(remove::<Exec, msb_exec>(exec_handle));
                return Err(failure);
            }
        }
    }
    out_exec.write(exec_handle);
    Ok(())
}

fn start(
    sandbox: &Sandbox,
    waits: &Waits,
    program: Program,
    options: ExecOptions,
) -> Result<Exec, Failure> {
    let request = Request::new(sandbox, program, options)?;
    let link = match Link::live(sandbox) {
        Some(link) => link,
        None => waits.run(Link::connect(sandbox.clone()))?,
    };
    Ok(link.start(request)?)
}

/// # Safety
/// The pointers in `options` are NULL or valid for what their comments say.
pub(super) unsafe fn request(
    options: &msb_exec_options,
    pipe: bool,
) -> Result<(Program, ExecOptions), Failure> {
    if options.flags & !FLAGS != 0 || options.reserved != 0 {
        let text = format!("unknown exec flags {:#x}", options.flags & !FLAGS);
        return Err(wrong(MSB_E_INVALID, text));
    }
    // SAFETY: by the contract, as for every pointer below.
    let cmd = unsafe { bytes(options.cmd) };
    let cmd = cmd.ok_or_else(|| wrong(MSB_E_INVALID, "an exec without a command"))?;
    let program = match options.flags & MSB_EXEC_SHELL {
        0 => Program::Command(cmd),
        _ => Program::Script(cmd),
    };
    let mut builder = ExecOptionsBuilder::new()
        .tty(options.flags & MSB_EXEC_TTY != 0)
        .wait_for_eof(options.flags & MSB_EXEC_WAIT_FOR_EOF != 0);
    // SAFETY: as above.
    for argument in unsafe { texts(options.args, options.args_len, "arguments") }? {
        builder = builder.arg_bytes(argument);
    }
    // SAFETY: as above.
    for entry in unsafe { texts(options.env, options.env_len, "variables") }? {
        let (key, value) = pair(&entry, "the variable")?;
        builder = builder.env_bytes(key, value);
    }
    // SAFETY: as above.
    if let Some(cwd) = unsafe { bytes(options.cwd) } {
        builder = builder.cwd_bytes(cwd);
    }
    // SAFETY: as above.
    if let Some(user) = unsafe { text(options.user, "the user") }? {
        builder = builder.user(user);
    }
    // SAFETY: as above.
    let stdin = unsafe { lent(options.stdin_data, options.stdin_len, "input") }?;
    builder = match (pipe, options.stdin_data.is_null()) {
        (true, true) => builder.stdin_pipe(),
        (false, true) => builder,
        (false, false) => builder.stdin_bytes(stdin),
        (true, false) => {
            return Err(wrong(MSB_E_INVALID, "both a sink and fixed bytes as standard input"));
        }
    };
    // SAFETY: as above.
    for limit in unsafe { array(options.rlimits, options.rlimits_len, "resource limits") }? {
        let resource = u8::try_from(limit.resource).ok().and_then(RlimitResource::from_number);
        let resource = resource.ok_or_else(|| {
            wrong(MSB_E_INVALID, format!("{} is not a resource limit", limit.resource))
        })?;
        if limit.reserved != 0 {
            return Err(wrong(MSB_E_INVALID, "a resource limit whose `reserved` is not zero"));
        }
        builder = builder.rlimit_range(resource, limit.soft, limit.hard);
    }
    if options.timeout_ns != 0 {
        builder = builder.timeout(Duration::from_nanos(options.timeout_ns));
    }
    if options.drain_ns != 0 {
        builder = builder.drain(Duration::from_nanos(options.drain_ns));
    }
    if options.max_output != 0 {
        builder = builder.max_output(options.max_output);
    }
    if options.rows != 0 || options.cols != 0 {
        let or = |value: u16, default: u16| if value == 0 { default } else { value };
        builder = builder.tty_size(or(options.rows, 24), or(options.cols, 80));
    }
    Ok((program, builder.build()?))
}

/// Like [`request`], for a command that gets the host's terminal.
///
/// # Safety
/// As [`request`].
pub(super) unsafe fn terminal_request(
    options: &msb_exec_options,
) -> Result<(Program, ExecOptions), Failure> {
    let options = msb_exec_options { flags: options.flags | MSB_EXEC_TTY, ..*options };
    // SAFETY: the same contract.
    unsafe { request(&options, true) }
}

/// Returns the session id of a command: 32 hexadecimal digits and a NUL, never reused. It is the
/// same in every language, in logs and in `msb`.
///
/// `MSB_OK`: `out_id` holds `MSB_SESSION_ID_LEN` bytes. `MSB_E_HANDLE`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_id(
    exec: *const msb_exec,
    out_id: *mut c_char,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_id = unsafe { out(out_id.cast::<[u8; MSB_SESSION_ID_LEN]>(), "an id") };
    boundary(err, || {
        let (exec, out_id) = (get::<Exec, _>(exec)?, out_id?);
        let mut id = [0; MSB_SESSION_ID_LEN];
        for (place, byte) in id.iter_mut().zip(exec.id().bytes()) {
            *place = byte;
        }
        out_id.write(id);
        Ok(MSB_OK)
    })
}

/// Only the command's process group. The default.
pub const MSB_SIGNAL_GROUP: u32 = 0;
/// All processes that the command started, also those that left its group.
pub const MSB_SIGNAL_TREE: u32 = 1;

/// Sends a signal to a command, and waits until the agent has sent it. `SIGKILL` with
/// `MSB_SIGNAL_TREE` kills everything that the command started. Works while the output is unread.
///
/// `MSB_OK`: sent. `MSB_E_INVALID`: no such signal. `MSB_E_NO_PROCESS`: the command has ended.
/// `MSB_E_LOST`: the connection to the sandbox was lost. `MSB_E_CLOSED`: the handle was closed
/// meanwhile.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_signal(
    exec: *const msb_exec,
    signal: i32,
    flags: u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let Open { object: exec, waits } = get_open::<Exec, _>(exec)?;
        let scope = match flags {
            MSB_SIGNAL_GROUP => Scope::Group,
            MSB_SIGNAL_TREE => Scope::Everything,
            _ => return Err(wrong(MSB_E_INVALID, format!("unknown signal flags {flags:#x}"))),
        };
        waits.run(async move { exec.signal(signal, scope)?.await })?;
        Ok(MSB_OK)
    })
}

/// Resizes a command's terminal, and waits until the agent has done so. The command gets SIGWINCH.
///
/// `MSB_OK`. `MSB_E_NOT_A_TERMINAL`: it has no terminal. `MSB_E_NO_PROCESS`: the command has ended.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_resize(
    exec: *const msb_exec,
    rows: u16,
    cols: u16,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let Open { object: exec, waits } = get_open::<Exec, _>(exec)?;
        waits.run(async move { exec.resize(rows, cols)?.await })?;
        Ok(MSB_OK)
    })
}

/// Returns this handle's position in the session's output: the offset after the last byte that it
/// has received, collected or discarded, counting both streams together. `msb_exec_reattach` can
/// continue there. `*out_missed` is the number of bytes that were requested of `msb_exec_reattach`
/// and are no longer buffered. `out_missed` may be NULL.
///
/// `MSB_OK`. `MSB_E_HANDLE`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_position(
    exec: *const msb_exec,
    out_position: *mut u64,
    out_missed: *mut u64,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_position = unsafe { out(out_position, "a position") };
    // SAFETY: as above.
    let out_missed = (!out_missed.is_null()).then(|| unsafe { out(out_missed, "a number") });
    boundary(err, || {
        let (exec, out_position) = (get::<Exec, _>(exec)?, out_position?);
        out_position.write(exec.position());
        if let Some(out_missed) = out_missed {
            out_missed?.write(exec.missed());
        }
        Ok(MSB_OK)
    })
}

/// Position for `msb_exec_reattach`: only new output.
pub const MSB_FROM_NOW: i64 = -1;

/// Follows a session of this process or another one that runs, or that ended recently.
///
/// `id` is lent. `from` is a position of `msb_exec_position`, 0 for the first byte, or
/// `MSB_FROM_NOW`; a position beyond the output means the same. About the last mebibyte of the
/// output is buffered; if that begins after `from`, `msb_exec_position` returns how many bytes are
/// missing. The events are STARTED, the output from there on, and the same end for every follower.
/// Any number of handles may follow one session; one that is not read blocks the command for all of
/// them.
///
/// `MSB_OK`: `*out_exec` is owned, and so is `*out_stdin` if `out_stdin` is not NULL; `*out_stdin`
/// is NULL if the session's input is closed. Closing any of the session's sinks ends its input.
/// `MSB_E_NO_SESSION`: not known in this sandbox, which is reported after a second because the
/// session may be about to start; or it ended too long ago. `MSB_E_INVALID`: not a session id.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_exec_reattach(
    sandbox: *mut msb_sandbox,
    id: *const c_char,
    from: i64,
    out_exec: *mut *mut msb_exec,
    out_stdin: *mut *mut msb_sink,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_exec = unsafe { out(out_exec, "an exec") };
    // SAFETY: as above.
    let out_stdin = (!out_stdin.is_null()).then(|| unsafe { out(out_stdin, "a sink") });
    // SAFETY: as above.
    let id = unsafe { text(id, "the session id") };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let (out_exec, id) = (out_exec?, id?);
        let id = id.ok_or_else(|| wrong(MSB_E_INVALID, "NULL instead of a session id"))?;
        let from = match from {
            MSB_FROM_NOW => ReattachFrom::Now,
            from => ReattachFrom::Position(u64::try_from(from).map_err(|_| {
                wrong(MSB_E_INVALID, format!("{from} is neither a position nor MSB_FROM_NOW"))
            })?),
        };
        let exec = waits.run(async move { Exec::reattach(&sandbox, &id, from).await })?;
        open_handles(exec, out_exec, out_stdin)?;
        Ok(MSB_OK)
    })
}
