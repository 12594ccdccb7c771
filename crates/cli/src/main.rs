//! `msb`: sandboxes and their sessions, from a shell.
//!
//! Owns the command line, the standard streams and signals of this process. Everything about
//! sandboxes is the library's, through its public interface. Invariant: a program's output arrives
//! unchanged on the same stream, and msb exits with its exit code, or reports that it is unknown.
//!
//! Layers, of which each uses only those before it:
//! - `text`, `values`, `sys`: texts, option values, one system call
//! - `mounts`: the forms of a mount
//! - `stdio`, `failure`, `output`, `signals`, `progress`, `stdin`, `stream`: streams and terminal
//! - `args`, `usage`: the command line
//! - `exec`, `terminal`, `sandbox`, `transfer`: what commands share
//! - `commands`: one module per group of commands, none of which uses another

#![deny(unsafe_code)]

mod args;
mod commands;
mod exec;
mod failure;
mod mounts;
mod output;
mod progress;
mod sandbox;
mod signals;
mod stdin;
mod stdio;
mod stream;
mod sys;
mod terminal;
mod text;
mod transfer;
mod usage;
mod values;

use args::{Cli, Command, Setup};
use commands::{attach, copy, doctor, files, image, list, logs, manage, manual, run, volume};
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(stdio::report_panic));
    let (result, verbose) = match usage::parse() {
        Ok(cli) => {
            let verbose = cli.verbose;
            // The hook has reported the panic.
            let result = std::panic::catch_unwind(|| perform(cli));
            (result.unwrap_or_else(|_| Err(Failure::reported())), verbose)
        }
        Err(result) => (result, false),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.exit(verbose),
    }
}

fn perform(cli: Cli) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the async runtime: {error}")))?;
    let result = runtime.block_on(dispatch(cli.command, cli.quiet));
    // A thread may be blocked forever in a read of our input or a write of our output.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, quiet: bool) -> Result<u8, Failure> {
    match command {
        Command::Run(args) => run::run(args, quiet).await,
        Command::Exec(args) => run::exec(args, quiet).await,
        Command::Attach(args) => attach::attach(args, quiet).await,
        Command::Create(args) => manage::create(args, quiet).await,
        Command::Start { names } => manage::start(&names, quiet).await,
        Command::Stop { names, timeout } => manage::stop(&names, timeout, quiet).await,
        Command::Kill(args) => manage::kill(&args).await,
        Command::Rm { names, force } => manage::remove(&names, force).await,
        Command::Ls { json, .. } => list::sandboxes(json, quiet).await,
        Command::Info { name, json } => list::info(&name, json).await,
        Command::Sessions { name, json } => list::sessions(&name, json, quiet).await,
        Command::Logs(args) => logs::print(args).await,
        Command::Copy(args) => copy::copy(args, quiet).await,
        Command::Files(args) => files::run(args).await,
        Command::Image(command) => image::run(command, quiet).await,
        Command::Volume(command) => volume::run(command, quiet).await,
        Command::Doctor { json } => doctor::doctor(json).await,
        Command::Setup(Setup::Gvisor) => doctor::setup_gvisor(quiet).await,
        Command::Setup(Setup::Kernel { to }) => doctor::setup_kernel(to, quiet).await,
        Command::Completion { shell } => output::print(manual::completion(shell)).map(|()| 0),
        Command::Manual { directory: Some(directory), .. } => manual::write_pages(&directory),
        Command::Manual { directory: None, .. } => output::print(manual::markdown()).map(|()| 0),
    }
}
