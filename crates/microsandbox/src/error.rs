//! Errors.

use crate::event::{ExecFailed, ExecLost};
use crate::fs_failed::FsFailed;
use crate::output::ExecOutput;
pub use msb_client::Origin;
use msb_wire::{FsErrorKind, Refusal, escape};
use std::error::Error as StdError;
use std::fmt;
use std::string::FromUtf8Error;
use std::time::Duration;

/// The error type of this library.
pub type MicrosandboxError = Error;

/// The result type of this library.
pub type MicrosandboxResult<T> = Result<T, Error>;

/// Why a call failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The command failed to start.
    ExecFailed(ExecFailed),
    /// An operation on files failed.
    Fs(FsFailed),
    /// The command's timeout expired, and it was killed.
    ExecTimeout {
        /// The timeout.
        timeout: Duration,
        /// The output until then.
        output: Box<ExecOutput>,
    },
    /// Any other failure.
    #[non_exhaustive]
    Other {
        /// The category of the failure.
        kind: ErrorKind,
        /// Where the failure was detected.
        origin: Origin,
        /// The system's error number, of the host or the guest according to `origin`.
        os_error: Option<i32>,
        /// The failed operation and its subject, in one line.
        context: String,
        /// The underlying error.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

/// Declares the kinds once: variant and name.
macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The category of a failure, for callers that branch on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$variant),*];

            /// Returns the name, the same in every language.
            pub const fn name(self) -> &'static str {
                match self { $(ErrorKind::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// The command failed to start.
    ExecFailed = "exec_failed";
    /// The command's timeout expired.
    ExecTimeout = "exec_timeout";
    /// An argument is invalid.
    InvalidArgument = "invalid_argument";
    /// The sandbox's configuration is invalid.
    InvalidConfig = "invalid_config";
    /// No sandbox has this name.
    SandboxNotFound = "sandbox_not_found";
    /// A sandbox with this name exists.
    SandboxAlreadyExists = "sandbox_already_exists";
    /// The sandbox is not running.
    SandboxNotRunning = "sandbox_not_running";
    /// The sandbox is running; the call needs a stopped one.
    SandboxRunning = "sandbox_running";
    /// The sandbox ended unexpectedly.
    SandboxCrashed = "sandbox_crashed";
    /// No driver is usable.
    NoDriver = "no_driver";
    /// The sandbox failed to start.
    BootFailed = "boot_failed";
    /// The image is in neither the store nor the registry.
    ImageNotFound = "image_not_found";
    /// The registry denied access with the given credentials.
    ImageUnauthorized = "image_unauthorized";
    /// The registry cannot be reached.
    RegistryUnreachable = "registry_unreachable";
    /// The image is malformed, malicious, or of an unsupported kind.
    ImageInvalid = "image_invalid";
    /// A sandbox uses the image.
    ImageInUse = "image_in_use";
    /// The process that handles images died.
    ImageFailed = "image_failed";
    /// No volume has this name.
    VolumeNotFound = "volume_not_found";
    /// A volume with this name exists.
    VolumeAlreadyExists = "volume_already_exists";
    /// A sandbox uses the volume.
    VolumeInUse = "volume_in_use";
    /// There is not enough disk space.
    NoSpace = "no_space";
    /// The image has no default command.
    NoCommand = "no_command";
    /// The connection to the sandbox was lost before the exit status was known.
    StreamLost = "stream_lost";
    /// The command no longer reads its input.
    BrokenPipe = "broken_pipe";
    /// Another call is reading.
    Busy = "busy";
    /// The handle was closed.
    Closed = "closed";
    /// The process has ended.
    NoSuchProcess = "no_such_process";
    /// The session does not exist.
    NoSuchSession = "no_such_session";
    /// The session has no terminal.
    NotATerminal = "not_a_terminal";
    /// A limit is reached.
    LimitReached = "limit_reached";
    /// A path does not exist.
    PathNotFound = "path_not_found";
    /// The user may not do this with a file.
    PermissionDenied = "permission_denied";
    /// A file system reports an error.
    Filesystem = "filesystem";
    /// An answer took too long.
    TimedOut = "timed_out";
    /// The output is not valid UTF-8.
    InvalidUtf8 = "invalid_utf8";
    /// The operation is not supported here.
    Unsupported = "unsupported";
    /// The other side violated the protocol.
    Protocol = "protocol";
    /// A system call failed.
    Io = "io";
    /// An internal invariant was violated.
    Internal = "internal";
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// Returns the category of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::ExecFailed(_) => ErrorKind::ExecFailed,
            Error::Fs(failed) => kind_of_file(failed.kind),
            Error::ExecTimeout { .. } => ErrorKind::ExecTimeout,
            Error::Other { kind, .. } => *kind,
        }
    }

    /// Returns where the failure was detected.
    pub fn origin(&self) -> Origin {
        match self {
            Error::ExecFailed(_) | Error::ExecTimeout { .. } => Origin::Agent,
            Error::Fs(failed) => failed.origin,
            Error::Other { origin, .. } => *origin,
        }
    }

    /// Returns the system's error number, if there is one.
    pub fn os_error(&self) -> Option<i32> {
        match self {
            Error::ExecFailed(failed) => Some(failed.errno).filter(|errno| *errno != 0),
            Error::Fs(failed) => Some(failed.errno).filter(|errno| *errno != 0),
            Error::ExecTimeout { .. } => None,
            Error::Other { os_error, .. } => *os_error,
        }
    }

    pub(crate) fn new(kind: ErrorKind, origin: Origin, context: impl Into<String>) -> Error {
        Error::Other { kind, origin, os_error: None, context: context.into(), source: None }
    }

    pub(crate) fn invalid(context: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, Origin::Caller, context)
    }

    pub(crate) fn internal(context: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, Origin::Host, context)
    }

    /// Creates the error of a system call of the host.
    pub(crate) fn io(context: impl Into<String>, source: impl Into<std::io::Error>) -> Error {
        let source = source.into();
        Error::Other {
            kind: ErrorKind::Io,
            origin: Origin::Host,
            os_error: source.raw_os_error(),
            context: context.into(),
            source: Some(Box::new(source)),
        }
    }

    /// Creates the error of a call that was pending when the connection was lost.
    pub(crate) fn lost(lost: &ExecLost) -> Error {
        Error::of_lost(ErrorKind::StreamLost, lost)
    }

    fn of_lost(kind: ErrorKind, lost: &ExecLost) -> Error {
        Error::new(kind, lost.origin, lost.to_string()).with_os_error(lost.os_error)
    }

    pub(crate) fn with_os_error(mut self, errno: Option<i32>) -> Error {
        if let Error::Other { os_error, .. } = &mut self {
            *os_error = errno.filter(|errno| *errno != 0);
        }
        self
    }
}

