//! A session of a sandbox: what it runs, how it is started, and how msb leaves it.

use crate::args::{ProcessOptions, SessionOptions};
use crate::failure::Failure;
use crate::values::{self, Variable};
use crate::{stdin, stdio};
use microsandbox::{ExecHandle, ExecOptionsBuilder, MicrosandboxResult, Sandbox};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Replaces the shell that runs this script with one that runs no script.
const EXEC_SHELL: &str = "exec \"$0\"";
/// Digits of a session id that are printed: enough to be unique in practice.
const SHORT_ID: usize = 12;

/// A program and its arguments.
#[derive(Debug)]
pub(crate) struct Argv {
    pub(crate) program: String,
    pub(crate) arguments: Vec<OsString>,
}

impl Argv {
    /// Returns None for no words.
    pub(crate) fn new(words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, Failure> {
        let mut words = words.into_iter();
        let Some(program) = words.next() else { return Ok(None) };
        let program = program.into_string().map_err(|program| {
            Failure::new(format!("cannot run {program:?}: the program's name is not valid UTF-8"))
        })?;
        Ok(Some(Argv { program, arguments: words.collect() }))
    }
}

/// Environment, working directory and user of a process, where they differ from the sandbox's.
#[derive(Debug, Default)]
pub(crate) struct ExecContext {
    /// Later variables win.
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) workdir: Option<OsString>,
    pub(crate) user: Option<String>,
}

impl ExecContext {
    /// Takes the options and reads their env files.
    pub(crate) fn new(options: ProcessOptions) -> Result<Self, Failure> {
        let ProcessOptions { env, env_file, workdir, user } = options;
        let mut all = Vec::new();
        for path in &env_file {
            let failed =
                |error| Failure::new(format!("cannot read env file {}: {error}", path.display()));
            let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
            all.extend(values::env_file(&text).map_err(failed)?);
        }
        all.extend(env);
        let set = |variable: Variable| Some((variable.key, variable.value?));
        Ok(ExecContext { variables: all.into_iter().filter_map(set).collect(), workdir, user })
    }
}

/// Sets arguments, context and limits on an exec or attach builder, which have the same setters but
/// no trait in common.
macro_rules! configure {
    ($builder:expr, $arguments:expr, $context:expr, $options:expr) => {{
        let (mut builder, context, options) = ($builder, $context, $options);
        for argument in $arguments {
            builder = builder.arg_bytes(OsStringExt::into_vec(argument));
        }
        for (key, value) in context.variables {
            builder = builder.env_bytes(key.into_vec(), value.into_vec());
        }
        if let Some(workdir) = context.workdir {
            builder = builder.cwd_bytes(workdir.into_vec());
        }
        if let Some(user) = context.user {
            builder = builder.user(user);
        }
        for limit in &options.rlimits {
            builder = builder.rlimit_range(limit.resource, limit.soft, limit.hard);
        }
        match options.timeout {
            Some(time) => builder.timeout(time),
            None => builder,
        }
    }};
}
pub(crate) use configure;

/// Starts a command, or the sandbox's shell.
pub(crate) async fn start(
    sandbox: &Sandbox,
    argv: Option<Argv>,
    context: ExecContext,
    options: &SessionOptions,
) -> MicrosandboxResult<ExecHandle> {
    let (program, arguments) = argv.map(|argv| (argv.program, argv.arguments)).unzip();
    let configure = |builder: ExecOptionsBuilder| {
        let builder = configure!(builder, arguments.unwrap_or_default(), context, options);
        let wants_stdin = match options.detach {
            true => options.tty,
            false => options.interactive || stdin::is_interactive(),
        };
        if wants_stdin { builder.stdin_pipe() } else { builder }.tty(options.tty)
    };
    match program {
        Some(program) => sandbox.exec_stream_with(program, configure).await,
        None => sandbox.shell_stream_with(EXEC_SHELL, configure).await,
    }
}

/// How msb left a session.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The command exited with this exit code.
    Exited(u8),
    /// The command runs on, as the session with this id.
    Running(String),
}

impl Outcome {
    /// Tells how to reattach to a running session, unless `quiet`, and returns msb's exit code.
    pub(crate) fn report(self, sandbox: &Sandbox, quiet: bool) -> u8 {
        match self {
            Outcome::Exited(code) => return code,
            Outcome::Running(id) if !quiet => {
                let name = sandbox.name();
                let id = id.get(..SHORT_ID).unwrap_or(&id);
                stdio::report_on_new_line(&format!(
                    "left running; reattach with: msb attach {name} {id}"
                ));
            }
            Outcome::Running(_) => {}
        }
        0
    }
}
