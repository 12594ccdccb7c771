//! Failures to start a command.

use minicbor::{Decode, Encode};

/// The kind of a failure to start, for callers to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum FailureKind {
    /// The program does not exist.
    #[n(1)]
    NotFound,
    /// The user may not execute the program.
    #[n(2)]
    PermissionDenied,
    /// The kernel cannot run the file, or its interpreter is missing.
    #[n(3)]
    NotExecutable,
    /// The working directory cannot be entered.
    #[n(4)]
    BadCwd,
    /// Arguments or environment are too long, or the path cannot be resolved.
    #[n(5)]
    BadArgs,
    /// A limit on processes or descriptors, or a refused `setrlimit`.
    #[n(6)]
    ResourceLimit,
    /// The user or group is unknown, or the process cannot switch to it.
    #[n(7)]
    UserSetupFailed,
    /// Not enough memory.
    #[n(8)]
    OutOfMemory,
    /// No pseudo-terminal could be opened.
    #[n(9)]
    PtySetupFailed,
    /// Anything else.
    #[n(10)]
    Other,
}

impl FailureKind {
    /// Returns the kind's name, as documentation and SDKs spell it.
    pub const fn name(self) -> &'static str {
        match self {
            FailureKind::NotFound => "not_found",
            FailureKind::PermissionDenied => "permission_denied",
            FailureKind::NotExecutable => "not_executable",
            FailureKind::BadCwd => "bad_cwd",
            FailureKind::BadArgs => "bad_args",
            FailureKind::ResourceLimit => "resource_limit",
            FailureKind::UserSetupFailed => "user_setup_failed",
            FailureKind::OutOfMemory => "out_of_memory",
            FailureKind::PtySetupFailed => "pty_setup_failed",
            FailureKind::Other => "other",
        }
    }
}

/// The step of starting a command that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Stage {
    /// Admission: the agent refused the session before any other step.
    #[n(0)]
    Admit,
    /// Looking up user and groups in the image.
    #[n(1)]
    ResolveUser,
    /// Opening the pseudo-terminal.
    #[n(2)]
    OpenPty,
    /// Creating pipes.
    #[n(3)]
    Pipe,
    /// Creating the process.
    #[n(4)]
    Fork,
    /// Becoming a session leader with the terminal as its controlling terminal.
    #[n(5)]
    Setsid,
    /// Entering the working directory.
    #[n(6)]
    Chdir,
    /// Setting a resource limit.
    #[n(7)]
    Rlimit,
    /// Setting supplementary groups.
    #[n(8)]
    Setgroups,
    /// Setting the group.
    #[n(9)]
    Setgid,
    /// Setting the user.
    #[n(10)]
    Setuid,
    /// Executing the program.
    #[n(11)]
    Execve,
}

impl Stage {
    /// Returns the stage's name, as the documentation spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Admit => "admit",
            Stage::ResolveUser => "resolve_user",
            Stage::OpenPty => "open_pty",
            Stage::Pipe => "pipe",
            Stage::Fork => "fork",
            Stage::Setsid => "setsid",
            Stage::Chdir => "chdir",
            Stage::Rlimit => "rlimit",
            Stage::Setgroups => "setgroups",
            Stage::Setgid => "setgid",
            Stage::Setuid => "setuid",
            Stage::Execve => "execve",
        }
    }
}

/// Why a command never ran.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Failure {
    /// The kind of failure.
    #[n(0)]
    pub kind: FailureKind,
    /// The step that failed.
    #[n(1)]
    pub stage: Stage,
    /// The guest's `errno`; 0 when no system call failed.
    #[n(2)]
    pub errno: i32,
    /// The program, directory or user name that the step used.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// One line for users.
    #[n(4)]
    pub message: String,
}

// Linux's numbers, the same on x86-64 and aarch64 (asm-generic/errno-base.h, errno.h).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const E2BIG: i32 = 7;
const ENOEXEC: i32 = 8;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ETXTBSY: i32 = 26;
const ENAMETOOLONG: i32 = 36;
const ELOOP: i32 = 40;
const ELIBBAD: i32 = 80;

/// Returns the kind of a failure at `stage` with `errno`. `ENOENT` for a file that exists means
/// that its interpreter is missing: the caller looks, and passes `file_exists`.
pub fn classify(stage: Stage, errno: i32, file_exists: bool) -> FailureKind {
    match (stage, errno) {
        (Stage::Chdir, _) => FailureKind::BadCwd,
        (Stage::ResolveUser | Stage::Setgroups | Stage::Setgid | Stage::Setuid, errno) => {
            match errno {
                ENOMEM => FailureKind::OutOfMemory,
                EAGAIN => FailureKind::ResourceLimit,
                _ => FailureKind::UserSetupFailed,
            }
        }
        (Stage::OpenPty | Stage::Setsid, _) => FailureKind::PtySetupFailed,
        (Stage::Rlimit, _) => FailureKind::ResourceLimit,
        (_, ENOMEM) => FailureKind::OutOfMemory,
        (_, EAGAIN | EMFILE | ENFILE) => FailureKind::ResourceLimit,
        (Stage::Execve, errno) => match errno {
            ENOENT if file_exists => FailureKind::NotExecutable,
            ENOENT | ENOTDIR => FailureKind::NotFound,
            EACCES | EPERM => FailureKind::PermissionDenied,
            ENOEXEC | EISDIR | ETXTBSY | ELIBBAD => FailureKind::NotExecutable,
            E2BIG | ELOOP | ENAMETOOLONG | EINVAL => FailureKind::BadArgs,
            _ => FailureKind::Other,
        },
        _ => FailureKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_errno_of_execve_has_a_kind() {
        let table = [
            (ENOENT, false, FailureKind::NotFound),
            (ENOENT, true, FailureKind::NotExecutable),
            (EACCES, true, FailureKind::PermissionDenied),
            (EPERM, true, FailureKind::PermissionDenied),
            (ENOEXEC, true, FailureKind::NotExecutable),
            (EISDIR, true, FailureKind::NotExecutable),
            (ETXTBSY, true, FailureKind::NotExecutable),
            (E2BIG, true, FailureKind::BadArgs),
            (ELOOP, false, FailureKind::BadArgs),
            (ENAMETOOLONG, false, FailureKind::BadArgs),
            (ENOMEM, true, FailureKind::OutOfMemory),
            (EMFILE, true, FailureKind::ResourceLimit),
            (5, true, FailureKind::Other),
        ];
        for (errno, exists, kind) in table {
            assert_eq!(classify(Stage::Execve, errno, exists), kind, "errno {errno}");
        }
    }

    #[test]
    fn each_other_stage_has_a_kind() {
        assert_eq!(classify(Stage::Chdir, ENOENT, false), FailureKind::BadCwd);
        assert_eq!(classify(Stage::Fork, EAGAIN, false), FailureKind::ResourceLimit);
        assert_eq!(classify(Stage::Fork, ENOMEM, false), FailureKind::OutOfMemory);
        assert_eq!(classify(Stage::Pipe, EMFILE, false), FailureKind::ResourceLimit);
        assert_eq!(classify(Stage::ResolveUser, 0, false), FailureKind::UserSetupFailed);
        assert_eq!(classify(Stage::Setuid, EPERM, false), FailureKind::UserSetupFailed);
        assert_eq!(classify(Stage::OpenPty, 28, false), FailureKind::PtySetupFailed);
        assert_eq!(classify(Stage::Rlimit, EPERM, false), FailureKind::ResourceLimit);
    }
}
