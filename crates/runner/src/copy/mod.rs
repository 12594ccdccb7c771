//! The process that unpacks what is copied out of a sandbox, in a jail that holds the destination
//! only.
//!
//! The archive is a guest's, and may take its parser over. Invariant: nothing is in place before the
//! library has sent its word to commit; at any end without it, nothing is left.

mod failure;
mod place;
mod unpack;

use crate::namespaces::{Side, enter};
use crate::process::{start_trace, wait};
use crate::sys;
use failure::Result;
use msb_driver::Users;
use msb_jail::{Bind, Ids, Jail, LOG_VARIABLE, Proc, Program, Slot, Source};
use msb_state::{COPY_COMMIT, Copied, CopyOrder, CopyReport, jail_is_required};
use rustix::process::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Where the destination is in the jail.
const INTO: &str = "/into";
/// The archive.
const ARCHIVE: i32 = 3;
/// Capabilities of the unpacker in its user namespace, for files of other owners: to set the owner
/// (`CAP_CHOWN`), to change such files (`CAP_DAC_OVERRIDE`, `CAP_FOWNER`), and to set their special
/// modes (`CAP_FSETID`).
const CAPABILITIES: [u32; 4] = [0, 1, 3, 4];
/// Limit of descriptors: merging holds two for each level.
const FILES: u64 = 65_536;

/// Reads an order from standard input and carries it out in a jail.
pub(crate) fn receive() -> std::result::Result<ExitCode, String> {
    sys::close_from(4).map_err(|error| error.to_string())?;
    sys::reset_signals();
    start_trace();
    let line = read_order().map_err(|error| format!("cannot read an order: {error}"))?;
    let order: CopyOrder =
        serde_json::from_str(&line).map_err(|error| format!("cannot read an order: {error}"))?;
    match enter(true).map_err(|failure| failure.to_string()).and_then(|side| match side {
        Side::Outside(code) => Ok(code),
        Side::Inside(users) => in_jail(&order, line.trim_end(), users),
    }) {
        Ok(code) => Ok(code),
        Err(why) => {
            let failure = failure::host("unpack into", &order.into, None, why);
            write_report(&CopyReport::Failed(failure));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Reads one line and no more: what follows is for the process in the jail.
fn read_order() -> io::Result<String> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" && input.read(&mut byte)? == 1 {
        line.extend_from_slice(&byte);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

/// Runs [`unpack`] in a jail, and waits for its end.
fn in_jail(order: &CopyOrder, line: &str, users: Users) -> std::result::Result<ExitCode, String> {
    let text = |error: io::Error| format!("cannot describe the jail: {error}");
    let require = jail_is_required().map_err(|error| error.to_string())?;
    let slot = if users == Users::Host { Slot::for_name("copy") } else { Ok(None) };
    let slot = slot.map_err(|error| error.to_string())?;
    let ids = match &slot {
        Some(slot) => Ids::all(slot),
        None => Ids::nested_all().map_err(text)?,
    };
    let mut jail = Jail::new(ids.with_own_id(), Program::Unpacker);
    jail.require = require;
    // Not every file system can map owners.
    jail.unmapped = slot.as_ref().map(|slot| Ids::unmapped(slot).with_own_id());
    let source = Source::Path(OsStr::from_bytes(&order.into).to_os_string());
    let idmapped = slot.is_some();
    jail.binds = vec![Bind { writable: true, idmapped, ..Bind::at(source, Path::new(INTO)) }];
    jail.proc = Proc::Own;
    jail.capabilities = CAPABILITIES.to_vec();
    jail.limits.files = Some(FILES);
    jail.descriptors = vec![ARCHIVE];
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    command.arg("copy-unpack").arg(line).env_clear().stdin(Stdio::inherit());
    command.env(LOG_VARIABLE, std::env::var_os(LOG_VARIABLE).unwrap_or_default());
    let archive = sys::inherited(ARCHIVE).map_err(text)?;
    let started = jail.start(command, vec![(archive, ARCHIVE)]);
    let started = started.and_then(msb_jail::Starting::wait).map_err(|error| error.to_string())?;
    for wall in started.missing {
        tracing::warn!(wall, "a wall of the unpacker's jail is missing");
    }
    let code = wait(i32::try_from(started.pid).ok().and_then(Pid::from_raw));
    drop(slot);
    Ok(code)
}

/// Carries out an order in the jail that the parent describes.
pub(crate) fn unpack(order: &str) -> std::result::Result<ExitCode, String> {
    let entered = msb_jail::enter(&[]).map_err(|error| error.to_string())?;
    entered.finish().map_err(|error| error.to_string())?;
    let order: CopyOrder =
        serde_json::from_str(order).map_err(|error| format!("cannot read an order: {error}"))?;
    let archive = sys::inherited(ARCHIVE).map_err(|error| error.to_string())?;
    let result = perform(&order, File::from(archive), &mut BufReader::new(io::stdin()));
    let code = if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    write_report(&match result {
        Ok(copied) => CopyReport::Done(copied),
        Err(failure) => CopyReport::Failed(failure),
    });
    Ok(code)
}

fn perform(order: &CopyOrder, archive: File, control: &mut impl BufRead) -> Result<Copied> {
    let aside = place::Aside::create(Path::new(INTO))?;
    let copied = unpack::unpack(order, archive, aside.directory())?;
    let mut word = String::new();
    // An error is as good as no word.
    let _ = control.read_line(&mut word);
    if word != COPY_COMMIT {
        return Err(failure::host("copy", b"", None, "it was given up".to_owned()));
    }
    place::place(order, &aside)?;
    Ok(copied)
}

fn write_report(report: &CopyReport) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // Fails if the library has exited.
    let _ = io::stdout().write_all(&line);
}

#[cfg(test)]
mod tests;
