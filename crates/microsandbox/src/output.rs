//! How a command ended, and what it had put out.

use bytes::Bytes;
use std::string::FromUtf8Error;
use std::time::Duration;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitStatus {
    /// Exit code; -1 when a signal killed it.
    pub code: i32,
    /// Whether the exit code is 0.
    pub success: bool,
    /// The number of the signal that killed it.
    pub signal: Option<i32>,
    /// Whether it left a core dump.
    pub core_dumped: bool,
    /// Whether it was killed because its time had run out.
    pub timed_out: bool,
    /// What it used; `None` for a sandbox as a whole.
    pub usage: Option<ResourceUsage>,
}

/// What a command used, the children that it waited for included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ResourceUsage {
    /// CPU time in user mode.
    pub user_time: Duration,
    /// CPU time in the kernel.
    pub system_time: Duration,
    /// Largest resident size, in bytes.
    pub max_rss: u64,
    /// Time from start to exit.
    pub wall_time: Duration,
}

impl From<&msb_wire::Exited> for ExitStatus {
    fn from(exited: &msb_wire::Exited) -> Self {
        let signal = exited.signal.map(i32::from);
        ExitStatus {
            code: exited.code,
            success: exited.code == 0 && signal.is_none(),
            signal,
            core_dumped: exited.core_dumped,
            timed_out: exited.timed_out,
            usage: Some(ResourceUsage {
                user_time: Duration::from_nanos(exited.user_ns),
                system_time: Duration::from_nanos(exited.system_ns),
                max_rss: exited.max_rss,
                wall_time: Duration::from_nanos(exited.wall_ns),
            }),
        }
    }
}

impl ExitStatus {
    /// The status of a sandbox: 0 after an orderly end, the signal when it was killed.
    pub(crate) fn of_sandbox(signal: Option<i32>) -> Self {
        ExitStatus {
            code: if signal.is_none() { 0 } else { -1 },
            success: signal.is_none(),
            signal,
            core_dumped: false,
            timed_out: false,
            usage: None,
        }
    }
}

/// The result of a command that ran to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Bytes,
    pub(crate) stderr: Bytes,
    pub(crate) stdout_total: u64,
    pub(crate) stderr_total: u64,
    pub(crate) writer_left: bool,
}

impl ExecOutput {
    /// How the command ended.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Standard output as text.
    pub fn stdout(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.stdout.to_vec())
    }

    /// Standard error as text.
    pub fn stderr(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.stderr.to_vec())
    }

    /// Standard output as it is.
    pub fn stdout_bytes(&self) -> &Bytes {
        &self.stdout
    }

    /// Standard error as it is.
    pub fn stderr_bytes(&self) -> &Bytes {
        &self.stderr
    }

    /// Whether a limit on the output cut something off.
    pub fn truncated(&self) -> bool {
        self.stdout_total > self.stdout.len() as u64 || self.stderr_total > self.stderr.len() as u64
    }

    /// How many bytes came from standard output, cut off or not.
    pub fn stdout_total(&self) -> u64 {
        self.stdout_total
    }

    /// How many bytes came from standard error, cut off or not.
    pub fn stderr_total(&self) -> u64 {
        self.stderr_total
    }

    /// Whether some other process still had the output open when collecting ended.
    pub fn writer_left(&self) -> bool {
        self.writer_left
    }
}

/// The name of an error number of Linux; empty for 0 and for numbers without a name.
pub fn errno_name(errno: i32) -> String {
    match nix::errno::Errno::from_raw(errno) {
        nix::errno::Errno::UnknownErrno => String::new(),
        known => format!("{known:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_have_their_names() {
        assert_eq!(errno_name(2), "ENOENT");
        assert_eq!(errno_name(32), "EPIPE");
        assert_eq!((errno_name(0), errno_name(9999)), (String::new(), String::new()));
    }

    #[test]
    fn a_death_by_signal_is_not_a_success() {
        let exited = msb_wire::Exited { code: -1, signal: Some(9), ..Default::default() };
        let status = ExitStatus::from(&exited);
        assert_eq!((status.code, status.success, status.signal), (-1, false, Some(9)));
    }
}
