//! `msb-agent`: see the library's documentation.

#[cfg(not(target_feature = "crt-static"))]
compile_error!("the agent must be static: build it with `make agent`");

use msb_agent::machine::{self, HostLink, Settings, show_own_tmp};
use msb_agent::{
    Confinement, adopt, adopt_socket, be_init, confine_commands, forbid_clone3, limit_processes,
    serve, serve_machine, use_cgroup, use_mounted_cgroup, use_version1_cgroup,
};
use std::process::ExitCode;

const USAGE: &str = "usage: msb-agent (--listen-fd N [--lifeline-fd N] [--cgroup-fd N] | --relay-fd N) \
                     [--max-processes N] [--forbid-clone3] | --version";

fn main() -> ExitCode {
    if let Some(settings) = Settings::from_environment() {
        run_machine(settings);
    }
    let mut arguments = std::env::args().skip(1);
    let (mut listen, mut lifeline, mut cgroup) = (None, None, None);
    let (mut relay, mut processes) = (None, None);
    while let Some(argument) = arguments.next() {
        let value = match argument.as_str() {
            "--version" => return version(),
            "--forbid-clone3" => {
                forbid_clone3();
                continue;
            }
            "--relay-fd" => &mut relay,
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
    let result = match (listen, relay) {
        (Some(listen), None) => serve_listener(listen, lifeline, cgroup, processes),
        (None, Some(relay)) => serve_socket(relay, processes),
        _ => return fail(USAGE),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Serves the connections to an inherited listening socket, in a container.
fn serve_listener(
    listen: i32,
    lifeline: Option<i32>,
    cgroup: Option<i32>,
    processes: Option<i32>,
) -> Result<(), String> {
    let (inherited, cgroup) = adopt(listen, lifeline, cgroup).map_err(not_usable)?;
    cgroup.into_iter().for_each(use_cgroup);
    become_init(processes)?;
    serve(inherited).map_err(|error| error.to_string())
}

/// Serves the connections that an inherited connected socket carries, under gVisor.
fn serve_socket(relay: i32, processes: Option<i32>) -> Result<(), String> {
    let socket = adopt_socket(relay).map_err(not_usable)?;
    confine_commands(Confinement::Namespaces);
    use_version1_cgroup()
        .map_err(|error| format!("cannot use the cgroups of the sandbox: {error}"))?;
    show_own_tmp();
    become_init(processes)?;
    serve_machine(HostLink::Socket(socket)).map_err(|error| error.to_string())
}

fn not_usable(error: std::io::Error) -> String {
    format!("cannot use the inherited descriptors: {error}")
}

fn become_init(processes: Option<i32>) -> Result<(), String> {
    let result = limit_processes(processes).and_then(|()| be_init());
    result.map_err(|error| format!("cannot apply the process settings: {error}"))
}

/// Runs as the init process of a virtual machine, and ends the machine.
fn run_machine(settings: Settings) -> ! {
    let result = machine::prepare(&settings)
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
