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

/// What a session runs.
#[derive(Debug)]
pub(crate) struct ExecRequest {
    /// None for the sandbox's shell.
    pub(crate) program: Option<String>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) context: ExecContext,
    pub(crate) options: SessionOptions,
}

impl ExecRequest {
    /// Takes the words of a command; none is the sandbox's shell.
    pub(crate) fn new(
        words: Vec<OsString>,
        context: ExecContext,
        options: SessionOptions,
    ) -> Result<Self, Failure> {
        let mut request = ExecRequest { program: None, arguments: Vec::new(), context, options };
        request.set_words(words)?;
        Ok(request)
    }

    /// Replaces program and arguments.
    pub(crate) fn set_words(&mut self, words: Vec<OsString>) -> Result<(), Failure> {
        let mut words = words.into_iter();
        let program = words.next().map(OsString::into_string).transpose();
        self.program = program.map_err(|program| {
            Failure::new(format!("cannot run {program:?}: the program's name is not valid UTF-8"))
        })?;
        self.arguments = words.collect();
        Ok(())
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

/// Sets arguments, context and limits of a request on an exec or attach builder, which have the
/// same setters but no trait in common.
macro_rules! configure {
    ($builder:expr, $request:expr) => {{
        let (mut builder, request): (_, ExecRequest) = ($builder, $request);
        for argument in request.arguments {
            builder = builder.arg_bytes(argument.into_vec());
        }
        for (key, value) in request.context.variables {
            builder = builder.env_bytes(key.into_vec(), value.into_vec());
        }
        if let Some(workdir) = request.context.workdir {
            builder = builder.cwd_bytes(workdir.into_vec());
        }
        if let Some(user) = request.context.user {
            builder = builder.user(user);
        }
        for limit in request.options.rlimits {
            builder = builder.rlimit_range(limit.resource, limit.soft, limit.hard);
        }
        match request.options.timeout {
            Some(time) => builder.timeout(time),
            None => builder,
        }
    }};
}
pub(crate) use configure;

/// Starts a session.
pub(crate) async fn start(
    sandbox: &Sandbox,
    mut request: ExecRequest,
) -> MicrosandboxResult<ExecHandle> {
    let SessionOptions { tty, detach, interactive, .. } = request.options;
    let wants_stdin = if detach { tty } else { interactive || stdin::is_interactive() };
    let program = request.program.take();
    let configure = |builder: ExecOptionsBuilder| {
        let builder = configure!(builder, request).tty(tty);
        if wants_stdin { builder.stdin_pipe() } else { builder }
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
    /// The command continues to run as the session with this id.
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
