//! `msb`: sandboxes and what runs in them, from a shell.
//!
//! Owns: the command line, this process's standard streams and its signals. Does not own: anything
//! about sandboxes; all of that is the library's, through its public interface. Invariant: what a
//! program in a sandbox writes arrives unchanged on the same stream here, and its end is this
//! process's end, or it is said that its end is not known.

#![forbid(unsafe_code)]

mod args;
mod attach;
mod doctor;
mod failure;
mod feed;
mod image;
mod list;
mod logs;
mod manage;
mod manual;
mod options;
mod progress;
mod run;
mod signals;
mod stdio;
mod stream;
mod table;
mod values;

use args::{Arguments, Setup, Task};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(stdio::panicked));
    let (result, verbose) = match Arguments::try_parse() {
        Ok(arguments) => {
            let verbose = arguments.verbose;
            // What a panic has to say was said by the hook.
            let performed = std::panic::catch_unwind(|| perform(arguments));
            (performed.unwrap_or_else(|_| Err(Failure::silent())), verbose)
        }
        Err(error) => (failure::usage(&error), false),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.end(verbose),
    }
}

fn perform(arguments: Arguments) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::own(format!("cannot start: {error}")))?;
    let quiet = arguments.quiet;
    let result = runtime.block_on(async {
        match arguments.task {
            Task::Run(args) => run::run(args, quiet).await,
            Task::Exec(args) => run::exec(args, quiet).await,
            Task::Attach(args) => attach::attach(args, quiet).await,
            Task::Create(args) => manage::create(args, quiet).await,
            Task::Start { names } => manage::start(&names, quiet).await,
            Task::Stop { names, timeout } => manage::stop(&names, timeout, quiet).await,
            Task::Kill(args) => manage::kill(&args).await,
            Task::Rm { names, force } => manage::remove(&names, force).await,
            Task::Ls { json, .. } => list::sandboxes(json, quiet).await,
            Task::Info { name, json } => list::info(&name, json).await,
            Task::Sessions { name, json } => list::sessions(&name, json, quiet).await,
            Task::Logs(args) => logs::print(args).await,
            Task::Image(task) => image::perform(task, quiet).await,
            Task::Doctor { json } => doctor::doctor(json).await,
            Task::Setup(Setup::Kernel { to }) => doctor::setup_kernel(to, quiet).await,
            Task::Completion { shell } => stdio::print(&manual::completion(shell)).map(|()| 0),
            Task::Manual { directory: Some(directory), .. } => manual::pages(&directory),
            Task::Manual { directory: None, .. } => {
                stdio::print(manual::markdown().as_bytes()).map(|()| 0)
            }
        }
    });
    // A thread may still sit in a read of our input or a write of our output, for ever.
    runtime.shutdown_background();
    result
}
