//! The process that becomes the VMM of one sandbox, by libkrun.
//!
//! A separate process, because libkrun's last call never returns: it exits with the machine.
//! `libkrun` is used as a Rust crate, so a call with wrong types does not compile; the published
//! `libkrun-sys` lacks half of the calls below.

#[allow(unsafe_code, reason = "calls into libkrun, whose interface is C's")]
mod sys;

use msb_driver_krun::Vmm;
use rustix::fs::Mode;
use std::path::PathBuf;
use std::process::ExitCode;

/// The arguments that [`Vmm::arguments`] writes.
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
    /// The agent's environment, as NAME=value.
    #[arg(long = "tell")]
    options: Vec<String>,
}

/// Runs the machine. Returns only if it cannot be started.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, String> {
    // libkrun's socket is for this user alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let prepared = prepare(arguments).inspect_err(|error| msb_jail::refuse(error));
    let (vmm, agent_program) = prepared?;
    let jail = msb_jail::enter(&[]).map_err(|error| error.to_string())?;
    let failed = |error| format!("libkrun: {error}");
    let context = sys::configure(&vmm, agent_program).map_err(failed)?;
    jail.finish().map_err(|error| error.to_string())?;
    Err(failed(sys::enter(context)))
}

/// Reads the host's files that the jail does not have.
fn prepare(arguments: Arguments) -> Result<(Vmm, Vec<u8>), String> {
    let Arguments { krunfw, cpus, memory, agent, options } = arguments;
    let agent_program =
        std::fs::read(&agent).map_err(|error| format!("{}: {error}", agent.display()))?;
    sys::load_kernel(&krunfw).map_err(|error| format!("libkrun: {error}"))?;
    Ok((Vmm { krunfw, cpus, memory_mib: memory, agent, options }, agent_program))
}
