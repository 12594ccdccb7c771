//! Errors.

use crate::lost::ExecLost;
use crate::origin::Origin;
use msb_wire::Refusal;
use std::io;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The handle was closed.
    #[error("the handle was closed")]
    Closed,
    /// The input was closed.
    #[error("the input was closed")]
    InputClosed,
    /// The command no longer reads its input.
    #[error("the command no longer reads its input")]
    BrokenPipe,
    /// Another call is reading.
    #[error("another call reads from this handle already")]
    Busy,
    /// An argument is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The command has no terminal.
    #[error("the command has no terminal")]
    NotATerminal,
    /// A limit of the connection is reached.
    #[error("{0}")]
    LimitReached(&'static str),
    /// The handshake failed.
    #[error(transparent)]
    Handshake(ExecLost),
    /// The connection was lost before the call.
    #[error(transparent)]
    LostBefore(ExecLost),
    /// The connection was lost during the call.
    #[error(transparent)]
    Lost(#[from] ExecLost),
    /// The agent refused the request.
    #[error("{context}")]
    Refused {
        /// The category of the refusal.
        refusal: Refusal,
        /// The guest's `errno`.
        errno: i32,
        /// Why, in one line.
        context: String,
    },
    /// This process was forked from the one that made the connection.
    #[error("this process was forked from the one that uses the library; it may only exec")]
    Forked,
    /// A system call failed.
    #[error("{context}: {error}")]
    Io {
        /// The failed operation.
        context: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// An internal invariant was violated.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns whether the agent did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Lost(lost) if lost.origin == Origin::Host)
    }

    pub(crate) fn internal(context: impl Into<String>) -> Error {
        Error::Internal(context.into())
    }

    /// Returns a function that makes the error of a failed system call.
    pub(crate) fn io(context: &'static str) -> impl Fn(io::Error) -> Error {
        move |error| Error::Io { context, error }
    }
}

/// Fails unless this is the process with that id: a forked child has none of its parent's threads,
/// and shares its descriptors with it.
pub fn check_pid(pid: u32) -> Result<(), Error> {
    if std::process::id() == pid { Ok(()) } else { Err(Error::Forked) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn i_forked_child_gets_an_error_and_touches_nothing() {
        // A forked child sees another process id than the one in which the connection was made.
        assert!(matches!(check_pid(std::process::id() ^ 1).unwrap_err(), Error::Forked));
    }
}
