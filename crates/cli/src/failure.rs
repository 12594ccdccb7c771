//! Failures of msb itself: an exit code and, mostly, one line of text.

use crate::stdio;
use microsandbox::{Error, ErrorKind, ExecFailed, ExecFailureKind};
use std::io;
use std::process::ExitCode;

/// The command timed out.
const TIMED_OUT: u8 = 124;
/// msb failed, not the command.
const MSB_FAILED: u8 = 125;
/// The program is not executable, or not for this user.
const NOT_EXECUTABLE: u8 = 126;
/// The program was not found.
const NOT_FOUND: u8 = 127;
/// The number of SIGPIPE, the same on every Linux that has a driver.
pub(crate) const SIGPIPE: i32 = 13;

/// Why msb exits without an exit code of the command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// None if there is nothing to report, as when the user requested the exit.
    message: Option<String>,
    /// The user insists on an immediate exit: skip clean-up that waits.
    pub(crate) exit_now: bool,
    /// The agent is alive but does not answer: send it no more requests.
    pub(crate) agent_silent: bool,
    /// The signal that msb kills itself with, so that a shell's loop ends too.
    signal: Option<i32>,
    /// Details for `--verbose`.
    causes: Vec<String>,
}

impl Failure {
    /// A failure of msb itself.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure { message: Some(message.into()), ..Failure::reported() }
    }

    /// A failure of msb itself that was already reported.
    pub(crate) fn reported() -> Self {
        Failure {
            code: MSB_FAILED,
            message: None,
            exit_now: false,
            agent_silent: false,
            signal: None,
            causes: Vec::new(),
        }
    }

    /// As a program that has no other program's exit code to report: 1.
    pub(crate) fn general(self) -> Self {
        let code = if self.code == MSB_FAILED { 1 } else { self.code };
        Failure { code, ..self }
    }

    /// A signal to msb ended it.
    pub(crate) fn by_signal(signal: i32) -> Self {
        Failure { code: signal_code(signal), signal: Some(signal), ..Failure::reported() }
    }

    /// As [`Failure::by_signal`], without any clean-up that waits.
    pub(crate) fn exit_now(signal: i32) -> Self {
        Failure { exit_now: true, ..Failure::by_signal(signal) }
    }

    /// The agent is alive but does not answer.
    pub(crate) fn agent_silent(message: &str) -> Self {
        Failure { agent_silent: true, ..Failure::new(message) }
    }

    /// The exit of a command cannot be told.
    pub(crate) fn no_exit(error: Error) -> Self {
        let lost = error.kind() == ErrorKind::StreamLost;
        let mut failure = Failure::from(error);
        if let Some(message) = failure.message.as_mut().filter(|_| lost) {
            message.push_str("; the command's exit status is unknown");
        }
        failure
    }

    /// The command timed out.
    pub(crate) fn timed_out(message: String) -> Self {
        Failure { code: TIMED_OUT, ..Failure::new(message) }
    }

    /// A write to an output stream failed. A broken pipe ends msb by SIGPIPE, without a message.
    pub(crate) fn write(stream: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::by_signal(SIGPIPE);
        }
        Failure::new(format!("cannot write {stream}: {error}"))
    }

    /// Prints the message, and the causes if `verbose`.
    pub(crate) fn report(&self, verbose: bool) {
        let causes = self.causes.iter().filter(|_| verbose);
        self.message.iter().chain(causes).for_each(|line| stdio::report(line));
    }

    /// Reports the failure and returns the exit code, unless a signal ends the process first.
    pub(crate) fn exit(self, verbose: bool) -> ExitCode {
        self.report(verbose);
        if let Some(signal) = self.signal {
            // Returns if the parent process blocked the signal.
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
            _ => MSB_FAILED,
        };
        let causes = vec![format!(
            "kind {}, at {}: {} ({})",
            failed.kind.name(),
            failed.stage.name(),
            failed.errno_name,
            failed.errno
        )];
        Failure { code, causes, ..Failure::new(failed.to_string()) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::ExecFailed(failed) => failed.into(),
            error => {
                let text = error.to_string();
                let (general, own) = remedies(error.kind());
                let text = text.strip_suffix(general).unwrap_or(&text);
                Failure { causes: causes(&error), ..Failure::new(format!("{text}{own}")) }
            }
        }
    }
}

/// Returns the remedy at the end of the library's text, and that of msb in its place.
fn remedies(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::SandboxNotFound => ("", "; list sandboxes with: msb ls"),
        ErrorKind::SandboxNotRunning => ("; start it first", "; start it with: msb start"),
        ErrorKind::SandboxRunning => {
            ("; stop it first, or force the removal", "; force with: msb rm -f")
        }
        ErrorKind::SandboxAlreadyExists => (
            "; remove it, replace it, or choose another name",
            "; use msb rm, --replace or another --name",
        ),
        ErrorKind::NoCommand => {
            ("; give one", "; give one: msb run IMAGE CMD, or use -t for a shell")
        }
        ErrorKind::NoDriver => ("", "; for details run: msb doctor"),
        _ => ("", ""),
    }
}

/// Returns the error's kind, origin and errno, and then its sources.
fn causes(error: &Error) -> Vec<String> {
    let errno = error.os_error().map(|errno| format!(", errno {errno}")).unwrap_or_default();
    let mut causes = vec![format!("kind {}, origin {}{errno}", error.kind(), error.origin())];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(format!("caused by: {cause}"));
        source = cause.source();
    }
    causes
}

/// Returns the exit code that a shell shows for a process killed by `signal`.
pub(crate) fn signal_code(signal: i32) -> u8 {
    u8::try_from(signal).ok().and_then(|signal| signal.checked_add(128)).unwrap_or(MSB_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_exit_code_of_a_signal_is_128_plus_its_number() {
        assert_eq!((signal_code(9), signal_code(15), signal_code(64)), (137, 143, 192));
        assert_eq!((signal_code(-1), signal_code(200)), (MSB_FAILED, MSB_FAILED));
    }
}
