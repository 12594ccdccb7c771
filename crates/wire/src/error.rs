//! What can be wrong with bytes from the other side.

use crate::frame::Kind;

/// One of the two sides of a connection.
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

/// Why a connection cannot go on. Every variant ends the connection, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The kind byte names no frame.
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
    /// The frame may not be sent by this side, on this channel or at this time.
    #[error("frame {kind:?} from the {peer}: {why}")]
    OutOfState {
        /// The frame's kind.
        kind: Kind,
        /// Who sent it.
        peer: Peer,
        /// What rule it breaks.
        why: &'static str,
    },
    /// The payload is not what its kind says.
    #[error("frame {kind:?} with a malformed payload: {detail}")]
    Malformed {
        /// The frame's kind.
        kind: Kind,
        /// What the decoder says.
        detail: String,
    },
    /// A number that cannot be.
    #[error("frame {kind:?} with the {what} {value}, which is out of range")]
    OutOfRange {
        /// The frame's kind.
        kind: Kind,
        /// What the number is.
        what: &'static str,
        /// The number.
        value: i128,
    },
    /// More credit than the window, or less than before.
    #[error("credit up to {limit} bytes, where {least} to {most} can be")]
    BadCredit {
        /// The limit that was granted.
        limit: u64,
        /// The limit before.
        least: u64,
        /// What was sent, and the window.
        most: u64,
    },
    /// More data than was granted.
    #[error("more data than the credit granted: {sent} of {granted} bytes")]
    Overrun {
        /// Total sent.
        sent: u64,
        /// Total granted.
        granted: u64,
    },
    /// The two sides have no protocol version in common.
    #[error("protocol versions {0}-{1} here, {2}-{3} on the other side")]
    NoCommonVersion(u32, u32, u32, u32),
    /// The other side requires features that this one does not know.
    #[error("the other side requires unknown protocol features {0:#x}")]
    UnknownFeatures(u64),
}