fn kind_of_file(kind: FsErrorKind) -> ErrorKind {
    match kind {
        FsErrorKind::PathNotFound => ErrorKind::PathNotFound,
        FsErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        FsErrorKind::Busy => ErrorKind::LimitReached,
        FsErrorKind::Unsupported => ErrorKind::Unsupported,
        FsErrorKind::UnknownUser | FsErrorKind::Invalid => ErrorKind::InvalidArgument,
        _ => ErrorKind::Filesystem,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::ExecFailed(failed) => failed.fmt(f),
            Error::Fs(failed) => failed.fmt(f),
            Error::ExecTimeout { timeout, .. } => {
                write!(f, "the command did not end within {timeout:?} and was killed")
            }
            // Guests, images and registries contribute to it: escape to one line, safe for any
            // terminal.
            Error::Other { context, source: Some(source), .. } => {
                f.write_str(&escape(&format!("{context}: {source}")))
            }
            Error::Other { context, source: None, .. } => f.write_str(&escape(context.trim_end())),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // Its text is this error's.
            Error::ExecFailed(failed) => failed.source(),
            Error::Fs(_) | Error::ExecTimeout { .. } => None,
            // The text of `source` is part of this message; its own source is not.
            Error::Other { source, .. } => source.as_deref().and_then(|source| source.source()),
        }
    }
}

impl From<ExecFailed> for Error {
    fn from(failed: ExecFailed) -> Error {
        Error::ExecFailed(failed)
    }
}

