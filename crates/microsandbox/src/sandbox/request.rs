//! The request for a command: its options over the sandbox's defaults.

use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::options::{ExecOptions, no_nul, not_empty};
use crate::record::Settings;
use crate::sandbox::Sandbox;
use msb_client::{ExecCore, ExecRequest, Joined};
use msb_state::SandboxConfig;
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{Exec, Rlimit, SessionId, StdinMode};
use std::time::Duration;

/// The default shell of a sandbox.
const DEFAULT_SHELL: &[u8] = b"/bin/sh";

impl Sandbox {
    /// Follows a session by its id.
    pub(crate) async fn join(
        &self,
        session_id: &str,
        from: Option<u64>,
    ) -> MicrosandboxResult<(ExecCore, Joined)> {
        let session = session_named(session_id)?;
        let connection = self.connect().await?;
        // Cancelling the wait drops the core, and so closes the channel.
        let (mut core, answer) = ExecCore::join(&connection, session, from)?;
        let joined = answer.await?;
        core.note(&joined);
        Ok((core, joined))
    }

    /// Returns the shell for scripts, and for an attach without a command.
    pub(crate) fn own_shell(&self) -> &[u8] {
        shell_of(&self.inner.config)
    }

    /// Returns the user of commands and operations that name none.
    pub(crate) fn own_user(&self) -> Result<Option<String>, Error> {
        own_user(&self.inner.config)
    }

    /// Builds the request for a command from its options and this sandbox's defaults.
    pub(crate) fn request_for(
        &self,
        program: Program,
        options: ExecOptions,
    ) -> Result<(ExecRequest, Settings), Error> {
        compose(&self.inner.config, program, options)
    }
}

/// The program of a command.
#[derive(Debug, Clone)]
pub enum Program {
    /// A program, looked up in the command's `PATH` unless it contains a slash.
    Command(Vec<u8>),
    /// A script for the sandbox's shell.
    Script(Vec<u8>),
}

