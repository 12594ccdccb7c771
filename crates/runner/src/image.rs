//! The two processes that work on images: one with the network, and one with the files.

use crate::namespaces::{Side, enter};
use crate::{cli, sys};
use msb_driver::Users;
use msb_image::{Error, Event, Request};
use msb_jail::{Bind, Ids, Jail, JailError, LOG_VARIABLE, Proc, Program, Slot};
use msb_puller::{Helper, Owners, Places};
use msb_state::jail_is_required;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, getrlimit, setrlimit, waitpid};
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Reads a request from standard input, carries it out, and writes events to standard output.
///
/// It ends with the process that asked: when that closes the input, or when it is gone.
pub(crate) fn work(home: &Path) -> Result<ExitCode, String> {
    sys::close_from(4).map_err(|error| error.to_string())?;
    sys::reset_signals();
    let creator = sys::inherited(3).map_err(|error| error.to_string())?;
    cli::start_log();
    allow_many_files();
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).map_err(|error| format!("cannot read a request: {error}"))?;
    msb_puller::end_with(input);
    end_with_process(creator);
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let text = format!("the runner does not understand the library: {error}");
            tell(&Event::Error(Error::invalid(text)));
            return Ok(ExitCode::FAILURE);
        }
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let helper = Helper { command: vec![program.into(), "image-files".into()] };
    let mut failed = false;
    let mut each = |event: Event| {
        failed = matches!(event, Event::Error(_));
        tell(&event);
    };
    cli::runtime()?.block_on(msb_puller::work(request, home, &helper, &mut each));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Works on files, in the namespace in which the users of a sandbox exist. What reads an image does
/// so in a jail.
pub(crate) fn files() -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    cli::start_log();
    allow_many_files();
    let users = match enter(true).map_err(|failure| failure.to_string())? {
        Side::Outside(code) => return Ok(code),
        Side::Inside(users) => users,
    };
    let (order, input) = read_order()?;
    if let Some(places) = msb_puller::places(&order) {
        return match start_unpacker(&order, &places, users) {
            Ok((pid, pipe, slot)) => {
                msb_puller::end_with(input);
                let code = wait(pid);
                drop((pipe, slot));
                Ok(code)
            }
            Err(why) => {
                msb_puller::refuse(&why);
                Ok(ExitCode::FAILURE)
            }
        };
    }
    let owners = match users {
        Users::Host | Users::Mapped(_) => Owners::All,
        Users::Range => Owners::Some,
        Users::RootOnly => Owners::RootOnly,
    };
    Ok(code(msb_puller::help(&order, input, owners)))
}

/// Unpacks an image in the jail that the parent describes.
pub(crate) fn unpack(range: bool) -> Result<ExitCode, String> {
    let entered = msb_jail::enter(&[]).map_err(|error| error.to_string())?;
    entered.finish().map_err(|error| error.to_string())?;
    let (order, input) = read_order()?;
    let owners = if range { Owners::Some } else { Owners::RootOnly };
    Ok(code(msb_puller::help(&order, input, owners)))
}

fn read_order() -> Result<(String, impl io::Read + Send + 'static), String> {
    let (mut input, mut order) = (BufReader::new(io::stdin()), String::new());
    input.read_line(&mut order).map_err(|error| format!("cannot read an order: {error}"))?;
    Ok((order, input))
}

/// Capabilities of the unpacker in its user namespace, because an image's files have other owners:
/// to set them (`CAP_CHOWN`), to work on such files (`CAP_DAC_OVERRIDE`, `CAP_FOWNER`), and to set
/// their special modes (`CAP_FSETID`) and their capabilities (`CAP_SETFCAP`).
const CAPABILITIES: [u32; 5] = [0, 1, 3, 4, 31];
/// Descriptors of the unpacker; the removal of a tree holds one for each of its levels.
const FILES: u64 = 65_536;

/// Starts the process that unpacks. The ids are its own as long as the slot is.
///
/// For root, where the owners of files cannot be mapped, its user namespace has the host's ids; that
/// is a missing wall.
fn start_unpacker(
    order: &str,
    places: &Places,
    users: Users,
) -> Result<(u32, PipeWriter, Option<Slot>), String> {
    let require = jail_is_required().map_err(|error| error.to_string())?;
    let slot = if users == Users::Host { Slot::for_name("image") } else { Ok(None) };
    let slot = slot.map_err(|error| error.to_string())?;
    let text = |error: io::Error| format!("cannot describe its jail: {error}");
    let ids = match &slot {
        Some(slot) => Ids::all(slot),
        None => Ids::nested_all().map_err(text)?,
    };
    let started = match (launch_unpacker(ids, slot.is_some(), places, users, require), &slot) {
        // Nothing was read of the image yet.
        (Err(NoJail::Unmapped(why)), Some(slot)) if !require => {
            tracing::warn!(why, "the process that unpacks has the host's ids in its jail");
            launch_unpacker(Ids::unmapped(slot), false, places, users, false)
        }
        (result, _) => result,
    };
    let (pid, mut pipe) = started.map_err(NoJail::into_text)?;
    // The order is shorter than a pipe holds, or is read as it is written.
    pipe.write_all(order.as_bytes()).map_err(|error| format!("cannot pass on: {error}"))?;
    Ok((pid, pipe, slot))
}

/// Why nothing unpacks in a jail.
enum NoJail {
    /// The owners of files cannot be mapped there.
    Unmapped(String),
    /// Another reason.
    Failed(String),
}

impl NoJail {
    fn into_text(self) -> String {
        match self {
            NoJail::Unmapped(why) | NoJail::Failed(why) => why,
        }
    }
}

impl From<JailError> for NoJail {
    fn from(error: JailError) -> NoJail {
        let why = error.to_string();
        if error.is_unmapped() { NoJail::Unmapped(why) } else { NoJail::Failed(why) }
    }
}

fn launch_unpacker(
    ids: Ids,
    idmapped: bool,
    places: &Places,
    users: Users,
    require: bool,
) -> Result<(u32, PipeWriter), NoJail> {
    let failed = |error: io::Error| NoJail::Failed(format!("cannot describe its jail: {error}"));
    // What is made has the process's owner at first, which is to be root.
    let ids = Ids { user: 0, group: 0, ..ids };
    let mut jail = Jail::new(ids, Program::Unpacker);
    jail.require = require;
    let bind = |path: &Path, writable| Bind { writable, idmapped, ..Bind::read(path) };
    jail.binds.extend(places.layers.iter().map(|path| bind(path, false)));
    jail.binds.push(bind(&places.into, true));
    // The attributes of files are set by their descriptors' names.
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
        tracing::warn!(wall, "a wall is missing around the process that unpacks");
    }
    Ok((started.pid, pipe))
}

fn wait(pid: u32) -> ExitCode {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    loop {
        match waitpid(pid, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => return code(status.exit_status() == Some(0)),
            _ => return ExitCode::FAILURE,
        }
    }
}

fn code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The removal of a tree holds a descriptor for each of its levels.
fn allow_many_files() {
    use rustix::process::Resource::Nofile;
    let mut limit = getrlimit(Nofile);
    limit.current = limit.maximum;
    // With the limit that is in force, most trees can be removed.
    let _ = setrlimit(Nofile, limit);
}

#[allow(clippy::exit, reason = "nobody is left who would want to know how it goes on")]
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

fn tell(event: &Event) {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    // Nobody listens when the library is gone, and then this process goes as well.
    let _ = io::stdout().write_all(&line);
}
