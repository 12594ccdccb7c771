//! Why an operation on files failed.

use crate::output::errno_name;
use msb_client::Origin;
use msb_wire::limits::ERROR_TEXT;
use msb_wire::{FsError, FsErrorKind, escape_bytes, one_line};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why an operation on files failed, in the sandbox or, for a copy, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsFailed {
    /// The category.
    pub kind: FsErrorKind,
    /// [`Origin::Agent`] for a path in the sandbox, [`Origin::Host`] for one of the host.
    pub origin: Origin,
    /// The `errno`; 0 when no system call failed.
    pub errno: i32,
    /// The name of `errno`, such as `ENOENT`; empty when it is 0.
    pub errno_name: String,
    /// The operation or the step of it that failed, as a verb: `open`, `rename`, `write`.
    pub operation: String,
    /// The path that it failed on; of a tree, the file in it.
    pub path: Vec<u8>,
    /// The reason, in one line.
    pub message: String,
}

impl fmt::Display for FsFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = escape_bytes(&self.path);
        let path = one_line(&path, ERROR_TEXT);
        let (operation, why) =
            (one_line(&self.operation, ERROR_TEXT), one_line(&self.message, ERROR_TEXT));
        match (self.operation.is_empty(), self.path.is_empty()) {
            (true, _) => f.write_str(&why),
            (false, true) => write!(f, "cannot {operation}: {why}"),
            (false, false) => write!(f, "cannot {operation} {path}: {why}"),
        }
    }
}

impl std::error::Error for FsFailed {}

impl FsFailed {
    /// The failure that an agent reports about a path of the request.
    pub(crate) fn of_agent(error: FsError, subject: &[u8]) -> FsFailed {
        let path = if error.path.is_empty() { subject.to_vec() } else { error.path };
        let message = match error.message.is_empty() {
            true => reason(error.errno),
            false => error.message,
        };
        FsFailed {
            kind: error.kind,
            origin: Origin::Agent,
            errno: error.errno,
            errno_name: errno_name(error.errno),
            operation: error.operation,
            path,
            message,
        }
    }

    /// The failure of a system call of the host.
    pub(crate) fn on_host(operation: &str, path: &Path, errno: i32) -> FsFailed {
        FsFailed {
            kind: FsErrorKind::of(errno),
            origin: Origin::Host,
            errno,
            errno_name: errno_name(errno),
            operation: operation.to_owned(),
            path: path.as_os_str().as_bytes().to_vec(),
            message: reason(errno),
        }
    }
}

/// Returns the text of an `errno`, without the number.
fn reason(errno: i32) -> String {
    if errno == 0 {
        return "it failed".to_owned();
    }
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_lowercase()
}
