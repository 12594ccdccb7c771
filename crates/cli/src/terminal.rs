//! Sessions on this process's terminal.

use crate::args::SessionOptions;
use crate::exec::{ExecRequest, Outcome, configure};
use crate::failure::Failure;
use crate::signals::Signals;
use crate::stream;
use microsandbox::{AttachOptionsBuilder, AttachOutcome, MicrosandboxResult, Sandbox};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Fails, before anything is created, if standard input is not a terminal.
pub(crate) fn require() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(
        "cannot attach: standard input is not a terminal, as attach and -t require; use exec -i",
    ))
}

/// Fails if the options require a terminal that is not there, or an input that cannot be.
pub(crate) fn check(options: &SessionOptions) -> Result<(), Failure> {
    match (options.tty, options.detach) {
        (true, false) => require(),
        (false, true) if options.interactive => Err(Failure::new(
            "cannot combine -i and -d: a background command has no standard input; use -t to give \
             it a terminal for msb attach",
        )),
        _ => Ok(()),
    }
}

/// Runs a command, or the sandbox's shell, on this terminal.
pub(crate) async fn run(
    sandbox: &Sandbox,
    mut request: ExecRequest,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let (program, time) = (request.program.take(), request.options.timeout);
    let keys = request.options.detach_keys.take();
    let configure = |builder: AttachOptionsBuilder| {
        let builder = configure!(builder, request);
        match keys {
            Some(keys) => builder.detach_keys(keys),
            None => builder,
        }
    };
    wait(sandbox.attach_outcome(program, configure), time, signals).await
}

/// Attaches this terminal to a session.
pub(crate) async fn reattach(
    sandbox: &Sandbox,
    session_id: &str,
    detach_keys: Option<&str>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    require()?;
    wait(sandbox.attach_session_outcome(session_id, detach_keys), None, signals).await
}

/// Waits for the end of an attach. A signal cancels it, which restores the terminal; the command
/// runs on.
async fn wait(
    attach: impl Future<Output = MicrosandboxResult<AttachOutcome>>,
    time: Option<Duration>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let outcome = signals.interrupt(attach).await?.map_err(Failure::no_exit)?;
    match outcome.status {
        Some(status) => stream::exit_code(&status, time).map(Outcome::Exited),
        None => Ok(Outcome::Running(outcome.session_id)),
    }
}
