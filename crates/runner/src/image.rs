//! The two processes of image operations: one uses the network, the other one the files.

use crate::namespaces::{Side, enter};
use crate::process::{exit_code, runtime, start_trace, wait};
use crate::sys;
use msb_driver::Users;
use msb_image::{Error, Event, Request};
use msb_image_pull::{Helper, Owners, UnpackPaths};
use msb_jail::{Bind, Ids, Jail, JailError, LOG_VARIABLE, Proc, Program, Slot};
use msb_state::{IMAGE_MEMORY, jail_is_required};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, getrlimit, setrlimit};
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Reads a request from standard input, carries it out, and writes events to standard output.
///
/// Ends when the client closes the input or exits.
pub(crate) fn work(home: &Path, with_archive: bool) -> Result<ExitCode, String> {
    sys::close_from(if with_archive { 5 } else { 4 }).map_err(|error| error.to_string())?;
    sys::reset_signals();
    let creator = sys::inherited(3).map_err(|error| error.to_string())?;
    let archive = with_archive.then(|| sys::inherited(4)).transpose();
    let archive = archive.map_err(|error| error.to_string())?.map(File::from);
    start_trace();
    allow_many_files();
    limit_memory();
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("cannot read a request: {error}"))?;
    msb_image_pull::exit_on_close(input);
    end_with_process(creator);
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let text = format!("cannot parse the library's request: {error}");
            write_event(&Event::Error(Error::invalid(text)));
            return Ok(ExitCode::FAILURE);
        }
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let helper = Helper { command: vec![program.into(), "image-files".into()] };
    let mut failed = false;
    let mut each = |event: Event| {
        failed = matches!(event, Event::Error(_));
        write_event(&event);
    };
    runtime()?.block_on(msb_image_pull::run_request(request, home, &helper, archive, &mut each));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Works on files, in a namespace with the users of a sandbox. An image is read in a jail only.
pub(crate) fn files() -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    start_trace();
    allow_many_files();
    let users = match enter(true).map_err(|failure| failure.to_string())? {
        Side::Outside(code) => return Ok(code),
        Side::Inside(users) => users,
    };
    let (request, input) = read_request()?;
    if let Some(places) = msb_image_pull::unpack_paths(&request) {
        return match start_unpacker(&request, &places, users) {
            Ok((pid, pipe, slot)) => {
                msb_image_pull::exit_on_close(input);
                let code = wait(i32::try_from(pid).ok().and_then(Pid::from_raw));
                drop((pipe, slot));
                Ok(code)
            }
            Err(why) => {
                msb_image_pull::reject_job(&why);
                Ok(ExitCode::FAILURE)
            }
        };
    }
    let owners = match users {
        Users::Host | Users::Mapped(_) => Owners::All,
        Users::Range => Owners::Some,
        Users::RootOnly => Owners::RootOnly,
    };
    Ok(exit_code(msb_image_pull::run_job(&request, input, owners)))
}

/// Unpacks an image in the jail that the parent describes.
pub(crate) fn unpack(range: bool) -> Result<ExitCode, String> {
    let entered = msb_jail::enter(&[]).map_err(|error| error.to_string())?;
    entered.finish().map_err(|error| error.to_string())?;
    let (request, input) = read_request()?;
    let owners = if range { Owners::Some } else { Owners::RootOnly };
    Ok(exit_code(msb_image_pull::run_job(&request, input, owners)))
}

fn read_request() -> Result<(String, impl io::Read + Send + 'static), String> {
    let (mut input, mut request) = (BufReader::new(io::stdin()), String::new());
    input.read_line(&mut request).map_err(|error| format!("cannot read a request: {error}"))?;
    Ok((request, input))
}

/// Capabilities of the unpacker in its user namespace, for files of other owners: to set the owner
/// (`CAP_CHOWN`), to change such files (`CAP_DAC_OVERRIDE`, `CAP_FOWNER`), and to set their special
/// modes (`CAP_FSETID`) and capabilities (`CAP_SETFCAP`).
const CAPABILITIES: [u32; 5] = [0, 1, 3, 4, 31];
/// Limit of the unpacker's descriptors; the removal of a tree holds one for each level.
const FILES: u64 = 65_536;

