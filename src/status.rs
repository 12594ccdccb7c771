//! Status numbers. Append-only: a number never changes its meaning.

use microsandbox::{ErrorKind, Origin};

/// What a call returns: zero for success, negative for failure, positive for an outcome that is
/// neither (`MSB_AGAIN`, `MSB_EOF`).
pub type msb_status = i32;

/// Success.
pub const MSB_OK: i32 = 0;
/// Nothing yet: the timeout of the call expired. Call again later.
pub const MSB_AGAIN: i32 = 1;
/// The end: nothing follows.
pub const MSB_EOF: i32 = 2;

/// An argument is invalid: NULL where it is not allowed, an unknown flag.
pub const MSB_E_INVALID: i32 = -1;
/// Not an open handle of this kind: stale, foreign, closed, or of another kind.
pub const MSB_E_HANDLE: i32 = -2;
/// The handle was closed while the call waited on it.
pub const MSB_E_CLOSED: i32 = -3;
/// Another thread already waits on this handle.
pub const MSB_E_BUSY: i32 = -4;
/// Not supported here, by this version, or after a fork.
pub const MSB_E_UNSUPPORTED: i32 = -5;
/// A limit is reached.
pub const MSB_E_LIMIT: i32 = -6;
/// A system call failed; `os_error` has its errno.
pub const MSB_E_IO: i32 = -7;
/// A defect of the library: a broken invariant or a panic.
pub const MSB_E_INTERNAL: i32 = -8;
/// The peer violated the protocol.
pub const MSB_E_PROTOCOL: i32 = -9;
/// A reply did not arrive in time.
pub const MSB_E_TIMED_OUT: i32 = -10;
/// The configuration is invalid, for example a sandbox's name.
pub const MSB_E_CONFIG: i32 = -20;
/// No sandbox has this name.
pub const MSB_E_NOT_FOUND: i32 = -21;
/// A sandbox with this name exists.
pub const MSB_E_EXISTS: i32 = -22;
/// The sandbox is not running.
pub const MSB_E_NOT_RUNNING: i32 = -23;
/// The sandbox is running; the call needs a stopped one.
pub const MSB_E_RUNNING: i32 = -24;
/// No driver is usable.
pub const MSB_E_NO_DRIVER: i32 = -25;
/// The sandbox failed to boot.
pub const MSB_E_BOOT: i32 = -26;
/// The sandbox crashed: it ended unexpectedly.
pub const MSB_E_CRASHED: i32 = -27;
/// The command failed to start.
pub const MSB_E_EXEC_FAILED: i32 = -40;
/// The command timed out.
pub const MSB_E_EXEC_TIMEOUT: i32 = -41;
/// The connection to the sandbox was lost before the command's exit status was known.
pub const MSB_E_LOST: i32 = -42;
/// The command no longer reads its input.
pub const MSB_E_PIPE: i32 = -43;
/// The process has ended.
pub const MSB_E_NO_PROCESS: i32 = -44;
/// The session does not exist.
pub const MSB_E_NO_SESSION: i32 = -45;
/// The session has no terminal.
pub const MSB_E_NOT_A_TERMINAL: i32 = -46;
/// The image is in neither the store nor the registry.
pub const MSB_E_NO_IMAGE: i32 = -60;
/// The registry denied access: the credentials are missing or wrong, or the image does not exist.
pub const MSB_E_IMAGE_DENIED: i32 = -61;
/// The registry cannot be reached.
pub const MSB_E_REGISTRY: i32 = -62;
/// The image is corrupt, malicious, or of an unsupported kind.
pub const MSB_E_BAD_IMAGE: i32 = -63;
/// A sandbox uses the image.
pub const MSB_E_IMAGE_IN_USE: i32 = -64;
/// The process that pulls and unpacks images died.
pub const MSB_E_IMAGE_FAILED: i32 = -65;
/// The disk is full.
pub const MSB_E_NO_SPACE: i32 = -66;
/// The image has no default command.
pub const MSB_E_NO_COMMAND: i32 = -67;
/// No volume has this name.
pub const MSB_E_NO_VOLUME: i32 = -100;
/// A volume with this name exists.
pub const MSB_E_VOLUME_EXISTS: i32 = -101;
/// A sandbox uses the volume.
pub const MSB_E_VOLUME_IN_USE: i32 = -102;
/// A path does not exist.
pub const MSB_E_NO_PATH: i32 = -80;
/// The user may not do this with a file.
pub const MSB_E_PERMISSION: i32 = -81;
/// A file system reports an error; `os_error` has its errno.
pub const MSB_E_FILESYSTEM: i32 = -82;

