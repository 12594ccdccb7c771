//! The start position of a handle that follows a session.

/// Selects where the output of a session begins.
///
/// Positions count the bytes of both streams together, in the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReattachFrom {
    /// The first byte.
    Start,
    /// The current end: only new output.
    Now,
    /// This position, as [`ExecHandle::position`](crate::ExecHandle::position) returns it; a
    /// position beyond the current end is the same as `Now`.
    Position(u64),
}

impl ReattachFrom {
    pub(crate) fn position(self) -> Option<u64> {
        match self {
            ReattachFrom::Start => Some(0),
            ReattachFrom::Now => None,
            ReattachFrom::Position(position) => Some(position),
        }
    }
}
