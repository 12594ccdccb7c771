//! Where a handle that follows a session begins.

/// From where the output of a session is wanted.
///
/// Positions count the bytes of both outputs together, in the order in which they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReattachFrom {
    /// From the first byte on.
    Start,
    /// Only what is still to come.
    Now,
    /// From this position on, as [`ExecHandle::position`](crate::ExecHandle::position) tells it; one that the output has not
    /// reached yet is the same as `Now`.
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
