//! `msb run` and `msb exec`.

use crate::args::{Exec, Run, SessionOptions};
use crate::exec::{self, ExecContext, ExecRequest, Outcome};
use crate::failure::Failure;
use crate::progress::{self, ImageBar};
use crate::signals::{SignalAction, Signals};
use crate::{output, sandbox, stdio, stream, terminal};
use microsandbox::{ErrorKind, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::time::SystemTime;

/// Runs a command in a running sandbox.
pub(crate) async fn exec(args: Exec, quiet: bool) -> Result<u8, Failure> {
    let mut signals = Signals::handle()?;
    let context = ExecContext::new(args.process)?;
    let detach = args.session.detach;
    let request = ExecRequest::new(args.command, context, args.session)?;
    terminal::check(&request.options)?;
    let sandbox = signals.interrupt(Sandbox::get(&args.name)).await??;
    let outcome = session(&sandbox, request, &mut signals).await?;
    match &outcome {
        Outcome::Running(id) if detach => {
            if !quiet {
                output::print(format!("{id}\n"))?;
            }
            Ok(0)
        }
        _ => Ok(outcome.report(&sandbox, quiet)),
    }
}

/// Runs a command in a new sandbox.
pub(crate) async fn run(args: Run, quiet: bool) -> Result<u8, Failure> {
    let mut signals = Signals::handle()?;
    let SessionOptions { detach, tty, .. } = args.session;
    let mut request = ExecRequest::new(args.command, ExecContext::default(), args.session)?;
    terminal::check(&request.options)?;
    let name = sandbox::name_or_random(args.name, "run")?;
    let bar = ImageBar::new(quiet);
    let builder = sandbox::builder(&name, &args.image, args.sandbox, args.process, &bar)?;
    // A session that can be detached from must outlive this process.
    let outlives = detach || tty;
    let creating = create(builder.detached(outlives), outlives, &mut signals, &bar);
    let sandbox = progress::spin_beside(&bar, format!("starting {name}"), creating).await?;
    let own = OwnSandbox { created_at: sandbox.info().await?.created_at, sandbox };
    let outcome = match own.set_command(&mut request) {
        Ok(()) => session(&own.sandbox, request, &mut signals).await,
        Err(failure) => Err(failure),
    };
    let exit_now = matches!(&outcome, Err(failure) if failure.exit_now);
    // One that does not outlive this process needs no removal.
    let keep = matches!(&outcome, Ok(Outcome::Running(_))) || (exit_now && !outlives);
    if !keep {
        own.remove(&mut signals).await?;
    }
    if detach && keep && !quiet {
        output::print(format!("{name}\n"))?;
    }
    outcome.map(|outcome| outcome.report(&own.sandbox, quiet || detach))
}

/// Runs a command as a session: on this terminal, in the background, or on the standard streams.
async fn session(
    sandbox: &Sandbox,
    request: ExecRequest,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let SessionOptions { tty, detach, timeout, .. } = request.options;
    if tty && !detach {
        return terminal::run(sandbox, request, signals).await;
    }
    let mut handle = signals.starting(exec::start(sandbox, request)).await??;
    if detach {
        stream::wait_started(&mut handle, signals).await?;
        return Ok(Outcome::Running(handle.id()));
    }
    stream::follow(&mut handle, signals, timeout).await.map(Outcome::Exited)
}

/// A sandbox that this process created.
#[derive(Debug)]
struct OwnSandbox {
    sandbox: Sandbox,
    /// Distinguishes it from a later sandbox of the same name.
    created_at: SystemTime,
}

impl OwnSandbox {
    /// Puts the entrypoint before the command of a request, and has a request without one run the
    /// image's default command. On a terminal, the shell runs if there is none.
    fn set_command(&self, request: &mut ExecRequest) -> Result<(), Failure> {
        let entrypoint = self.sandbox.entrypoint().iter().map(OsString::from);
        if let Some(program) = request.program.take() {
            let arguments = std::mem::take(&mut request.arguments);
            let command = std::iter::once(program.into()).chain(arguments);
            return request.set_words(entrypoint.chain(command).collect());
        }
        match self.sandbox.default_command() {
            Ok(words) => request.set_words(words.into_iter().map(OsString::from).collect()),
            Err(_) if request.options.tty => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills and removes it, unless that was done and another sandbox has the name.
    async fn remove(&self, signals: &mut Signals) -> Result<(), Failure> {
        let removing = async {
            match self.sandbox.info().await {
                Ok(info) if info.created_at != self.created_at => Ok(()),
                Ok(_) => Sandbox::remove_forced(self.sandbox.name()).await,
                Err(error) => Err(error),
            }
        };
        let mut removing = std::pin::pin!(removing);
        let result = loop {
            tokio::select! {
                result = &mut removing => break result,
                action = signals.next() => if let SignalAction::Exit(signal) = action {
                    return Err(Failure::exit_now(signal));
                },
            }
        };
        match result {
            Err(error) if error.kind() != ErrorKind::SandboxNotFound => {
                // The command's exit code matters more, so this is no failure.
                let name = self.sandbox.name();
                stdio::report(&format!("cannot remove sandbox {name}: {error}"));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Creates a sandbox. A signal meanwhile removes it again; the second signal exits at once, or the
/// third if the sandbox would outlive this process.
///
/// During an image pull there is nothing to remove yet.
async fn create(
    builder: SandboxBuilder,
    outlives: bool,
    signals: &mut Signals,
    bar: &ImageBar,
) -> Result<Sandbox, Failure> {
    let mut creating = std::pin::pin!(builder.create());
    let mut signalled = None;
    loop {
        tokio::select! {
            created = &mut creating => match (created, signalled) {
                (created, None) => return Ok(created?),
                // Only now is it certain that the name belongs to this sandbox.
                (Ok(sandbox), Some(signal)) => {
                    Sandbox::remove_forced(sandbox.name()).await?;
                    return Err(Failure::by_signal(signal));
                }
                (Err(_), Some(signal)) => return Err(Failure::by_signal(signal)),
            },
            action = signals.next() => match action {
                action if !action.cancels() => signals.keep(action),
                SignalAction::Pass(signal) | SignalAction::Forward(signal)
                    if bar.is_pulling() =>
                {
                    return Err(Failure::exit_now(signal));
                }
                SignalAction::Pass(signal) | SignalAction::Forward(signal) => {
                    signalled = Some(signal);
                }
                SignalAction::Kill(_) if outlives => {}
                // An attached sandbox ends with this process.
                SignalAction::Kill(signal) | SignalAction::Exit(signal) => {
                    return Err(Failure::exit_now(signal));
                }
            },
        }
    }
}
