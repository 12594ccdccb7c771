//! Failures of operations on files.

use minicbor::{Decode, Encode};

// Linux's numbers, the same on x86-64 and aarch64 (asm-generic/errno-base.h, errno.h).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;

/// The kind of a failure, for callers to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum FsErrorKind {
    /// The path, or a directory in it, does not exist.
    #[n(1)]
    PathNotFound,
    /// The user may not do it.
    #[n(2)]
    PermissionDenied,
    /// Anything else that the file system reports: `errno` says what.
    #[n(3)]
    Filesystem,
    /// Too many operations are blocked, or too many handles or watches are open.
    #[n(4)]
    Busy,
    /// The agent, or the file system, does not know the operation.
    #[n(5)]
    Unsupported,
    /// The user of the request is unknown.
    #[n(6)]
    UnknownUser,
    /// The request itself is wrong: a relative path, an archive that cannot be read.
    #[n(7)]
    Invalid,
}

impl FsErrorKind {
    /// Returns the kind of a failure with `errno`.
    pub const fn of(errno: i32) -> FsErrorKind {
        match errno {
            ENOENT => FsErrorKind::PathNotFound,
            EPERM | EACCES => FsErrorKind::PermissionDenied,
            ENOSYS | EOPNOTSUPP => FsErrorKind::Unsupported,
            _ => FsErrorKind::Filesystem,
        }
    }

    /// Returns the kind's name, as documentation and SDKs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            FsErrorKind::PathNotFound => "path_not_found",
            FsErrorKind::PermissionDenied => "permission_denied",
            FsErrorKind::Filesystem => "filesystem",
            FsErrorKind::Busy => "busy",
            FsErrorKind::Unsupported => "unsupported",
            FsErrorKind::UnknownUser => "unknown_user",
            FsErrorKind::Invalid => "invalid",
        }
    }
}

/// Why an operation failed. Last on its channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FsError {
    /// The kind of failure.
    #[n(0)]
    pub kind: FsErrorKind,
    /// The guest's `errno`; 0 when no system call failed.
    #[n(1)]
    #[cbor(default)]
    pub errno: i32,
    /// The operation or the step of it that failed, as a verb: `open`, `rename`, `write`.
    #[n(2)]
    #[cbor(default)]
    pub operation: String,
    /// The path that it failed on; of a recursive operation, the file below the requested path.
    #[cbor(n(3), with = "minicbor::bytes")]
    #[cbor(default)]
    pub path: Vec<u8>,
    /// The reason: one line for users, without operation and path.
    #[n(4)]
    #[cbor(default)]
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_each_errno_has_a_kind() {
        let table = [
            (ENOENT, FsErrorKind::PathNotFound),
            (EACCES, FsErrorKind::PermissionDenied),
            (EPERM, FsErrorKind::PermissionDenied),
            (ENOSYS, FsErrorKind::Unsupported),
            (EOPNOTSUPP, FsErrorKind::Unsupported),
            // ENOTDIR, EROFS, ENOSPC
            (20, FsErrorKind::Filesystem),
            (30, FsErrorKind::Filesystem),
            (28, FsErrorKind::Filesystem),
        ];
        for (errno, kind) in table {
            assert_eq!(FsErrorKind::of(errno), kind, "errno {errno}");
        }
    }
}
