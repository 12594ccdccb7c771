//! `msb run` and `msb exec`.

use crate::args::{Exec, Run, SessionOptions};
use crate::exec::{self, Argv, ExecContext, Outcome};
use crate::failure::Failure;
use crate::progress::{self, ImageBar};
use crate::signals::{SignalAction, Signals};
use crate::{output, sandbox, stdio, stream, terminal};
use microsandbox::{ErrorKind, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::time::SystemTime;

/// Runs a command in a running sandbox.
pub(crate) async fn exec(args: Exec, quiet: bool) -> Result<u8, Failure> {
    let context = ExecContext::new(args.process)?;
    let argv = Argv::new(args.command)?;
    terminal::is_requested(&args.session)?;
    let mut signals = Signals::handle()?;
    let sandbox = signals.interrupt(Sandbox::get(&args.name)).await??;
    let outcome = session(&sandbox, argv, context, &args.session, &mut signals).await?;
    match &outcome {
        Outcome::Running(id) if args.session.detach => {
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
    let given = Argv::new(args.command)?;
    terminal::is_requested(&args.session)?;
    let name = sandbox::name_or_random(args.name, "run")?;
    let bar = ImageBar::new(quiet);
    let builder = sandbox::builder(&name, &args.image, args.sandbox, args.process, &bar)?;
    let mut signals = Signals::handle()?;
    // A session that can be detached from must outlive this process.
    let outlives = args.session.detach || args.session.tty;
    let creating = create(builder.detached(outlives), outlives, &mut signals, &bar);
    let sandbox = progress::spin_beside(&bar, format!("starting {name}"), creating).await?;
    let own = OwnSandbox { created_at: sandbox.info().await?.created_at, sandbox };
    let argv = given.map_or_else(|| own.default_argv(args.session.tty), |argv| Ok(Some(argv)));
    let outcome = match argv {
        Ok(argv) => {
            let context = ExecContext::default();
            session(&own.sandbox, argv, context, &args.session, &mut signals).await
        }
        Err(failure) => Err(failure),
    };
    let exit_now = matches!(&outcome, Err(failure) if failure.exit_now);
    // One that does not outlive this process needs no removal.
    let keep = matches!(&outcome, Ok(Outcome::Running(_))) || (exit_now && !outlives);
    if !keep {
        own.remove(&mut signals).await?;
    }
    if args.session.detach && keep && !quiet {
        output::print(format!("{name}\n"))?;
    }
    outcome.map(|outcome| outcome.report(&own.sandbox, quiet || args.session.detach))
}

/// Runs a command as a session: on this terminal, in the background, or on the standard streams.
async fn session(
    sandbox: &Sandbox,
    argv: Option<Argv>,
    context: ExecContext,
    options: &SessionOptions,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    if options.tty && !options.detach {
        return terminal::run(sandbox, argv, context, options, signals).await;
    }
    let starting = exec::start(sandbox, argv, context, options);
    let mut handle = signals.interrupt(starting).await??;
    if options.detach {
        stream::wait_started(&mut handle, signals).await?;
        return Ok(Outcome::Running(handle.id()));
    }
    stream::follow(&mut handle, signals, options.timeout).await.map(Outcome::Exited)
}

/// A sandbox that this process created.
#[derive(Debug)]
struct OwnSandbox {
    sandbox: Sandbox,
    /// Distinguishes it from a later sandbox of the same name.
    created_at: SystemTime,
}

impl OwnSandbox {
    /// Returns the image's default command; None is a shell, for a terminal without one.
    fn default_argv(&self, tty: bool) -> Result<Option<Argv>, Failure> {
        match self.sandbox.default_command() {
            Ok(words) => Argv::new(words.into_iter().map(OsString::from)),
            Err(_) if tty => Ok(None),
            Err(error) => {
                let text = format!("{error}; give one: msb run IMAGE CMD, or use -t for a shell");
                Err(Failure::new(text))
            }
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
                SignalAction::Forward(signal) if bar.is_pulling() => {
                    return Err(Failure::exit_now(signal));
                }
                SignalAction::Forward(signal) => signalled = Some(signal),
                SignalAction::Kill(_) if outlives => {}
                // An attached sandbox ends with this process.
                SignalAction::Kill(signal) | SignalAction::Exit(signal) => {
                    return Err(Failure::exit_now(signal));
                }
            },
        }
    }
}
