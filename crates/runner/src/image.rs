//! The two processes that work on images: one with the network, and one with the files.

use crate::namespaces::{Side, enter};
use crate::{cli, sys};
use msb_driver::Users;
use msb_image::{Error, Event, Request};
use msb_puller::{Helper, Owners};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{getrlimit, setrlimit};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

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

/// Works on files, in the namespace in which the users of a sandbox exist.
pub(crate) fn files() -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    allow_many_files();
    let owners = match enter(true).map_err(|failure| failure.to_string())? {
        Side::Outside(code) => return Ok(code),
        Side::Inside(Users::Host) => Owners::All,
        Side::Inside(Users::Range) => Owners::Some,
        Side::Inside(_) => Owners::RootOnly,
    };
    Ok(if msb_puller::help(owners) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