impl From<FromUtf8Error> for Error {
    fn from(error: FromUtf8Error) -> Error {
        Error::Other {
            kind: ErrorKind::InvalidUtf8,
            origin: Origin::Caller,
            os_error: None,
            context: "the output is not valid UTF-8".to_owned(),
            source: Some(Box::new(error)),
        }
    }
}

impl From<msb_client::Error> for Error {
    fn from(error: msb_client::Error) -> Error {
        use msb_client::Error as Client;
        let text = error.to_string();
        let (kind, origin) = match error {
            Client::Closed | Client::InputClosed => (ErrorKind::Closed, Origin::Caller),
            Client::BrokenPipe => (ErrorKind::BrokenPipe, Origin::Agent),
            Client::Busy => (ErrorKind::Busy, Origin::Caller),
            Client::Invalid(_) => (ErrorKind::InvalidArgument, Origin::Caller),
            Client::NotATerminal => (ErrorKind::NotATerminal, Origin::Caller),
            Client::LimitReached(_) => (ErrorKind::LimitReached, Origin::Host),
            Client::Forked => (ErrorKind::Unsupported, Origin::Caller),
            Client::Handshake(lost) | Client::LostBefore(lost) if lost.sandbox_gone => {
                return Error::of_lost(ErrorKind::SandboxNotRunning, &lost);
            }
            Client::Handshake(lost) => return Error::of_lost(ErrorKind::Protocol, &lost),
            Client::LostBefore(lost) | Client::Lost(lost) => return Error::lost(&lost),
            Client::Refused { refusal, errno, .. } => {
                let error = Error::new(kind_of(refusal), Origin::Agent, text);
                return error.with_os_error(Some(errno));
            }
            Client::Io { context, error } => return Error::io(context, error),
            _ => (ErrorKind::Internal, Origin::Host),
        };
        Error::new(kind, origin, text)
    }
}

fn kind_of(refusal: Refusal) -> ErrorKind {
    match refusal {
        Refusal::NoSuchSession => ErrorKind::NoSuchSession,
        Refusal::NoSuchProcess => ErrorKind::NoSuchProcess,
        Refusal::Invalid => ErrorKind::InvalidArgument,
        Refusal::NotATerminal => ErrorKind::NotATerminal,
        Refusal::TooMany => ErrorKind::LimitReached,
        Refusal::System => ErrorKind::Io,
    }
}

impl From<msb_state::Error> for Error {
    fn from(error: msb_state::Error) -> Error {
        use msb_state::ErrorKind as Kind;
        let (kind, origin) = match error.kind() {
            Kind::SandboxNotFound => (ErrorKind::SandboxNotFound, Origin::Host),
            Kind::SandboxAlreadyExists => (ErrorKind::SandboxAlreadyExists, Origin::Host),
            Kind::SandboxNotRunning => (ErrorKind::SandboxNotRunning, Origin::Host),
            Kind::SandboxRunning => (ErrorKind::SandboxRunning, Origin::Host),
            Kind::VolumeNotFound => (ErrorKind::VolumeNotFound, Origin::Host),
            Kind::VolumeAlreadyExists => (ErrorKind::VolumeAlreadyExists, Origin::Host),
            Kind::VolumeInUse => (ErrorKind::VolumeInUse, Origin::Host),
            Kind::InvalidConfig => (ErrorKind::InvalidConfig, Origin::Caller),
            Kind::NoDriver => (ErrorKind::NoDriver, Origin::Driver),
            Kind::BootFailed => (ErrorKind::BootFailed, Origin::Driver),
            Kind::TimedOut => (ErrorKind::TimedOut, Origin::Driver),
            Kind::Io => (ErrorKind::Io, Origin::Host),
            _ => (ErrorKind::Internal, Origin::Driver),
        };
        let os_error = error.os_error();
        let context = error.to_string();
        Error::Other { kind, origin, os_error, context, source: None }
    }
}

