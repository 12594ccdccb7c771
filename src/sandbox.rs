//! Sandboxes: create, open, wait, stop and remove.

use super::async_op::AsyncOp;
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::descriptor_failed;
use super::failure::{Failure, wrong};
use super::handle::{Object, get, get_open, msb_sandbox, open};
use super::input::name_in;
use super::progress::{self, msb_progress};
use super::sandbox_info::{self, msb_sandbox_entries};
use super::sandbox_options::{builder, msb_sandbox_options};
use super::sized::{Out, copy_in, out};
use super::status::{MSB_AGAIN, MSB_E_INVALID, MSB_E_NOT_RUNNING, MSB_OK, msb_status};
use super::table::{Kind, Open, Table};
use super::wait::{Timeout, run};
use microsandbox::Sandbox;
use microsandbox::pull::{self, Cancel, Monitor, Pending, Ready};
use std::ffi::c_char;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// The object of a sandbox handle: its creation, and its end.
#[derive(Debug)]
pub(super) struct SandboxObject {
    state: Monitor<State>,
    /// Cancels the pull of its image.
    cancel: Cancel,
}

#[derive(Debug)]
struct State {
    op: AsyncOp<Sandbox>,
    /// The end, once a caller waits for it.
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    Awaited,
    Over(Result<(), Failure>),
}

impl Ready for State {
    fn is_ready(&self) -> bool {
        match self.end {
            None => self.op.is_ready(),
            Some(End::Awaited) => self.op.is_closed(),
            Some(End::Over(_)) => true,
        }
    }
}

impl State {
    /// Returns the sandbox, once its creation is complete.
    fn sandbox(&mut self) -> Option<Result<Sandbox, Failure>> {
        self.op.result()
    }

    /// Returns the end, once it is known.
    fn over(&mut self) -> Option<Result<(), Failure>> {
        if let Err(closed) = self.op.check_open() {
            return Some(Err(closed));
        }
        match &self.end {
            Some(End::Over(Ok(()))) => Some(Ok(())),
            Some(End::Over(Err(failure))) => Some(Err(failure.clone())),
            _ => None,
        }
    }
}

impl Object for SandboxObject {
    const WHAT: &'static str = "sandbox";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<SandboxObject> = Table::new(Kind::Sandbox);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.state.fd().map_err(descriptor_failed)
    }

    fn on_close(&self) {
        self.cancel.cancel();
        drop(self.state.with(|state| state.op.close()));
    }
}

impl SandboxObject {
    /// Opens a handle on an operation, which continues in the background.
    fn begin(
        operation: impl FnOnce(&Arc<SandboxObject>) -> Pending<Sandbox>,
    ) -> Result<*mut msb_sandbox, Failure> {
        pull::start_io()?;
        let state = State { op: AsyncOp::new("sandbox"), end: None };
        let (state, cancel) = (Monitor::new(state), Cancel::default());
        let object = Arc::new(SandboxObject { state, cancel });
        let handle = open(Arc::clone(&object))?;
        let pending = operation(&object);
        pull::spawn(async move {
            let result = pending.await.map_err(Failure::from);
            drop(object.state.with(|state| state.op.complete(result)));
        })?;
        Ok(handle)
    }

    /// Returns the sandbox of a handle whose creation is complete.
    pub(super) fn sandbox(&self) -> Result<Sandbox, Failure> {
        self.state.with(State::sandbox).unwrap_or_else(|| {
            let text = "the sandbox is not ready: msb_sandbox_wait_ready says when it is";
            Err(wrong(MSB_E_NOT_RUNNING, text))
        })
    }

    /// Starts to wait for the end, once.
    fn await_end(self: &Arc<Self>) -> Result<(), Failure> {
        let sandbox = self.sandbox()?;
        pull::start_io()?;
        let begun = self.state.with(|state| match state.end {
            Some(_) => true,
            None => {
                state.end = Some(End::Awaited);
                false
            }
        });
        if !begun {
            let pending = pull::wait(&sandbox);
            let object = Arc::clone(self);
            pull::spawn(async move {
                let result = tokio::select! {
                    result = pending => result.map(drop).map_err(Failure::from),
                    // The handle is closed: no caller can read the result.
                    () = object.state.until(|state| state.op.is_closed().then_some(())) => return,
                };
                object.state.with(|state| state.end = Some(End::Over(result)));
            })?;
        }
        Ok(())
    }
}

