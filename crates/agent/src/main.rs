//! `msb-agent`: see the library's documentation.

#[cfg(not(target_feature = "crt-static"))]
compile_error!("the agent has to start in any image: build it with `make agent`");

use msb_agent::machine::{self, Settings};
use msb_agent::{
    adopt, be_init, forbid_clone3, limit_processes, serve, serve_machine, use_cgroup,
    use_mounted_cgroup,
};
use std::process::ExitCode;

const USAGE: &str = "usage: msb-agent --listen-fd N [--leash-fd N] [--cgroup-fd N] [--max-processes N] [--forbid-clone3] | --version";

fn main() -> ExitCode {
    if let Some(settings) = Settings::from_environment() {
        be_machine(&settings);
    }
    let mut arguments = std::env::args().skip(1);
    let (mut listen, mut leash, mut cgroup) = (None, None, None);
    let mut processes = None;
    while let Some(argument) = arguments.next() {
        let place = match argument.as_str() {
            "--version" => return version(),
            "--forbid-clone3" => {
                forbid_clone3();
                continue;
            }
            "--listen-fd" => &mut listen,
            "--leash-fd" => &mut leash,
            "--cgroup-fd" => &mut cgroup,
            "--max-processes" => &mut processes,
            _ => return fail(USAGE),
        };
        *place = arguments.next().and_then(|text| text.parse().ok());
        if place.is_none() {
            return fail(USAGE);
        }
    }
    let Some(listen) = listen else {
        return fail(USAGE);
    };
    let inherited = match adopt(listen, leash, cgroup) {
        Ok((inherited, cgroup)) => {
            cgroup.into_iter().for_each(use_cgroup);
            inherited
        }
        Err(error) => return fail(&format!("inherited descriptors: {error}")),
    };
    if let Err(error) = limit_processes(processes).and_then(|()| be_init()) {
        return fail(&format!("process settings: {error}"));
    }
    match serve(inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// The first process of a virtual machine: its end is the machine's.
fn be_machine(settings: &Settings) -> ! {
    let result = machine::prepare(settings)
        .map(|()| use_mounted_cgroup())
        .and_then(|()| be_init().map_err(|error| format!("process settings: {error}")))
        .and_then(|()| serve_machine(settings.way).map_err(|error| error.to_string()));
    if let Err(error) = result {
        fail(&error);
    }
    machine::end()
}

#[allow(clippy::print_stdout, reason = "the answer to --version")]
fn version() -> ExitCode {
    println!("msb-agent {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "the runner keeps standard error in the agent's log")]
fn fail(why: &str) -> ExitCode {
    eprintln!("msb-agent: {why}");
    ExitCode::from(125)
}
