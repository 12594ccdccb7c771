//! `msb-agent`: see the library's documentation.

#[cfg(not(target_feature = "crt-static"))]
compile_error!("the agent must be static: build it with `make agent`");

use msb_agent::machine::{self, Settings};
use msb_agent::{
    adopt, be_init, forbid_clone3, limit_processes, serve, serve_machine, use_cgroup,
    use_mounted_cgroup,
};
use std::process::ExitCode;

const USAGE: &str = "usage: msb-agent --listen-fd N [--lifeline-fd N] [--cgroup-fd N] \
                     [--max-processes N] [--forbid-clone3] | --version";

fn main() -> ExitCode {
    if let Some(settings) = Settings::from_environment() {
        run_machine(&settings);
    }
    let mut arguments = std::env::args().skip(1);
    let (mut listen, mut lifeline, mut cgroup) = (None, None, None);
    let mut processes = None;
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--version" => return version(),
            "--forbid-clone3" => {
                forbid_clone3();
                continue;
            }
            "--listen-fd" => &mut listen,
            "--lifeline-fd" => &mut lifeline,
            "--cgroup-fd" => &mut cgroup,
            "--max-processes" => &mut processes,
            _ => return fail(USAGE),
        };
        *value = arguments.next().and_then(|text| text.parse().ok());
        if value.is_none() {
            return fail(USAGE);
        }
    }
    let Some(listen) = listen else {
        return fail(USAGE);
    };
    let inherited = match adopt(listen, lifeline, cgroup) {
        Ok((inherited, cgroup)) => {
            cgroup.into_iter().for_each(use_cgroup);
            inherited
        }
        Err(error) => return fail(&format!("cannot use the inherited descriptors: {error}")),
    };
    if let Err(error) = limit_processes(processes).and_then(|()| be_init()) {
        return fail(&format!("cannot apply the process settings: {error}"));
    }
    match serve(inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Runs as the init process of a virtual machine, and ends the machine.
fn run_machine(settings: &Settings) -> ! {
    let result = machine::prepare(settings)
        .map(|()| use_mounted_cgroup())
        .and_then(|()| {
            be_init().map_err(|error| format!("cannot apply the process settings: {error}"))
        })
        .and_then(|()| serve_machine(settings.link).map_err(|error| error.to_string()));
    if let Err(error) = result {
        fail(&error);
    }
    machine::reset()
}

#[allow(clippy::print_stdout, reason = "the output of --version")]
fn version() -> ExitCode {
    println!("msb-agent {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "the runner keeps standard error in the agent's log")]
fn fail(why: &str) -> ExitCode {
    eprintln!("msb-agent: {why}");
    ExitCode::from(125)
}
