//! How msb itself fails: an exit code, and mostly one line about it.

use crate::stdio;
use clap::error::ErrorKind as UsageKind;
use microsandbox::{Error, ErrorKind, ExecFailed, ExecFailureKind};
use std::io;

/// The command's time ran out.
pub(crate) const TIMED_OUT: u8 = 124;
/// msb failed, and not the command.
const OWN: u8 = 125;
/// The command is not executable, or not for this user.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;
/// SIGPIPE's number, which is the same on every Linux that there is a driver for.
const SIGPIPE: i32 = 13;

/// Why msb ends without an exit code from the command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    /// Nothing is said about an end that the user asked for.
    pub(crate) message: Option<String>,
    /// The user does not want to wait for anything any more.
    pub(crate) leaves: bool,
}

impl Failure {
    /// A failure of msb itself.
    pub(crate) fn own(message: impl Into<String>) -> Self {
        Failure { code: OWN, message: Some(message.into()), leaves: false }
    }

    /// Ended by a signal, as far as a parent can see.
    pub(crate) fn signalled(signal: i32) -> Self {
        Failure { code: signal_code(signal), message: None, leaves: false }
    }

    /// The user said it often enough.
    pub(crate) fn left(signal: i32) -> Self {
        Failure { leaves: true, ..Failure::signalled(signal) }
    }

    /// The command's time ran out.
    pub(crate) fn timed_out(message: String) -> Self {
        Failure { code: TIMED_OUT, message: Some(message), leaves: false }
    }

    /// A write to one of our outputs failed. That nobody reads it is how `head` ends what is
    /// before it, and nothing to talk about.
    pub(crate) fn write(stream: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::signalled(SIGPIPE);
        }
        Failure::own(format!("cannot write {stream}: {error}"))
    }
}

impl From<ExecFailed> for Failure {
    fn from(failed: ExecFailed) -> Self {
        let code = match failed.kind {
            ExecFailureKind::NotFound => NOT_FOUND,
            ExecFailureKind::PermissionDenied | ExecFailureKind::NotExecutable => NOT_EXECUTABLE,
            _ => OWN,
        };
        Failure { code, message: Some(failed.to_string()), leaves: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::ExecFailed(failed) => failed.into(),
            error => {
                let hint = match error.kind() {
                    ErrorKind::SandboxNotFound => "; msb ls shows those that do",
                    ErrorKind::StreamLost => "; how the command ended is not known",
                    _ => "",
                };
                Failure::own(format!("{error}{hint}"))
            }
        }
    }
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
        UsageKind::UnknownArgument => {
            Err(Failure::own(format!("{}; a command comes after --", usage_line(&text))))
        }
        _ => Err(Failure::own(usage_line(&text))),
    }
}

/// The first paragraphs of clap's text, which are about the mistake, as one line.
fn usage_line(text: &str) -> String {
    let about = text.split("\n\n").take_while(|part| !part.starts_with("Usage:"));
    let mut parts: Vec<String> = about
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
        .collect();
    parts.push("msb --help lists what there is".to_owned());
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
        let line = usage_line(text);
        assert_eq!(
            line,
            "the following required arguments were not provided: <NAME>; \
             msb --help lists what there is"
        );
    }
}
