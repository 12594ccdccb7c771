//! `msb run` and `msb exec`.

use crate::args::{Exec, Run};
use crate::failure::Failure;
use crate::image::Bar;
use crate::manage::{described, made_up_name};
use crate::options::{Context, How};
use crate::signals::{Signals, Wish};
use crate::{attach, feed, progress, stdio, stream};
use microsandbox::{ErrorKind, ExecHandle, ExecOptionsBuilder, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::SystemTime;

/// Has a shell that runs a script take its own place, without one.
const SHELL_ITSELF: &str = "exec \"$0\"";
/// How much of a session's id is shown: enough for any list that people look at.
const SHORT_ID: usize = 12;

/// Runs a command in a sandbox that is there.
pub(crate) async fn exec(mut args: Exec, quiet: bool) -> Result<u8, Failure> {
    let variables = args.context.variables()?;
    let command = Command::new(args.command)?;
    let Context { workdir, user, .. } = args.context;
    let on_terminal = args.how.on_terminal()?;
    let mut signals = Signals::take()?;
    let sandbox = unless_signalled(&mut signals, Sandbox::get(&args.name)).await??;
    if on_terminal {
        let place = Place { variables, workdir, user };
        let ended = attach::command(&sandbox, command, &args.how, place, &mut signals).await?;
        return Ok(ended.told(&sandbox, quiet));
    }
    let configure = |options: ExecOptionsBuilder| {
        let mut options = options;
        for (key, value) in variables {
            options = options.env_bytes(key.into_vec(), value.into_vec());
        }
        if let Some(workdir) = workdir {
            options = options.cwd_bytes(workdir.into_vec());
        }
        match user {
            Some(user) => options.user(user),
            None => options,
        }
    };
    // Nothing is sent before the connection is there, and everything at once then.
    let starting = start(&sandbox, command.as_ref(), &args.how, configure);
    let mut handle = unless_signalled(&mut signals, starting).await??;
    if args.how.detach {
        stream::started(&mut handle, &mut signals).await?;
        if !quiet {
            stdio::print(format!("{}\n", handle.id()).as_bytes())?;
        }
        return Ok(0);
    }
    stream::follow(&mut handle, &mut signals, args.how.timeout).await
}

/// Runs a command in a sandbox that is made for it.
pub(crate) async fn run(args: Run, quiet: bool) -> Result<u8, Failure> {
    let given = Command::new(args.command)?;
    args.how.on_terminal()?;
    let name = args.name.map_or_else(|| made_up_name("run"), Ok)?;
    let bar = Bar::new(quiet);
    let builder = described(&name, &args.image, args.machine, args.context, &bar)?;
    let mut signals = Signals::take()?;
    // What can be left running by a key has to outlive this process.
    let outlives = args.how.detach || args.how.tty;
    let creating = created(builder.detached(outlives), outlives, &mut signals, &bar);
    let sandbox = progress::beside(&bar, format!("starting {name}"), creating).await?;
    let own = Own { created_at: sandbox.info().await?.created_at, sandbox };
    let ended = match given.map_or_else(|| own.default_command(args.how.tty), |it| Ok(Some(it))) {
        Ok(command) => own.run(command, &args.how, &mut signals).await,
        Err(failure) => Err(failure),
    };
    let leaves = matches!(&ended, Err(failure) if failure.leaves);
    let stays = matches!(&ended, Ok(Ended::Runs(_))) || (leaves && !outlives);
    if !stays {
        own.remove(&mut signals).await?;
    }
    if args.how.detach && stays && !quiet {
        stdio::print(format!("{name}\n").as_bytes())?;
    }
    ended.map(|ended| ended.told(&own.sandbox, quiet || args.how.detach))
}

/// What became of a command that was started.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It ended with this exit code.
    With(u8),
    /// It runs on, as this session.
    Runs(String),
}

impl Ended {
    /// Tells how a command that runs on is taken up again. The exit code for all of it.
    pub(crate) fn told(self, sandbox: &Sandbox, quiet: bool) -> u8 {
        match self {
            Ended::With(code) => return code,
            Ended::Runs(id) if !quiet => {
                let name = sandbox.name();
                let id = id.get(..SHORT_ID).unwrap_or(&id);
                stdio::complain_anew(&format!("left running; msb attach {name} {id} takes it up"));
            }
            Ended::Runs(_) => {}
        }
        0
    }
}

/// Where and as whom a command runs, if not as the sandbox says.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) workdir: Option<OsString>,
    pub(crate) user: Option<String>,
}

/// A command and its arguments.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) program: String,
    pub(crate) arguments: Vec<OsString>,
}