/// The caller: the call itself was invalid.
pub const MSB_ORIGIN_CALLER: u32 = 1;
/// The host: this library or the system that it runs on.
pub const MSB_ORIGIN_HOST: u32 = 2;
/// The driver, which starts and supervises the sandbox.
pub const MSB_ORIGIN_DRIVER: u32 = 3;
/// The connection to the sandbox.
pub const MSB_ORIGIN_TRANSPORT: u32 = 4;
/// The agent in the sandbox.
pub const MSB_ORIGIN_AGENT: u32 = 5;

/// Returns the status of an error kind.
pub(super) fn of_kind(kind: ErrorKind) -> msb_status {
    match kind {
        ErrorKind::ExecFailed => MSB_E_EXEC_FAILED,
        ErrorKind::ExecTimeout => MSB_E_EXEC_TIMEOUT,
        ErrorKind::InvalidArgument | ErrorKind::InvalidUtf8 => MSB_E_INVALID,
        ErrorKind::InvalidConfig => MSB_E_CONFIG,
        ErrorKind::SandboxNotFound => MSB_E_NOT_FOUND,
        ErrorKind::SandboxAlreadyExists => MSB_E_EXISTS,
        ErrorKind::SandboxNotRunning => MSB_E_NOT_RUNNING,
        ErrorKind::SandboxRunning => MSB_E_RUNNING,
        ErrorKind::SandboxCrashed => MSB_E_CRASHED,
        ErrorKind::NoDriver => MSB_E_NO_DRIVER,
        ErrorKind::BootFailed => MSB_E_BOOT,
        ErrorKind::ImageNotFound => MSB_E_NO_IMAGE,
        ErrorKind::ImageUnauthorized => MSB_E_IMAGE_DENIED,
        ErrorKind::RegistryUnreachable => MSB_E_REGISTRY,
        ErrorKind::ImageInvalid => MSB_E_BAD_IMAGE,
        ErrorKind::ImageInUse => MSB_E_IMAGE_IN_USE,
        ErrorKind::ImageFailed => MSB_E_IMAGE_FAILED,
        ErrorKind::NoSpace => MSB_E_NO_SPACE,
        ErrorKind::NoCommand => MSB_E_NO_COMMAND,
        ErrorKind::VolumeNotFound => MSB_E_NO_VOLUME,
        ErrorKind::VolumeAlreadyExists => MSB_E_VOLUME_EXISTS,
        ErrorKind::VolumeInUse => MSB_E_VOLUME_IN_USE,
        ErrorKind::StreamLost => MSB_E_LOST,
        ErrorKind::BrokenPipe => MSB_E_PIPE,
        ErrorKind::Busy => MSB_E_BUSY,
        ErrorKind::Closed => MSB_E_CLOSED,
        ErrorKind::NoSuchProcess => MSB_E_NO_PROCESS,
        ErrorKind::NoSuchSession => MSB_E_NO_SESSION,
        ErrorKind::NotATerminal => MSB_E_NOT_A_TERMINAL,
        ErrorKind::PathNotFound => MSB_E_NO_PATH,
        ErrorKind::PermissionDenied => MSB_E_PERMISSION,
        ErrorKind::Filesystem => MSB_E_FILESYSTEM,
        ErrorKind::LimitReached => MSB_E_LIMIT,
        ErrorKind::TimedOut => MSB_E_TIMED_OUT,
        ErrorKind::Unsupported => MSB_E_UNSUPPORTED,
        ErrorKind::Protocol => MSB_E_PROTOCOL,
        ErrorKind::Io => MSB_E_IO,
        // Every kind has an arm of its own, which a test checks.
        ErrorKind::Internal | _ => MSB_E_INTERNAL,
    }
}

