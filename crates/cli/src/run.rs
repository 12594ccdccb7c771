//! `msb run` and `msb exec`.

use crate::args::{Context, Exec, How, Run};
use crate::failure::Failure;
use crate::image::Bar;
use crate::manage::described;
use crate::signals::{Signals, Wish};
use crate::{attach, stdio, stream};
use microsandbox::{ErrorKind, ExecHandle, ExecOptionsBuilder, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::SystemTime;

/// Runs a command in a sandbox that is there.
pub(crate) async fn exec(args: Exec, quiet: bool) -> Result<u8, Failure> {
    if args.tty {
        return attach::command(args, quiet).await;
    }
    let mut signals = Signals::take()?;
    let command = Command::new(args.command)?;
    let sandbox = unless_signalled(&mut signals, Sandbox::get(&args.name)).await??;
    let Context { env, workdir, user } = args.context;
    let configure = |options: ExecOptionsBuilder| {
        let mut options = options;
        for variable in env {
            if let Some(value) = variable.value {
                options = options.env_bytes(variable.key.into_vec(), value.into_vec());
            }
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
    let starting = command.start(&sandbox, &args.how, configure);
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
    let given = match args.command.is_empty() {
        false => Some(Command::new(args.command)?),
        true => None,
    };
    let name = args.name.map_or_else(made_up_name, Ok)?;
    let bar = Bar::new(quiet);
    let builder = described(&name, &args.image, args.machine, args.context, &bar)?;
    let mut signals = Signals::take()?;
    let created = created(builder.detached(args.how.detach), &mut signals, &bar).await;
    bar.clear();
    let sandbox = created?;
    let own = Own { created_at: sandbox.info().await?.created_at, sandbox };
    let command = given.map_or_else(|| own.default_command(), Ok);
    let result = match &command {
        Ok(command) => own.run(command, &args.how, &mut signals).await,
        Err(_) => command.map(|_| 0),
    };
    let stays = args.how.detach && result.is_ok();
    let leaves = matches!(&result, Err(failure) if failure.leaves);
    if stays {
        if !quiet {
            stdio::print(format!("{name}\n").as_bytes())?;
        }
    } else if !leaves {
        own.remove(&mut signals).await?;
    }
    result
}

/// A command and its arguments.
#[derive(Debug)]
struct Command {
    program: String,
    arguments: Vec<OsString>,
}

impl Command {
    fn new(words: Vec<OsString>) -> Result<Self, Failure> {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default().into_string().map_err(|program| {
            Failure::own(format!("the name of the command {program:?} is not valid UTF-8"))
        })?;
        Ok(Command { program, arguments: words.collect() })
    }

    async fn start(
        &self,
        sandbox: &Sandbox,
        how: &How,
        configure: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> microsandbox::MicrosandboxResult<ExecHandle> {
        let arguments = self.arguments.iter();
        sandbox
            .exec_stream_with(&self.program, |options| {
                let mut options = configure(options);
                for argument in arguments {
                    options = options.arg_bytes(argument.clone().into_vec());
                }
                for limit in &how.rlimits {
                    options = options.rlimit_range(limit.resource, limit.soft, limit.hard);
                }
                if how.interactive {
                    options = options.stdin_pipe();
                }
                match how.timeout {
                    Some(time) => options.timeout(time),
                    None => options,
                }
            })
            .await
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
    /// What the image runs when nobody says what.
    fn default_command(&self) -> Result<Command, Failure> {
        match self.sandbox.default_command() {
            Ok(words) => Command::new(words.into_iter().map(OsString::from).collect()),
            Err(error) => Err(Failure::own(format!("{error}: msb run IMAGE -- CMD"))),
        }
    }

    async fn run(
        &self,
        command: &Command,
        how: &How,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let starting = command.start(&self.sandbox, how, |options| options);
        let mut handle = unless_signalled(signals, starting).await??;
        if how.detach {
            return stream::started(&mut handle, signals).await.map(|()| 0);
        }
        stream::follow(&mut handle, signals, how.timeout).await
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

/// Creates a sandbox. A signal meanwhile takes it away again, and a second one does not wait.
///
/// As long as an image is being got there is nothing yet to take away.
async fn created(
    builder: SandboxBuilder,
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

fn made_up_name() -> Result<String, Failure> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::own(format!("cannot draw random bytes: {error}")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("run-{digits}"))
}