/// Creates and starts a sandbox. Returns at once; `msb_sandbox_wait_ready` reports the result.
///
/// `options` is lent. Without `MSB_SANDBOX_DETACHED` the sandbox ends, within two seconds, when
/// this process does. Closing the handle while the image is pulled cancels creation; after the pull
/// it has no effect.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: an invalid option. `MSB_E_IO`: a thread or
/// descriptor cannot be made. `msb_sandbox_wait_ready` reports later failures, such as an existing
/// name (`MSB_E_EXISTS`) or an invalid one (`MSB_E_CONFIG`).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_create(
    options: *const msb_sandbox_options,
    out_sandbox: *mut *mut msb_sandbox,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_sandbox = unsafe { out(out_sandbox, "a sandbox") };
    // SAFETY: as above; what the fields point to is lent for this call.
    let options = unsafe { copy_in(options) };
    // SAFETY: as above.
    let builder = options.and_then(|options| unsafe { builder(&options) });
    boundary(err, || {
        let (out_sandbox, builder) = (out_sandbox?, builder?);
        out_sandbox.write(SandboxObject::begin(|object| {
            let watcher = Arc::clone(object);
            let builder = builder.on_progress(move |progress| {
                watcher.state.with(|state| state.op.set_progress(progress));
            });
            pull::create(builder, &object.cancel)
        })?);
        Ok(MSB_OK)
    })
}

/// Start the sandbox with its existing files.
pub const MSB_OPEN_START: u32 = 1;

/// Opens a sandbox of any process by its name, which is lent, running or not. Returns at once;
/// `msb_sandbox_wait_ready` reports the result.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: `name` is NULL, or an unknown flag.
/// `msb_sandbox_wait_ready` reports that no such sandbox exists (`MSB_E_NOT_FOUND`), that the name
/// is invalid (`MSB_E_CONFIG`) or, with `MSB_OPEN_START`, that it already runs (`MSB_E_RUNNING`).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_open(
    name: *const c_char,
    flags: u32,
    out_sandbox: *mut *mut msb_sandbox,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_sandbox = unsafe { out(out_sandbox, "a sandbox") };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    boundary(err, || {
        let (out_sandbox, name) = (out_sandbox?, name?);
        let handle = match flags {
            0 => SandboxObject::begin(|_| pull::get(&name))?,
            MSB_OPEN_START => SandboxObject::begin(|_| pull::start(&name))?,
            _ => return Err(wrong(MSB_E_INVALID, format!("unknown open flags {flags:#x}"))),
        };
        out_sandbox.write(handle);
        Ok(MSB_OK)
    })
}

/// Waits until a sandbox is created, started or found, up to `timeout_ms`.
///
/// `MSB_OK`: a created or started sandbox runs commands; one that was only opened may be running or
/// not, see `msb_sandbox_info`. `MSB_AGAIN`: not yet. Any failure is final; expect `MSB_E_EXISTS`,
/// `MSB_E_NO_DRIVER` and `MSB_E_BOOT`. Later calls return the same, and so does every other call on
/// the handle.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_wait_ready(
    sandbox: *mut msb_sandbox,
    timeout_ms: i64,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let object = get::<SandboxObject, _>(sandbox)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match object.state.sleep(deadline, State::sandbox) {
            Some(result) => result.map(|_| MSB_OK),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Returns the progress of the image pull of a sandbox that is being created, if it changed since
/// the last call. Waits up to `timeout_ms`. A slow reader misses intermediate steps, but not the
/// end. From the first call on, and until the sandbox is ready, the descriptor of the handle also
/// polls readable for new progress.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: no change. `MSB_EOF`: no further progress;
/// `msb_sandbox_wait_ready` returns the result without waiting. An image that is a directory, and a
/// sandbox that was opened, have no progress.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_progress(
    sandbox: *mut msb_sandbox,
    timeout_ms: i64,
    out_progress: *mut msb_progress,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_progress = unsafe { Out::new(out_progress) };
    boundary(err, || {
        let (object, out_progress) = (get::<SandboxObject, _>(sandbox)?, out_progress?);
        progress::next(&object.state, |state| &mut state.op, timeout_ms, out_progress)
    })
}