/// Starts the unpacker. Its ids are reserved as long as the slot lives.
///
/// Where root's file system cannot map owners, the user namespace has the host's ids, which is a
/// missing wall.
fn start_unpacker(
    request: &str,
    places: &UnpackPaths,
    users: Users,
) -> Result<(u32, PipeWriter, Option<Slot>), String> {
    let require = jail_is_required().map_err(|error| error.to_string())?;
    let slot = if users == Users::Host { Slot::for_name("image") } else { Ok(None) };
    let slot = slot.map_err(|error| error.to_string())?;
    let text = |error: io::Error| format!("cannot describe the unpacker's jail: {error}");
    let ids = match &slot {
        Some(slot) => Ids::all(slot),
        None => Ids::nested_all().map_err(text)?,
    };
    let started = match (launch_unpacker(ids, slot.is_some(), places, users, require), &slot) {
        // Nothing of the image has been read yet.
        (Err(JailFailure::Unmapped(why)), Some(slot)) if !require => {
            tracing::warn!(why, "the unpacker has the host's ids in its jail");
            launch_unpacker(Ids::unmapped(slot), false, places, users, false)
        }
        (result, _) => result,
    };
    let (pid, mut pipe) = started.map_err(JailFailure::into_text)?;
    pipe.write_all(request.as_bytes())
        .map_err(|error| format!("cannot pass on the request: {error}"))?;
    Ok((pid, pipe, slot))
}

/// Why the unpacker has no jail.
enum JailFailure {
    /// The file system cannot map owners.
    Unmapped(String),
    /// Another reason.
    Other(String),
}

impl JailFailure {
    fn into_text(self) -> String {
        match self {
            JailFailure::Unmapped(why) | JailFailure::Other(why) => why,
        }
    }
}

impl From<JailError> for JailFailure {
    fn from(error: JailError) -> JailFailure {
        let why = error.to_string();
        if error.is_unmapped() { JailFailure::Unmapped(why) } else { JailFailure::Other(why) }
    }
}

fn launch_unpacker(
    ids: Ids,
    idmapped: bool,
    places: &UnpackPaths,
    users: Users,
    require: bool,
) -> Result<(u32, PipeWriter), JailFailure> {
    let failed = |error: io::Error| {
        JailFailure::Other(format!("cannot describe the unpacker's jail: {error}"))
    };
    // New files belong to the process at first, which therefore is root.
    let ids = Ids { user: 0, group: 0, ..ids };
    let mut jail = Jail::new(ids, Program::Unpacker);
    jail.require = require;
    let bind = |path: &Path, writable| Bind { writable, idmapped, ..Bind::read(path) };
    jail.binds.extend(places.layers.iter().map(|path| bind(path, false)));
    jail.binds.push(bind(&places.into, true));
    // File attributes are set through /proc/self/fd.
    jail.proc = Proc::Own;
    jail.capabilities = CAPABILITIES.to_vec();
    jail.limits.files = Some(FILES);
    let program = std::env::current_exe().map_err(failed)?;
    let (theirs, pipe) = io::pipe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("image-unpack").env_clear().stdin(theirs);
    command.env(LOG_VARIABLE, std::env::var_os(LOG_VARIABLE).unwrap_or_default());
    if users != Users::RootOnly {
        command.arg("--range");
    }
    let started = jail.start(command, Vec::new())?.wait()?;
    for wall in started.missing {
        tracing::warn!(wall, "a wall of the unpacker's jail is missing");
    }
    Ok((started.pid, pipe))
}

/// Raises the limit of descriptors: the removal of a tree holds one for each level.
fn allow_many_files() {
    use rustix::process::Resource::Nofile;
    let mut limit = getrlimit(Nofile);
    limit.current = limit.maximum;
    // The current limit is enough for most trees.
    let _ = setrlimit(Nofile, limit);
}

/// Limits the memory of this process and of those that it starts: it reads what registries and
/// archives send.
fn limit_memory() {
    use rustix::process::Resource::Data;
    let mut limit = getrlimit(Data);
    let bound = limit.maximum.map_or(IMAGE_MEMORY, |maximum| maximum.min(IMAGE_MEMORY));
    (limit.current, limit.maximum) = (Some(bound), Some(bound));
    // Lowering a limit is always allowed.
    let _ = setrlimit(Data, limit);
}

#[allow(clippy::exit, reason = "no process is left to report to")]
fn end_with_process(creator: OwnedFd) {
    std::thread::spawn(move || {
        loop {
            match poll(&mut [PollFd::new(&creator, PollFlags::IN)], None) {
                Err(rustix::io::Errno::INTR) | Ok(0) => {}
                _ => std::process::exit(1),
            }
        }
    });
}

fn write_event(event: &Event) {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    // Fails if the library has exited; this process then ends, too.
    let _ = io::stdout().write_all(&line);
}