impl From<msb_image::Error> for Error {
    fn from(error: msb_image::Error) -> Error {
        use msb_image::ErrorKind as Kind;
        let (kind, origin) = match error.kind {
            Kind::Invalid => (ErrorKind::InvalidConfig, Origin::Caller),
            Kind::NotFound => (ErrorKind::ImageNotFound, Origin::Host),
            Kind::Unauthorized => (ErrorKind::ImageUnauthorized, Origin::Transport),
            Kind::Unreachable => (ErrorKind::RegistryUnreachable, Origin::Transport),
            Kind::BadImage => (ErrorKind::ImageInvalid, Origin::Host),
            Kind::InUse => (ErrorKind::ImageInUse, Origin::Host),
            Kind::NoSpace => (ErrorKind::NoSpace, Origin::Host),
            Kind::Io => (ErrorKind::Io, Origin::Host),
            _ => (ErrorKind::ImageFailed, Origin::Host),
        };
        let (os_error, context) = (error.os_error, error.to_string());
        Error::Other { kind, origin, os_error, context, source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(why: &str) -> Error {
        msb_client::Error::Lost(msb_client::testing::lost(why)).into()
    }

    #[test]
    fn the_text_of_an_error_names_the_cause_once() {
        let error = Error::io("cannot make a thread", std::io::Error::from_raw_os_error(11));
        assert_eq!(error.to_string().matches("os error 11").count(), 1);
        assert_eq!((error.kind(), error.os_error()), (ErrorKind::Io, Some(11)));
    }

    #[test]
    fn no_text_repeats_that_of_its_source() {
        let io = || std::io::Error::from_raw_os_error(2);
        let failed = msb_wire::Failure {
            kind: msb_wire::FailureKind::NotFound,
            stage: msb_wire::Stage::Execve,
            errno: 2,
            path: b"nosuch".to_vec(),
            message: "not found in PATH".to_owned(),
        };
        let nested = std::io::Error::other(Error::io("cannot read", io()));
        let state = [
            msb_state::Error::io("open", std::path::Path::new("/x"), io()),
            msb_state::Error::from(msb_state::Failure::boot("it hangs").hint("more time")),
            "".parse::<msb_state::Name>().unwrap_err().into(),
        ];
        let mut errors = vec![
            Error::io("cannot make a thread", io()),
            Error::io("cannot make a sandbox", nested),
            Error::from(ExecFailed::from(failed)),
            Error::from(String::from_utf8(vec![0xff]).unwrap_err()),
            lost("it ended"),
            Error::from(msb_image::Error::new(msb_image::ErrorKind::Io, "cannot read x")),
        ];
        errors.extend(state.map(Error::from));
        for error in errors {
            let text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                assert!(!text.contains(&cause.to_string()), "{cause} twice: {text}");
                source = cause.source();
            }
        }
    }

    #[test]
    fn j8_text_of_a_guest_or_registry_is_escaped_in_errors() {
        let hostile = "x\u{1b}]0;title\u{7}\n\u{202e}y";
        let expected = "x\\u{1b}]0;title\\u{7} \\u{202e}y";
        let error = Error::new(ErrorKind::ImageInvalid, Origin::Host, hostile);
        assert_eq!(error.to_string(), expected);
        let error = Error::io("cannot read", std::io::Error::other(hostile));
        assert_eq!(error.to_string(), format!("cannot read: {expected}"));
        let failure = |path: &[u8], message: &str| {
            let kind = msb_wire::FailureKind::NotFound;
            let (stage, path) = (msb_wire::Stage::Execve, path.to_vec());
            let failure =
                msb_wire::Failure { kind, stage, errno: 2, path, message: message.to_owned() };
            Error::from(ExecFailed::from(failure)).to_string()
        };
        assert_eq!(failure(b"a\xff\x1b", "no"), "cannot run a\\xff\\u{1b}: no");
        assert_eq!(failure(b"a\nb", "a\nb: no"), "a b: no");
        assert!(failure(&[b'x'; 4000], &"y".repeat(4000)).len() < 500);
        assert!(lost(hostile).to_string().ends_with(expected));
    }

    #[test]
    fn output_that_is_not_text_becomes_an_error_of_its_own_kind() {
        let error = Error::from(String::from_utf8(vec![0xff]).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::InvalidUtf8);
    }
}
