//! Errors of the protocol.

use crate::kind::Kind;

/// One of the two peers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The library.
    Host,
    /// The agent in the sandbox.
    Agent,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Peer::Host => "host",
            Peer::Agent => "agent",
        })
    }
}

/// A violation of the protocol. Each variant ends the connection, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The kind is unknown.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// Reserved header bits are set.
    #[error("frame {0:?} with reserved header bits set")]
    ReservedBits(Kind),
    /// The payload is longer than its kind allows.
    #[error("frame {kind:?} of {len} bytes, more than {max}")]
    TooLong {
        /// The frame's kind.
        kind: Kind,
        /// Its announced length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The peer may not send the frame, or not on this channel or in this state.
    #[error("frame {kind:?} from the {peer}: {why}")]
    OutOfState {
        /// The frame's kind.
        kind: Kind,
        /// The sender.
        peer: Peer,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The payload cannot be decoded.
    #[error("frame {kind:?} with a malformed payload: {detail}")]
    Malformed {
        /// The frame's kind.
        kind: Kind,
        /// The decoder's error.
        detail: String,
    },
    /// A number is out of range.
    #[error("frame {kind:?} with the {what} {value}, which is out of range")]
    OutOfRange {
        /// The frame's kind.
        kind: Kind,
        /// The name of the number.
        what: &'static str,
        /// The number.
        value: i128,
    },
    /// A grant of credit exceeds the window, or is less than an earlier one.
    #[error("credit up to {limit} bytes, outside {least} to {most}")]
    BadCredit {
        /// The granted limit.
        limit: u64,
        /// The previous limit.
        least: u64,
        /// What was sent so far, plus the window.
        most: u64,
    },
    /// The peer sent more data than it had credit for.
    #[error("data exceeds credit: {sent} of {granted} bytes")]
    Overrun {
        /// The total sent.
        sent: u64,
        /// The total granted.
        granted: u64,
    },
    /// The peers have no protocol version in common.
    #[error("no common protocol version: {0}-{1} here, {2}-{3} at the peer")]
    NoCommonVersion(u32, u32, u32, u32),
    /// The peer requires features that are unknown here.
    #[error("the peer requires unknown protocol features {0:#x}")]
    UnknownFeatures(u64),
}
