//! How msb itself fails: an exit code, and mostly one line about it.

use crate::args::Arguments;
use crate::stdio;
use clap::CommandFactory;
use clap::error::ErrorKind as UsageKind;
use microsandbox::{Error, ErrorKind, ExecFailed, ExecFailureKind};
use std::io;
use std::process::ExitCode;

/// The command's time ran out.
pub(crate) const TIMED_OUT: u8 = 124;
/// msb failed, and not the command.
const OWN: u8 = 125;
/// The command is not executable, or not for this user.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;
/// SIGPIPE's number, which is the same on every Linux that there is a driver for.
pub(crate) const SIGPIPE: i32 = 13;

/// Why msb ends without an exit code from the command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Nothing is said about an end that the user asked for.
    pub(crate) message: Option<String>,
    /// The user does not want to wait for anything any more.
    pub(crate) leaves: bool,
    /// The agent is alive and does not answer: it is asked for nothing more.
    pub(crate) unanswered: bool,
    /// The signal that msb itself ends by, so that a shell's loop around it ends too.
    signal: Option<i32>,
    /// What is behind it, for whoever asks.
    causes: Vec<String>,
}

impl Failure {
    /// A failure of msb itself.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Failure { message: Some(message.into()), ..Failure::silent() }
    }

    /// A failure of msb itself that was told already.
    pub(crate) fn silent() -> Self {
        Failure {
            code: OWN,
            message: None,
            leaves: false,
            unanswered: false,
            signal: None,
            causes: Vec::new(),
        }
    }

    /// Ended by a signal.
    pub(crate) fn signalled(signal: i32) -> Self {
        Failure { code: signal_code(signal), signal: Some(signal), ..Failure::silent() }
    }

    /// The user said it often enough.
    pub(crate) fn left(signal: i32) -> Self {
        Failure { leaves: true, ..Failure::signalled(signal) }
    }

    /// The agent is alive and does not answer.
    pub(crate) fn unanswered(message: String) -> Self {
        Failure { unanswered: true, ..Failure::own(message) }
    }

    /// The command's time ran out.
    pub(crate) fn timed_out(message: String) -> Self {
        Failure { code: TIMED_OUT, ..Failure::own(message) }
    }

    /// A write to one of our outputs failed. That nobody reads it is how `head` ends what is
    /// before it, and nothing to talk about.
    pub(crate) fn write(stream: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::signalled(SIGPIPE);
        }
        Failure::own(format!("cannot write {stream}: {error}"))
    }

    /// Says what is to be said, and ends as is to be ended.
    pub(crate) fn end(self, verbose: bool) -> ExitCode {
        if let Some(message) = &self.message {
            stdio::complain(message);
        }
        for cause in self.causes.iter().filter(|_| verbose) {
            stdio::complain(cause);
        }
        if let Some(signal) = self.signal {
            // Returns when the signal is blocked, as it may be for what started us.
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        ExitCode::from(self.code)
    }
}

impl From<ExecFailed> for Failure {
    fn from(failed: ExecFailed) -> Self {
        let code = match failed.kind {
            ExecFailureKind::NotFound => NOT_FOUND,
            ExecFailureKind::PermissionDenied | ExecFailureKind::NotExecutable => NOT_EXECUTABLE,
            _ => OWN,
        };
        let causes = vec![format!(
            "kind {}, at {}: {} ({})",
            failed.kind.name(),
            failed.stage.name(),
            failed.errno_name,
            failed.errno
        )];
        Failure { code, causes, ..Failure::own(failed.to_string()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::ExecFailed(failed) => failed.into(),
            error => {
                let hint = match error.kind() {
                    ErrorKind::SandboxNotFound => "; msb ls shows those that do",
                    ErrorKind::SandboxNotRunning => ": msb start",
                    ErrorKind::SandboxRunning => ": msb rm -f",
                    ErrorKind::SandboxAlreadyExists => ": msb rm, --replace, --name",
                    ErrorKind::StreamLost => "; how the command ended is not known",
                    ErrorKind::NoDriver => "; msb doctor tells more",
                    _ => "",
                };
                Failure { causes: causes(&error), ..Failure::own(format!("{error}{hint}")) }
            }
        }
    }
}

/// What an error says about itself beyond its text, and what is behind it.
fn causes(error: &Error) -> Vec<String> {
    let errno = error.os_error().map(|errno| format!(", errno {errno}")).unwrap_or_default();
    let mut causes =
        vec![format!("kind {}, noticed by the {}{errno}", error.kind(), error.origin())];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(format!("because: {cause}"));
        source = cause.source();
    }
    causes
}

/// What a parent sees of a process that a signal killed.
pub(crate) fn signal_code(signal: i32) -> u8 {
    u8::try_from(signal).ok().and_then(|signal| signal.checked_add(128)).unwrap_or(OWN)
}

/// Help and version were asked for, or the command line makes no sense.
pub(crate) fn usage(error: &clap::Error) -> Result<u8, Failure> {
    let text = error.render().to_string();
    match error.kind() {
        UsageKind::DisplayHelp | UsageKind::DisplayVersion => {
            stdio::print(text.as_bytes())?;
            Ok(0)
        }
        UsageKind::DisplayHelpOnMissingArgumentOrSubcommand | UsageKind::MissingSubcommand => {
            Err(Failure::own("no task given; msb --help lists them"))
        }
        _ => Err(Failure::own(usage_line(&text, &task_given()))),
    }
}

/// The task that the command line names, for mistakes of which clap does not tell it.
fn task_given() -> String {
    let known = Arguments::command();
    let given = std::env::args_os().skip(1).find(|word| known.find_subcommand(word).is_some());
    given.map_or_else(|| "msb".to_owned(), |task| format!("msb {}", task.display()))
}

/// The first paragraphs of clap's text, which are about the mistake, as one line, and where to read
/// how it is done.
fn usage_line(text: &str, task: &str) -> String {
    let about = text.split("\n\n").take_while(|part| !part.starts_with("Usage:"));
    let mut parts: Vec<String> = about
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
        .collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or(task);
    let words = usage.split(' ').take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
    parts.push(format!("{} --help tells more", words.collect::<Vec<_>>().join(" ")));
    let line = parts.join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_a_death_by_signal_is_128_and_its_number() {
        assert_eq!((signal_code(9), signal_code(15), signal_code(64)), (137, 143, 192));
        assert_eq!((signal_code(-1), signal_code(200)), (OWN, OWN));
    }

    #[test]
    fn a_mistake_on_the_command_line_is_told_in_one_line() {
        let text = "error: the following required arguments were not provided:\n  <NAME>\n\n\
            Usage: msb start <NAME>\n\nFor more information, try '--help'.\n";
        let line = usage_line(text, "msb");
        assert_eq!(
            line,
            "the following required arguments were not provided: <NAME>; \
             msb start --help tells more"
        );
        let text =
            "error: invalid value 'x' for '--cpus <N>': not a number\n\nFor more information\n";
        let expected =
            "invalid value 'x' for '--cpus <N>': not a number; msb run --help tells more";
        assert_eq!(usage_line(text, "msb run"), expected);
    }
}
