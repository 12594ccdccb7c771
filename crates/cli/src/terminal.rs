//! Sessions on this process's terminal.

use crate::args::SessionOptions;
use crate::exec::{Argv, ExecContext, Outcome, configure};
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

/// Whether the options ask for this terminal; fails if there is none.
pub(crate) fn is_requested(options: &SessionOptions) -> Result<bool, Failure> {
    match (options.tty, options.detach) {
        (true, false) => require().map(|()| true),
        (false, true) if options.interactive => Err(Failure::new(
            "cannot combine -i and -d: a background command has no standard input; use -t to give \
             it a terminal for msb attach",
        )),
        _ => Ok(false),
    }
}

/// Runs a command, or the sandbox's shell, on this terminal.
pub(crate) async fn run(
    sandbox: &Sandbox,
    argv: Option<Argv>,
    context: ExecContext,
    options: &SessionOptions,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let (program, arguments) = argv.map(|argv| (argv.program, argv.arguments)).unzip();
    let configure = |builder: AttachOptionsBuilder| {
        let builder = configure!(builder, arguments.unwrap_or_default(), context, options);
        with_detach_keys(builder, options.detach_keys.clone())
    };
    wait(sandbox.attach_outcome(program, configure), options.timeout, signals).await
}

/// Runs the sandbox's shell on this terminal.
pub(crate) async fn shell(
    sandbox: &Sandbox,
    detach_keys: Option<String>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    require()?;
    let configure = |builder| with_detach_keys(builder, detach_keys);
    wait(sandbox.attach_outcome(None::<String>, configure), None, signals).await
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

fn with_detach_keys(builder: AttachOptionsBuilder, keys: Option<String>) -> AttachOptionsBuilder {
    match keys {
        Some(keys) => builder.detach_keys(keys),
        None => builder,
    }
}

/// Waits for the end of an attach. A signal cancels it, which restores the terminal; the command
/// runs on.
async fn wait(
    attach: impl Future<Output = MicrosandboxResult<AttachOutcome>>,
    time: Option<Duration>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let outcome = signals.interrupt(attach).await??;
    match outcome.status {
        Some(status) => stream::exit_code(&status, time).map(Outcome::Exited),
        None => Ok(Outcome::Running(outcome.session_id)),
    }
}
