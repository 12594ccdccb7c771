//! The exit status and the output of a command.

use bytes::Bytes;
use std::string::FromUtf8Error;
use std::time::Duration;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExitStatus {
    /// The exit code; -1 if a signal killed it.
    pub code: i32,
    /// Whether the exit code is 0.
    pub success: bool,
    /// The number of the signal that killed it.
    pub signal: Option<i32>,
    /// Whether it dumped core.
    pub core_dumped: bool,
    /// Whether it was killed because its timeout expired.
    pub timed_out: bool,
    /// The resources that it used; `None` for a sandbox as a whole.
    pub usage: Option<ResourceUsage>,
}

/// Resources used by a command and the children that it waited for.
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
    /// The status of a sandbox: 0 after an orderly end, the signal if it was killed.
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

/// The result of a completed command.
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
    /// Returns the exit status.
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Returns standard output as text.
    pub fn stdout(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.stdout.to_vec())
    }

    /// Returns standard error as text.
    pub fn stderr(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.stderr.to_vec())
    }

    /// Returns standard output as bytes.
    pub fn stdout_bytes(&self) -> &Bytes {
        &self.stdout
    }

    /// Returns standard error as bytes.
    pub fn stderr_bytes(&self) -> &Bytes {
        &self.stderr
    }

    /// Returns whether the output was cut at its limit.
    pub fn truncated(&self) -> bool {
        self.stdout_total > self.stdout.len() as u64 || self.stderr_total > self.stderr.len() as u64
    }

    /// Returns the size of standard output, in bytes, including what was cut.
    pub fn stdout_total(&self) -> u64 {
        self.stdout_total
    }

    /// Returns the size of standard error, in bytes, including what was cut.
    pub fn stderr_total(&self) -> u64 {
        self.stderr_total
    }

    /// Returns whether another process still had the output open when collection ended.
    pub fn writer_left(&self) -> bool {
        self.writer_left
    }
}

/// Returns the name of a Linux error number; empty for 0 and for unknown numbers.
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
