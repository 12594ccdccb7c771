//! Sandboxes.

use super::boundary::{ErrorOut, Failure, Sized32, boundary, copy_in, out, size_through, wrong};
use super::error::msb_error;
use super::handle::{get, get_open, msb_sandbox, open};
use super::input::{pair, text, texts};
use super::status::{
    MSB_AGAIN, MSB_E_CLOSED, MSB_E_INVALID, MSB_E_NOT_RUNNING, MSB_OK, msb_status,
};
use super::table::Open;
use super::wait::{Timeout, run};
use crate::client::{Monitor, Ready};
use crate::error::{Error, ErrorKind, Origin};
use crate::runtime;
use crate::sandbox::Sandbox;
use std::ffi::c_char;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// The sandbox outlives the process that creates it.
pub const MSB_SANDBOX_DETACHED: u32 = 1;
/// A sandbox that has the name already is ended and removed first.
pub const MSB_SANDBOX_REPLACE: u32 = 2;

const FLAGS: u32 = MSB_SANDBOX_DETACHED | MSB_SANDBOX_REPLACE;

/// What a new sandbox is to be. Zero means default, except for `name` and `image`.
///
/// All pointers are lent. Texts are NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_sandbox_options {
    /// `sizeof(msb_sandbox_options)`.
    pub struct_size: u32,
    /// `MSB_SANDBOX_*`.
    pub flags: u32,
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: *const c_char,
    /// Lent. The root filesystem: the path of a directory, which is never written to.
    pub image: *const c_char,
    /// Lent. `"container"` and such; NULL: `MSB_DRIVER`, else the first usable with hardware
    /// isolation.
    pub driver: *const c_char,
    /// Lent. Working directory of commands that name none; NULL: `/`.
    pub workdir: *const c_char,
    /// Lent. Shell for scripts; NULL: `/bin/sh`.
    pub shell: *const c_char,
    /// Lent. User of commands that name none: `name`, `uid`, `name:group` or `uid:gid`; NULL: root.
    pub user: *const c_char,
    /// Lent. Host name; NULL: the sandbox's name.
    pub hostname: *const c_char,
    /// Lent. `env_len` texts `NAME=value`, for every command.
    pub env: *const *const c_char,
    /// How many.
    pub env_len: usize,
    /// Lent. `labels_len` texts `KEY=value`: notes of the caller's own.
    pub labels: *const *const c_char,
    /// How many.
    pub labels_len: usize,
    /// Processors; 0: no limit of our own.
    pub cpus: u32,
    /// Memory in MiB; 0: no limit of our own.
    pub memory_mib: u32,
    /// Ended after this many milliseconds; 0: never.
    pub max_duration_ms: u64,
    /// Ended when nothing ran in it for this many milliseconds; 0: never.
    pub idle_timeout_ms: u64,
    /// How long the start may take, in milliseconds; 0: 30,000.
    pub boot_timeout_ms: u64,
}

// SAFETY: `repr(C)`, starts with its size, and holds numbers and raw pointers only.
unsafe impl Sized32 for msb_sandbox_options {
    const NAME: &'static str = "msb_sandbox_options";
    const FIRST_SIZE: usize = size_through!(msb_sandbox_options, boot_timeout_ms, u64);
}

/// What a sandbox handle stands for: a creation, and what came of it.
#[derive(Debug)]
pub(super) struct SandboxObject {
    creation: Monitor<Creation>,
}

#[derive(Debug)]
enum Creation {
    Running,
    Ready(Sandbox),
    Failed { kind: ErrorKind, origin: Origin, os_error: Option<i32>, message: String },
    Closed,
}

impl Ready for Creation {
    fn is_ready(&self) -> bool {
        !matches!(self, Creation::Running)
    }
}

impl Creation {
    fn done(result: Result<Sandbox, Error>) -> Creation {
        match result {
            Ok(sandbox) => Creation::Ready(sandbox),
            Err(error) => Creation::Failed {
                kind: error.kind(),
                origin: error.origin(),
                os_error: error.os_error(),
                message: error.to_string(),
            },
        }
    }