/// Stops the sandbox: signals its commands to exit, kills them after `grace_ms`, and ends the
/// sandbox. Waits until that is done, without a time limit. The handle stays open; closing it
/// meanwhile ends the wait, not the stop.
///
/// `MSB_OK`: it ended by this call. `MSB_E_NOT_RUNNING`: it had already ended, or is not ready yet.
/// `MSB_E_CRASHED`: it crashed first.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_stop(
    sandbox: *mut msb_sandbox,
    grace_ms: u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let grace = Duration::from_millis(u64::from(grace_ms));
        waits.run(async move { sandbox.stop_with_timeout(grace).await })?;
        Ok(MSB_OK)
    })
}

/// Kills the sandbox and everything that runs in it. The handle stays open; closing it meanwhile
/// ends the wait, not the kill. A pending creation is undone: an image pull is cancelled, otherwise
/// this waits for the sandbox and kills it.
///
/// `MSB_OK`: it ended by this call. `MSB_E_NOT_RUNNING`: it had already ended. `MSB_E_CRASHED`: it
/// crashed first. After a failed creation, the status of `msb_sandbox_wait_ready`; `MSB_E_CLOSED`
/// if this call cancelled it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_kill(
    sandbox: *mut msb_sandbox,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        object.cancel.cancel();
        let sandbox = object.state.sleep(None, State::sandbox);
        let sandbox = sandbox.unwrap_or_else(|| object.sandbox())?;
        waits.run(async move { sandbox.kill().await })?;
        Ok(MSB_OK)
    })
}

/// Waits until the sandbox has ended, up to `timeout_ms`. From the first call on, the descriptor of
/// the handle polls readable when the sandbox has ended, and no longer when it is ready.
///
/// `MSB_OK`: it was stopped or killed, or reached a time limit of its options; `msb_sandbox_info`
/// has the reason. `MSB_AGAIN`: not yet. `MSB_E_CRASHED`: it crashed. `MSB_E_NOT_RUNNING`: it was
/// never started, or is not ready yet. `MSB_E_CLOSED`: the handle was closed meanwhile. Once this
/// has returned the end, it always returns the same, also after the sandbox was started again.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_wait(
    sandbox: *mut msb_sandbox,
    timeout_ms: i64,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        let object = get::<SandboxObject, _>(sandbox)?;
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        object.await_end()?;
        match object.state.sleep(deadline, State::over) {
            Some(result) => result.map(|()| MSB_OK),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Returns the current state of the sandbox, as a list of one entry.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_sandbox_entries_release`.
/// `MSB_E_NOT_FOUND`: it was removed. `MSB_E_NOT_RUNNING`: it is not ready yet.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_info(
    sandbox: *mut msb_sandbox,
    out_list: *mut msb_sandbox_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let (sandbox, out_list) = (object.sandbox()?, out_list?);
        let info = waits.run(async move { sandbox.info().await })?;
        sandbox_info::sandboxes(vec![info], out_list)
    })
}

/// Lists all sandboxes, sorted by name, running or not.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_sandbox_entries_release`. `MSB_E_IO`: they
/// cannot be read.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_list(
    out_list: *mut msb_sandbox_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let out_list = out_list?;
        sandbox_info::sandboxes(run(Sandbox::list())?, out_list)
    })
}

/// Kill a running sandbox first.
pub const MSB_REMOVE_FORCE: u32 = 1;

/// Removes a stopped sandbox and its files. `name` is lent. Handles on it stay open;
/// `msb_sandbox_info` then returns `MSB_E_NOT_FOUND`.
///
/// `MSB_OK`. `MSB_E_NOT_FOUND`. `MSB_E_RUNNING`: stop it first, or pass `MSB_REMOVE_FORCE`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sandbox_remove(
    name: *const c_char,
    flags: u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    boundary(err, || {
        let name = name?;
        match flags {
            0 => run(async move { Sandbox::remove(name).await })?,
            MSB_REMOVE_FORCE => run(async move { Sandbox::remove_forced(name).await })?,
            _ => return Err(wrong(MSB_E_INVALID, format!("unknown remove flags {flags:#x}"))),
        }
        Ok(MSB_OK)
    })
}