fn compose(
    config: &SandboxConfig,
    program: Program,
    options: ExecOptions,
) -> Result<(ExecRequest, Settings), Error> {
    let mut argv = match program {
        Program::Command(command) => {
            not_empty("the command", &command)?;
            no_nul("the command", &command)?;
            vec![command]
        }
        Program::Script(script) => {
            no_nul("the script", &script)?;
            vec![shell_of(config).to_vec(), b"-c".to_vec(), script]
        }
    };
    argv.extend(options.args);
    let settings = Settings {
        timeout: options.timeout,
        max_output: options.max_output,
        wait_for_eof: options.wait_for_eof,
    };
    let own_cwd = config.workdir.as_ref().map(|workdir| workdir.as_bytes().to_vec());
    let exec = Exec {
        session: new_session()?,
        argv: argv.into_iter().map(Into::into).collect(),
        env: merged(config, options.env).into_iter().map(Into::into).collect(),
        cwd: options.cwd.or(own_cwd).unwrap_or_else(|| b"/".to_vec()),
        user: options.user.map_or_else(|| own_user(config), |user| Ok(Some(user)))?,
        stdin: StdinMode::Null,
        tty: options.tty,
        // A larger value is more than five hundred years.
        timeout_ns: options.timeout.and_then(nanos),
        rlimits: options
            .rlimits
            .iter()
            .map(|limit| Rlimit {
                resource: limit.resource.number(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        drain_ns: options.drain.map(|drain| nanos(drain).unwrap_or(u64::MAX)),
        wait_for_eof: options.wait_for_eof,
        window: OUTPUT_WINDOW,
        modes: options.modes,
    };
    Ok((ExecRequest { exec, stdin: options.stdin }, settings))
}

fn shell_of(config: &SandboxConfig) -> &[u8] {
    config.shell.as_ref().map_or(DEFAULT_SHELL, |shell| shell.as_bytes())
}

fn nanos(time: Duration) -> Option<u64> {
    u64::try_from(time.as_nanos()).ok()
}

/// Merges the sandbox's variables and the command's; each name once, with its last value.
fn merged(config: &SandboxConfig, own: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
    let of_sandbox =
        config.env.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut last = std::collections::HashMap::new();
    let mut names = Vec::new();
    for (key, value) in of_sandbox.chain(own) {
        if last.insert(key.clone(), value).is_none() {
            names.push(key);
        }
    }
    let entry = |mut entry: Vec<u8>| {
        let value = last.get(&entry);
        entry.push(b'=');
        entry.extend_from_slice(value.map(Vec::as_slice).unwrap_or_default());
        entry
    };
    names.into_iter().map(entry).collect()
}

fn own_user(config: &SandboxConfig) -> Result<Option<String>, Error> {
    let Some(user) = &config.user else { return Ok(None) };
    match std::str::from_utf8(user.as_bytes()) {
        Ok(user) => Ok(Some(user.to_owned())),
        Err(_) => {
            let context = format!("the user {user:?} of the sandbox is not valid UTF-8");
            Err(Error::new(ErrorKind::InvalidConfig, Origin::Caller, context))
        }
    }
}

/// Parses a session id.
fn session_named(text: &str) -> Result<SessionId, Error> {
    text.parse().map_err(|error| Error::invalid(format!("{text:?} is no session: {error}")))
}

/// Creates a unique session id.
fn new_session() -> Result<SessionId, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::new(ErrorKind::Io, Origin::Host, format!("cannot draw random bytes: {error}"))
            .with_os_error(error.raw_os_error())
    })?;
    Ok(SessionId::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ExecOptionsBuilder;

    fn config() -> SandboxConfig {
        SandboxConfig::new("a".parse().unwrap(), "/")
    }

    fn composed(
        config: &SandboxConfig,
        program: Program,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> Exec {
        let options = f(ExecOptionsBuilder::new()).build().unwrap();
        compose(config, program, options).unwrap().0.exec
    }

    fn command(text: &str) -> Program {
        Program::Command(text.into())
    }

    fn strings(list: &[impl std::ops::Deref<Target = Vec<u8>>]) -> Vec<String> {
        list.iter().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a7_later_variables_win_and_each_appears_once() {
        let mut config = config();
        config.env = vec![("A".into(), "1".into()), ("B".into(), "1".into())];
        config.env.push(("A".into(), "2".into()));
        let exec = composed(&config, command("x"), |o| o.env("B", "3").env("C", "=").env("B", "4"));
        assert_eq!(strings(&exec.env), ["A=2", "B=4", "C=="]);
    }

    #[test]
    fn a6_a_script_precedes_the_builders_arguments() {
        let mut config = config();
        let exec = composed(&config, Program::Script(b"echo $1".into()), |o| o.arg("sh").arg("x"));
        assert_eq!(strings(&exec.argv), ["/bin/sh", "-c", "echo $1", "sh", "x"]);
        config.shell = Some("/bin/ash".into());
        let exec = composed(&config, Program::Script(b"".into()), |o| o);
        assert_eq!(strings(&exec.argv), ["/bin/ash", "-c", ""]);
    }

    #[test]
    fn a8_directory_and_user_of_command_sandbox_or_default() {
        let mut config = config();
        let exec = composed(&config, command("x"), |o| o);
        assert_eq!((exec.cwd.as_slice(), exec.user), (b"/".as_slice(), None));
        (config.workdir, config.user) = (Some("/w".into()), Some("1:2".into()));
        let exec = composed(&config, command("x"), |o| o);
        assert_eq!((exec.cwd.as_slice(), exec.user.as_deref()), (b"/w".as_slice(), Some("1:2")));
        let exec = composed(&config, command("x"), |o| o.cwd("/c").user("me"));
        assert_eq!((exec.cwd.as_slice(), exec.user.as_deref()), (b"/c".as_slice(), Some("me")));
    }

    #[test]
    fn a2_invalid_commands_are_refused_arguments_kept() {
        for bad in ["", "a\0b"] {
            let error = compose(&config(), command(bad), ExecOptions::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        let script = Program::Script(b"\0".into());
        assert!(compose(&config(), script, ExecOptions::default()).is_err());
        let exec = composed(&config(), command("x"), |o| o.args(["", " ", "$A;*\n"]));
        assert_eq!(strings(&exec.argv), ["x", "", " ", "$A;*\n"]);
    }

    #[test]
    fn d5_no_two_commands_have_the_same_id() {
        let ids: std::collections::HashSet<SessionId> =
            (0..1000).map(|_| new_session().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn d3_a_timeout_is_exact_and_a_huge_one_is_none() {
        let exec = composed(&config(), command("x"), |o| o.timeout(Duration::from_nanos(1)));
        assert_eq!(exec.timeout_ns, Some(1));
        let exec = composed(&config(), command("x"), |o| o.timeout(Duration::MAX));
        assert_eq!(exec.timeout_ns, None);
    }
}