    /// The sandbox, once it is known whether there is one. As often as it is asked for.
    fn result(&mut self) -> Option<Result<Sandbox, Failure>> {
        match self {
            Creation::Running => None,
            Creation::Ready(sandbox) => Some(Ok(sandbox.clone())),
            Creation::Failed { kind, origin, os_error, message } => {
                let error = Error::new(*kind, *origin, message.clone()).with_os_error(*os_error);
                Some(Err(error.into()))
            }
            Creation::Closed => Some(Err(wrong(MSB_E_CLOSED, "the sandbox handle was closed"))),
        }
    }
}

impl SandboxObject {
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        let fd = self.creation.fd();
        Ok(fd.map_err(|error| Error::io("cannot make an event descriptor", error))?)
    }

    pub(super) fn close(&self) {
        let old = self.creation.with(|creation| std::mem::replace(creation, Creation::Closed));
        drop(old);
    }

    /// The sandbox of a handle whose creation is over.
    pub(super) fn sandbox(&self) -> Result<Sandbox, Failure> {
        self.creation.with(Creation::result).unwrap_or_else(|| {
            let text = "the sandbox is not ready: msb_sandbox_wait_ready says when it is";
            Err(wrong(MSB_E_NOT_RUNNING, text))
        })
    }
}

/// Create a sandbox and start it. Returns at once; `msb_sandbox_wait_ready` tells how it goes.
///
/// Without `MSB_SANDBOX_DETACHED` it ends, within two seconds, when this process does.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: an option that makes no sense.
/// `MSB_E_IO`: a thread or descriptor could not be made. What goes wrong later, such as a name
/// that exists (`MSB_E_EXISTS`), `msb_sandbox_wait_ready` reports.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_create(
    options: *const msb_sandbox_options,
    out_sandbox: *mut *mut msb_sandbox,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see `ffi`), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_sandbox = unsafe { out(out_sandbox, "a sandbox") };
    // SAFETY: as above; what the fields point to is lent for this call.
    let options = unsafe { copy_in(options) };
    // SAFETY: as above.
    let builder = options.and_then(|options| unsafe { builder(&options) });
    boundary(err, || {
        let (out_sandbox, builder) = (out_sandbox?, builder?);
        let runtime = runtime::get()?;
        let creation = Monitor::new(Creation::Running);
        let object = Arc::new(SandboxObject { creation });
        let handle = open(Arc::clone(&object))?;
        let pending = builder.begin();
        runtime.spawn(async move {
            let result = pending.await;
            object.creation.with(|creation| {
                if let Creation::Running = creation {
                    *creation = Creation::done(result);
                }
            });
        });
        out_sandbox.write(handle);
        Ok(MSB_OK)
    })
}

