//! The loss of a connection.

use crate::origin::Origin;
use msb_wire::escape;
use std::fmt;
use std::time::Duration;

/// Why the exit status of a command is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecLost {
    /// Where the failure was detected.
    pub origin: Origin,
    /// The system's error number, if there is one.
    pub os_error: Option<i32>,
    /// What happened, in one line.
    pub message: String,
    /// Whether the sandbox appears to have ended; otherwise only the connection was lost.
    pub sandbox_gone: bool,
}

impl ExecLost {
    /// The connection was closed by the other side.
    pub(crate) fn gone(message: impl Into<String>, os_error: Option<i32>) -> Self {
        let message = message.into();
        ExecLost { origin: Origin::Transport, os_error, message, sandbox_gone: true }
    }

    /// The agent violated the protocol, or aborted the connection.
    pub(crate) fn broken(message: impl Into<String>) -> Self {
        let message = message.into();
        ExecLost { origin: Origin::Agent, os_error: None, message, sandbox_gone: false }
    }

    /// The agent did not answer within `limit`.
    pub(crate) fn unanswered(limit: Duration) -> Self {
        let message = format!("the agent did not answer within {} s", limit.as_secs());
        ExecLost { origin: Origin::Host, os_error: None, message, sandbox_gone: false }
    }
}

impl fmt::Display for ExecLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection to the sandbox was lost: {}", escape(&self.message))
    }
}

impl std::error::Error for ExecLost {}