/// Returns the number of an origin.
pub(super) fn of_origin(origin: Origin) -> u32 {
    match origin {
        Origin::Caller => MSB_ORIGIN_CALLER,
        Origin::Host => MSB_ORIGIN_HOST,
        Origin::Driver => MSB_ORIGIN_DRIVER,
        Origin::Transport => MSB_ORIGIN_TRANSPORT,
        Origin::Agent => MSB_ORIGIN_AGENT,
        // Every origin has an arm of its own.
        _ => 0,
    }
}

/// Returns the name of a status: `"MSB_E_HANDLE"`. Static; `"MSB_E_UNKNOWN"` for an unknown number.
#[unsafe(no_mangle)]
pub extern "C" fn msb_status_name(status: msb_status) -> *const std::ffi::c_char {
    name(status).as_ptr()
}

/// Declares each name once.
macro_rules! names {
    ($($status:ident),* $(,)?) => {
        fn name(status: msb_status) -> &'static std::ffi::CStr {
            match status {
                $($status => {
                    const NAME: &str = concat!(stringify!($status), "\0");
                    std::ffi::CStr::from_bytes_with_nul(NAME.as_bytes()).unwrap_or(c"")
                })*
                _ => c"MSB_E_UNKNOWN",
            }
        }

        #[cfg(test)]
        const ALL: &[msb_status] = &[$($status),*];
    };
}

names! {
    MSB_OK, MSB_AGAIN, MSB_EOF, MSB_E_INVALID, MSB_E_HANDLE, MSB_E_CLOSED, MSB_E_BUSY,
    MSB_E_UNSUPPORTED, MSB_E_LIMIT, MSB_E_IO, MSB_E_INTERNAL, MSB_E_PROTOCOL, MSB_E_TIMED_OUT,
    MSB_E_CONFIG, MSB_E_NOT_FOUND, MSB_E_EXISTS, MSB_E_NOT_RUNNING, MSB_E_RUNNING,
    MSB_E_NO_DRIVER, MSB_E_BOOT, MSB_E_CRASHED, MSB_E_EXEC_FAILED, MSB_E_EXEC_TIMEOUT, MSB_E_LOST,
    MSB_E_PIPE, MSB_E_NO_PROCESS, MSB_E_NO_SESSION, MSB_E_NOT_A_TERMINAL, MSB_E_NO_IMAGE,
    MSB_E_IMAGE_DENIED, MSB_E_REGISTRY, MSB_E_BAD_IMAGE, MSB_E_IMAGE_IN_USE, MSB_E_IMAGE_FAILED,
    MSB_E_NO_SPACE, MSB_E_NO_COMMAND, MSB_E_NO_VOLUME, MSB_E_VOLUME_EXISTS, MSB_E_VOLUME_IN_USE,
    MSB_E_NO_PATH, MSB_E_PERMISSION, MSB_E_FILESYSTEM,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_kind_has_a_status() {
        for kind in ErrorKind::ALL {
            let is_internal = of_kind(*kind) == MSB_E_INTERNAL;
            assert_eq!(is_internal, *kind == ErrorKind::Internal, "{kind:?}");
        }
    }

    #[test]
    fn every_status_has_a_number_and_a_name_of_its_own() {
        let mut numbers = Vec::new();
        for line in include_str!("status.rs").lines() {
            let Some(constant) = line.strip_prefix("pub const ") else { continue };
            let Some((own, number)) = constant.split_once(": i32 = ") else { continue };
            numbers.push(number.trim_end_matches(';').parse::<i32>().unwrap());
            assert_eq!(name(*numbers.last().unwrap()).to_str(), Ok(own));
        }
        assert!(numbers.len() > 30, "{numbers:?}");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ALL.len());
        assert_eq!(name(-12345), c"MSB_E_UNKNOWN");
    }
}