/// # Safety
/// The pointers in `options` are NULL or valid for what their comments say.
unsafe fn builder(options: &msb_sandbox_options) -> Result<crate::SandboxBuilder, Failure> {
    if options.flags & !FLAGS != 0 {
        let text = format!("unknown sandbox flags {:#x}", options.flags & !FLAGS);
        return Err(wrong(MSB_E_INVALID, text));
    }
    // SAFETY: by the contract, as for every text below.
    let name = unsafe { text(options.name, "the name") }?;
    let name = name.ok_or_else(|| wrong(MSB_E_INVALID, "a sandbox without a name"))?;
    let mut builder = Sandbox::builder(name).detached(options.flags & MSB_SANDBOX_DETACHED != 0);
    if options.flags & MSB_SANDBOX_REPLACE != 0 {
        builder = builder.replace();
    }
    // SAFETY: as above.
    if let Some(image) = unsafe { super::input::bytes(options.image) } {
        builder = builder.image(os_text(image));
    }
    type Set = fn(crate::SandboxBuilder, String) -> crate::SandboxBuilder;
    let settings: [(*const c_char, &str, Set); 5] = [
        (options.driver, "the driver", crate::SandboxBuilder::driver),
        (options.workdir, "the working directory", crate::SandboxBuilder::workdir),
        (options.shell, "the shell", crate::SandboxBuilder::shell),
        (options.user, "the user", crate::SandboxBuilder::user),
        (options.hostname, "the host name", crate::SandboxBuilder::hostname),
    ];
    for (pointer, what, set) in settings {
        // SAFETY: as above.
        if let Some(value) = unsafe { text(pointer, what) }? {
            builder = set(builder, value);
        }
    }
    // SAFETY: by the contract.
    for entry in unsafe { texts(options.env, options.env_len, "variables") }? {
        let (key, value) = utf8_pair(&entry, "the variable")?;
        builder = builder.env(key, value);
    }
    // SAFETY: by the contract.
    for entry in unsafe { texts(options.labels, options.labels_len, "labels") }? {
        let (key, value) = utf8_pair(&entry, "the label")?;
        builder = builder.label(key, value);
    }
    if options.cpus != 0 {
        builder = builder.cpus(options.cpus);
    }
    if options.memory_mib != 0 {
        builder = builder.memory(options.memory_mib);
    }
    type SetTime = fn(crate::SandboxBuilder, Duration) -> crate::SandboxBuilder;
    let times: [(u64, SetTime); 3] = [
        (options.max_duration_ms, crate::SandboxBuilder::max_duration),
        (options.idle_timeout_ms, crate::SandboxBuilder::idle_timeout),
        (options.boot_timeout_ms, crate::SandboxBuilder::boot_timeout),
    ];
    for (ms, set) in times {
        if ms != 0 {
            builder = set(builder, Duration::from_millis(ms));
        }
    }
    Ok(builder)
}

fn os_text(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn utf8_pair(entry: &[u8], what: &str) -> Result<(String, String), Failure> {
    let (key, value) = pair(entry, what)?;
    let text = |bytes| {
        String::from_utf8(bytes)
            .map_err(|_| wrong(MSB_E_INVALID, format!("{what} is not valid UTF-8")))
    };
    Ok((text(key)?, text(value)?))
}

/// Wait until the sandbox runs commands. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// `MSB_OK`: it does. `MSB_AGAIN`: not yet. Anything else: it never will, and why; `MSB_E_EXISTS`,
/// `MSB_E_NO_DRIVER` and `MSB_E_BOOT` are to be expected. Asked again, it says the same.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_wait_ready(
    sandbox: *mut msb_sandbox,
    timeout_ms: i64,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see `ffi`), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let object = get::<SandboxObject, _>(sandbox)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match object.creation.sleep(deadline, Creation::result) {
            Some(result) => result.map(|_| MSB_OK),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Stop the sandbox: its commands are asked to end, killed after `grace_ms`, and then it is gone
/// with everything that ran in it. Waits for that, however long it takes. The handle stays open;
/// closing it meanwhile ends the wait, not the stop.
///
/// `MSB_OK`: it has ended, now. `MSB_E_NOT_RUNNING`: it had ended before, or is not ready yet.
/// `MSB_E_CRASHED`: it ended by itself first.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_stop(
    sandbox: *mut msb_sandbox,
    grace_ms: u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see `ffi`), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let grace = Duration::from_millis(u64::from(grace_ms));
        waits.run(async move { sandbox.stop_with_timeout(grace).await })?;
        Ok(MSB_OK)
    })
}

/// Remove a sandbox that is not running, and its files.
///
/// `MSB_OK`. `MSB_E_NOT_FOUND`. `MSB_E_RUNNING`: stop it first.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_remove(
    name: *const c_char,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: by the contract of every export (see `ffi`), NULL or valid for this call.
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let name = unsafe { text(name, "the name") };
    boundary(err, || {
        let name = name?.ok_or_else(|| wrong(MSB_E_INVALID, "NULL instead of a name"))?;
        run(async move { Sandbox::remove(name).await })?;
        Ok(MSB_OK)
    })
}
