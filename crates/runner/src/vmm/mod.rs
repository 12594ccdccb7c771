//! The process that becomes the VMM of one sandbox, by libkrun.
//!
//! It is a process of its own because libkrun's last call never returns: the machine's end is the
//! process's. `libkrun` is used as the Rust crate that it is, so that a call with the wrong types
//! does not compile; the declarations of `libkrun-sys` as published lack half of the calls below.

#[allow(unsafe_code, reason = "calls into libkrun, whose interface is C's")]
mod sys;

use msb_driver_krun::Vmm;
use rustix::fs::Mode;
use std::path::PathBuf;
use std::process::ExitCode;

/// What [`Vmm::arguments`] wrote.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The library with the guest's kernel.
    #[arg(long)]
    krunfw: PathBuf,
    /// Processors.
    #[arg(long)]
    cpus: u8,
    /// Memory in MiB.
    #[arg(long)]
    memory: u32,
    /// The agent's binary.
    #[arg(long)]
    agent: PathBuf,
    /// What the agent is told, as NAME=value.
    #[arg(long = "tell")]
    words: Vec<String>,
}

/// Runs the machine. Comes back only if it cannot be started.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, String> {
    // The socket that libkrun makes is for this user alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let prepared = prepare(arguments).inspect_err(|error| msb_jail::refuse(error));
    let (vmm, agent_program) = prepared?;
    let jail = msb_jail::enter(&[]).map_err(|error| error.to_string())?;
    let failed = |error| format!("libkrun: {error}");
    let context = sys::configure(&vmm, agent_program).map_err(failed)?;
    jail.finish().map_err(|error| error.to_string())?;
    Err(failed(sys::enter(context)))
}

/// Takes what is needed of the host, whose files are not there any more in the jail.
fn prepare(arguments: Arguments) -> Result<(Vmm, Vec<u8>), String> {
    let Arguments { krunfw, cpus, memory, agent, words } = arguments;
    // What it is in process lists, for which libkrun asks the environment.
    let agent_program =
        std::fs::read(&agent).map_err(|error| format!("{}: {error}", agent.display()))?;
    sys::load_kernel(&krunfw).map_err(|error| format!("libkrun: {error}"))?;
    Ok((Vmm { krunfw, cpus, memory_mib: memory, agent, words }, agent_program))
}
