//! `msb exec --tty` and `msb attach`: this terminal on a command.

use crate::args::Exec;
use crate::failure::Failure;
use crate::manage::text;
use crate::run::unless_signalled;
use crate::signals::Signals;
use crate::stdio;
use microsandbox::{AttachOptionsBuilder, MicrosandboxResult, Sandbox};

/// What an attach returns when the command lives on.
const DETACHED: i32 = -1;

/// Runs a command, or without one the sandbox's shell, on this terminal.
pub(crate) async fn command(mut args: Exec, quiet: bool) -> Result<u8, Failure> {
    let mut words = Vec::new();
    for word in std::mem::take(&mut args.command) {
        words.push(text("the command or an argument", word)?);
    }
    let name = args.name.clone();
    let options = options(args)?;
    on_terminal(&name, quiet, async move |sandbox: &Sandbox| {
        let mut words = words.into_iter();
        match words.next() {
            Some(program) => sandbox.attach_with(program, |_| options.args(words)).await,
            None => sandbox.attach_shell_with(|_| options).await,
        }
    })
    .await
}

/// Takes a session up again.
pub(crate) async fn session(name: &str, id: &str, quiet: bool) -> Result<u8, Failure> {
    on_terminal(name, quiet, async move |sandbox: &Sandbox| sandbox.attach_session(id).await).await
}

fn options(args: Exec) -> Result<AttachOptionsBuilder, Failure> {
    let mut options = AttachOptionsBuilder::new();
    for variable in args.context.env {
        let key = text("the name of a variable", variable.key)?;
        if let Some(value) = variable.value {
            let value = text(&format!("the value of the variable {key}"), value)?;
            options = options.env(key, value);
        }
    }
    if let Some(workdir) = args.context.workdir {
        options = options.cwd(text("the working directory", workdir)?);
    }
    if let Some(user) = args.context.user {
        options = options.user(user);
    }
    if let Some(keys) = args.detach_keys {
        options = options.detach_keys(keys);
    }
    for limit in args.how.rlimits {
        options = options.rlimit_range(limit.resource, limit.soft, limit.hard);
    }
    Ok(options)
}

/// Attaches until it is over, or until a signal: the terminal has its settings back then, and the
/// command runs on.
async fn on_terminal(
    name: &str,
    quiet: bool,
    attach: impl AsyncFnOnce(&Sandbox) -> MicrosandboxResult<i32>,
) -> Result<u8, Failure> {
    let mut signals = Signals::take()?;
    let attached = async {
        let sandbox = Sandbox::get(name).await?;
        attach(&sandbox).await
    };
    match unless_signalled(&mut signals, attached).await?? {
        DETACHED => {
            if !quiet {
                stdio::complain(&format!("it runs on; msb sessions {name} tells its id"));
            }
            Ok(0)
        }
        code => u8::try_from(code)
            .map_err(|_| Failure::own(format!("the command ended with the exit code {code}"))),
    }
}