impl Command {
    fn new(words: Vec<OsString>) -> Result<Option<Self>, Failure> {
        let mut words = words.into_iter();
        let Some(program) = words.next() else { return Ok(None) };
        let program = program.into_string().map_err(|program| {
            Failure::own(format!("the name of the command {program:?} is not valid UTF-8"))
        })?;
        Ok(Some(Command { program, arguments: words.collect() }))
    }
}

/// Starts a command, or without one the sandbox's shell.
async fn start(
    sandbox: &Sandbox,
    command: Option<&Command>,
    how: &How,
    configure: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
) -> microsandbox::MicrosandboxResult<ExecHandle> {
    let configure = |options| {
        let mut options = configure(options);
        for argument in command.iter().flat_map(|command| &command.arguments) {
            options = options.arg_bytes(argument.clone().into_vec());
        }
        for limit in &how.rlimits {
            options = options.rlimit_range(limit.resource, limit.soft, limit.hard);
        }
        let input = if how.detach { how.tty } else { how.interactive || feed::is_for_us() };
        if input {
            options = options.stdin_pipe();
        }
        match how.timeout {
            Some(time) => options.timeout(time),
            None => options,
        }
        .tty(how.tty)
    };
    match command {
        Some(command) => sandbox.exec_stream_with(&command.program, configure).await,
        None => sandbox.shell_stream_with(SHELL_ITSELF, configure).await,
    }
}

/// A sandbox that this process made.
#[derive(Debug)]
struct Own {
    sandbox: Sandbox,
    /// Tells it from another that took its name since.
    created_at: SystemTime,
}

impl Own {
    /// What the image runs when nobody says what; on a terminal a shell, if it says nothing.
    fn default_command(&self, tty: bool) -> Result<Option<Command>, Failure> {
        match self.sandbox.default_command() {
            Ok(words) => Command::new(words.into_iter().map(OsString::from).collect()),
            Err(_) if tty => Ok(None),
            Err(error) => {
                let text = format!("{error}; give one: msb run IMAGE CMD, or -t for a shell");
                Err(Failure::own(text))
            }
        }
    }

    async fn run(
        &self,
        command: Option<Command>,
        how: &How,
        signals: &mut Signals,
    ) -> Result<Ended, Failure> {
        if how.tty && !how.detach {
            return attach::command(&self.sandbox, command, how, Place::default(), signals).await;
        }
        let starting = start(&self.sandbox, command.as_ref(), how, |options| options);
        let mut handle = unless_signalled(signals, starting).await??;
        if how.detach {
            return stream::started(&mut handle, signals).await.map(|()| Ended::Runs(handle.id()));
        }
        stream::follow(&mut handle, signals, how.timeout).await.map(Ended::With)
    }

    /// Ends and removes it, unless that was done and the name may be someone else's.
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
                wish = signals.next() => if let Wish::Leave(signal) = wish {
                    return Err(Failure::left(signal));
                },
            }
        };
        match result {
            Err(error) if error.kind() != ErrorKind::SandboxNotFound => {
                // The command's own end is worth more to whoever waits for it.
                let name = self.sandbox.name();
                stdio::complain(&format!("sandbox {name} was not removed: {error}"));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Creates a sandbox. A signal meanwhile takes it away again, and a second one does not wait, or a
/// third one when the sandbox would outlive this process.
///
/// As long as an image is being got there is nothing yet to take away.
async fn created(
    builder: SandboxBuilder,
    outlives: bool,
    signals: &mut Signals,
    bar: &Bar,
) -> Result<Sandbox, Failure> {
    let mut creating = std::pin::pin!(builder.create());
    let mut signalled = None;
    loop {
        tokio::select! {
            created = &mut creating => match (created, signalled) {
                (created, None) => return Ok(created?),
                // Only now is it certain that the name stands for our sandbox.
                (Ok(sandbox), Some(signal)) => {
                    Sandbox::remove_forced(sandbox.name()).await?;
                    return Err(Failure::signalled(signal));
                }
                (Err(_), Some(signal)) => return Err(Failure::signalled(signal)),
            },
            wish = signals.next() => match wish {
                Wish::Pass(signal) if bar.is_getting() => return Err(Failure::left(signal)),
                Wish::Pass(signal) => signalled = Some(signal),
                Wish::Kill(_) if outlives => {}
                // An attached sandbox ends with this process.
                Wish::Kill(signal) | Wish::Leave(signal) => return Err(Failure::left(signal)),
            },
        }
    }
}

/// Waits for what may be given up at any time, and gives it up at the first signal.
pub(crate) async fn unless_signalled<T>(
    signals: &mut Signals,
    waiting: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::select! {
        result = waiting => Ok(result),
        wish = signals.next() => {
            let (Wish::Pass(signal) | Wish::Kill(signal) | Wish::Leave(signal)) = wish;
            Err(Failure::signalled(signal))
        }
    }
}
