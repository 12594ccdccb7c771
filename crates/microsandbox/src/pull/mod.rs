//! Calls that need no executor: each one polls, blocks up to a deadline, or has a descriptor to
//! poll.
//!
//! For programs with an event loop of their own and for bindings to other languages; the C library
//! uses only this module and the rest of the public API. Results are the same as in the rest of the
//! crate.
//!
//! Every wait takes a deadline: `None` waits indefinitely, a time in the past polls.

mod exec;

use crate::attach::{AttachOptions, AttachOutcome};
use crate::error::{Error, MicrosandboxResult};
use crate::output::ExitStatus;
use crate::sandbox::{Sandbox, SandboxBuilder};
use std::future::Future;
use std::thread::JoinHandle;

pub use crate::completion::{Pending, Promise, completion};
pub use crate::event::Ending;
pub use crate::image::Cancel;
pub use crate::output::errno_name;
pub use crate::record::{Gathered, Stream};
pub use crate::sandbox::{LogItem, LogNext, Program};
pub use exec::{Event, Exec, Link, Next, Request};
pub use msb_client::{Batch, Credit, Monitor, Ready, StreamEnd};
pub use msb_wire::Scope;

/// Runs a future on the library's I/O thread. It must not block.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> MicrosandboxResult<()> {
    crate::runtime::get()?.spawn(task);
    Ok(())
}

/// Starts the library's I/O thread if it is not running.
pub fn start_io() -> MicrosandboxResult<()> {
    crate::runtime::get().map(drop)
}

/// Starts a thread that blocks every signal.
pub fn spawn_thread(
    name: &str,
    f: impl FnOnce() + Send + 'static,
) -> MicrosandboxResult<JoinHandle<()>> {
    crate::runtime::spawn_joinable(name, f)
}

/// Fails in a child that was forked from a process which uses the library.
pub fn check_fork() -> MicrosandboxResult<()> {
    crate::runtime::check_fork()
}

/// Starts to create a sandbox. `cancel` cancels the pull of its image, and with it the creation;
/// after the pull it has no effect.
pub fn create(builder: SandboxBuilder, cancel: &Cancel) -> Pending<Sandbox> {
    builder.begin(cancel)
}

/// Starts to look up a sandbox by its name.
pub fn get(name: &str) -> Pending<Sandbox> {
    Sandbox::begin_get(name)
}

/// Starts a stopped sandbox.
pub fn start(name: &str) -> Pending<Sandbox> {
    Sandbox::begin_start(name)
}

/// Starts to wait for the end of a sandbox. Dropping the result cancels the wait.
pub fn wait(sandbox: &Sandbox) -> Pending<ExitStatus> {
    sandbox.begin_wait()
}

/// Runs a program on this process's terminal; without one, the sandbox's shell.
pub async fn attach(
    sandbox: &Sandbox,
    program: Option<Program>,
    options: AttachOptions,
) -> Result<AttachOutcome, Error> {
    let program = program.unwrap_or_else(|| Program::Command(sandbox.own_shell().to_vec()));
    sandbox.attach_program(program, options).await?.outcome().await
}
