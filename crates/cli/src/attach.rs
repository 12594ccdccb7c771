//! `msb attach`, and `--tty`: this terminal on a command.

use crate::args::Attach;
use crate::failure::Failure;
use crate::list::session;
use crate::options::How;
use crate::run::{Command, Ended, Place, unless_signalled};
use crate::signals::Signals;
use crate::{stdio, stream};
use microsandbox::{
    AttachOptionsBuilder, AttachOutcome, MicrosandboxResult, ReattachFrom, Sandbox,
};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Takes a session up again, or runs the sandbox's shell.
pub(crate) async fn attach(args: Attach, quiet: bool) -> Result<u8, Failure> {
    let mut signals = Signals::take()?;
    let sandbox = unless_signalled(&mut signals, Sandbox::get(&args.name)).await??;
    let keys = args.detach_keys;
    let Some(id) = args.session else {
        need_terminal()?;
        let attaching = sandbox.attach_outcome(None::<String>, |options| with_keys(options, keys));
        return Ok(tied(attaching, None, &mut signals).await?.told(&sandbox, quiet));
    };
    let session = unless_signalled(&mut signals, session(&sandbox, &id)).await??;
    if session.tty {
        need_terminal()?;
        let attaching = sandbox.attach_session_outcome(&session.id, keys.as_deref());
        return Ok(tied(attaching, None, &mut signals).await?.told(&sandbox, quiet));
    }
    watch(&sandbox, &session.id, quiet, &mut signals).await
}

/// Runs a command, or without one the sandbox's shell, on this terminal.
pub(crate) async fn command(
    sandbox: &Sandbox,
    command: Option<Command>,
    how: &How,
    place: Place,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let (program, arguments) = command.map(|command| (command.program, command.arguments)).unzip();
    let configure = |mut options: AttachOptionsBuilder| {
        for argument in arguments.unwrap_or_default() {
            options = options.arg_bytes(argument.into_vec());
        }
        for (key, value) in place.variables {
            options = options.env_bytes(key.into_vec(), value.into_vec());
        }
        if let Some(workdir) = place.workdir {
            options = options.cwd_bytes(workdir.into_vec());
        }
        if let Some(user) = place.user {
            options = options.user(user);
        }
        if let Some(time) = how.timeout {
            options = options.timeout(time);
        }
        for limit in &how.rlimits {
            options = options.rlimit_range(limit.resource, limit.soft, limit.hard);
        }
        with_keys(options, how.detach_keys.clone())
    };
    tied(sandbox.attach_outcome(program, configure), how.timeout, signals).await
}

fn with_keys(options: AttachOptionsBuilder, keys: Option<String>) -> AttachOptionsBuilder {
    match keys {
        Some(keys) => options.detach_keys(keys),
        None => options,
    }
}

/// Before anything is made for it: there is a terminal.
pub(crate) fn need_terminal() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::own(
        "standard input is not a terminal, as -t and attach need it; exec -i does without",
    ))
}

/// Waits until it is over, or until a signal: the terminal has its settings back then, and the
/// command runs on.
async fn tied(
    attaching: impl Future<Output = MicrosandboxResult<AttachOutcome>>,
    time: Option<Duration>,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let outcome = unless_signalled(signals, attaching).await??;
    match outcome.status {
        Some(status) => stream::exit_code(&status, time).map(Ended::With),
        None => Ok(Ended::Runs(outcome.session_id)),
    }
}

/// Prints what a session without a terminal has put out, as far as it is kept, and what is still
/// to come.
async fn watch(
    sandbox: &Sandbox,
    id: &str,
    quiet: bool,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let following = sandbox.reattach(id, ReattachFrom::Start);
    let mut handle = unless_signalled(signals, following).await??;
    if handle.missed() > 0 && !quiet {
        stdio::complain(&format!("the first {} bytes are no longer kept", handle.missed()));
    }
    stream::watch(&mut handle, signals).await
}
