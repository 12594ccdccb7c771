//! Attaching the host's terminal to a session.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::exec::{msb_exec_options, terminal_request};
use super::failure::{Failure, wrong};
use super::handle::{get_open, msb_sandbox};
use super::input::text;
use super::sandbox::SandboxObject;
use super::sized::{copy_in, out, sized};
use super::status::{MSB_E_INVALID, MSB_OK, msb_status};
use super::table::Open;
use microsandbox::pull::{self, Program};
use microsandbox::{AttachOptions, AttachOptionsBuilder};
use std::ffi::c_char;

/// What to attach the terminal to. Zero means default. All pointers are lent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_attach_options {
    /// `sizeof(msb_attach_options)`.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// Lent. The command. It gets a terminal of the same size regardless of its flags, and no
    /// `stdin_data`; NULL: the sandbox's shell.
    pub exec: *const msb_exec_options,
    /// Lent. The id of a session with a terminal, to reattach to instead of starting a command.
    pub session: *const c_char,
    /// Lent. The keys that detach: characters and names such as `ctrl-p`, separated by commas;
    /// NULL: `ctrl-]`.
    pub detach_keys: *const c_char,
}

sized!(msb_attach_options, detach_keys);

/// Of an attach: the session continues; the detach keys were typed, or the terminal hung up.
pub const MSB_ATTACH_DETACHED: u32 = 1;

/// Attaches this process's terminal, its standard input and output, to a command or a session.
/// Waits until it ends or the detach keys are typed. The terminal is in raw mode until then; its
/// settings are always restored. `options` is lent and may be NULL.
///
/// `MSB_OK`: `*out_code` is the exit code, or 128 plus the signal's number, as in a shell; -1 with
/// `MSB_ATTACH_DETACHED` in `*out_flags`, which may be NULL. `MSB_E_NOT_A_TERMINAL`: standard input
/// is not a terminal, or the session has none. `MSB_E_EXEC_FAILED`: the command failed to start.
/// `MSB_E_BUSY`: another attach uses the terminal. `MSB_E_CLOSED`: the handle was closed meanwhile;
/// the command continues to run.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_attach(
    sandbox: *mut msb_sandbox,
    options: *const msb_attach_options,
    out_code: *mut i32,
    out_flags: *mut u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_code = unsafe { out(out_code, "an exit code") };
    // SAFETY: as above.
    let out_flags = (!out_flags.is_null()).then(|| unsafe { out(out_flags, "flags") });
    // SAFETY: as above; what the fields point to is lent for this call.
    let target = unsafe { target(options) };
    boundary(err, || {
        let Open { object, waits } = get_open::<SandboxObject, _>(sandbox)?;
        let sandbox = object.sandbox()?;
        let (out_code, target) = (out_code?, target?);
        let outcome = waits.run_tied(async move {
            match target {
                Target::Program(program, options) => {
                    pull::attach(&sandbox, program, *options).await
                }
                Target::Session(id, keys) => {
                    sandbox.attach_session_outcome(&id, keys.as_deref()).await
                }
            }
        })?;
        let code = outcome.code();
        out_code.write(code);
        if let Some(out_flags) = out_flags {
            out_flags?.write(if outcome.status.is_none() { MSB_ATTACH_DETACHED } else { 0 });
        }
        Ok(MSB_OK)
    })
}

/// What the terminal is attached to.
enum Target {
    /// A program; `None` for the sandbox's shell.
    Program(Option<Program>, Box<AttachOptions>),
    /// A session by its id, and the detach keys.
    Session(String, Option<String>),
}

/// # Safety
/// `options` is NULL or valid, and so is what it points to.
unsafe fn target(options: *const msb_attach_options) -> Result<Target, Failure> {
    if options.is_null() {
        return shell(None);
    }
    // SAFETY: by the contract, as for every pointer below.
    let options = unsafe { copy_in(options) }?;
    if options.flags != 0 {
        return Err(wrong(MSB_E_INVALID, format!("unknown attach flags {:#x}", options.flags)));
    }
    // SAFETY: as above.
    let keys = unsafe { text(options.detach_keys, "the detach keys") }?;
    // SAFETY: as above.
    let session = unsafe { text(options.session, "the session id") }?;
    match (session, options.exec.is_null()) {
        (Some(session), true) => Ok(Target::Session(session, keys)),
        (Some(_), false) => Err(wrong(MSB_E_INVALID, "both a command and a session to attach to")),
        (None, true) => shell(keys.as_deref()),
        (None, false) => {
            // SAFETY: as above.
            let exec = unsafe { copy_in(options.exec) }?;
            // SAFETY: as above.
            let (program, exec) = unsafe { terminal_request(&exec) }?;
            let options = AttachOptions::new(exec, keys.as_deref())?;
            Ok(Target::Program(Some(program), Box::new(options)))
        }
    }
}

/// The sandbox's shell.
fn shell(keys: Option<&str>) -> Result<Target, Failure> {
    let builder = AttachOptionsBuilder::new();
    let options = keys.map_or(builder.clone(), |keys| builder.detach_keys(keys)).build()?;
    Ok(Target::Program(None, Box::new(options)))
}
