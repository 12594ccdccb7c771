//! Options of an attached command.

use crate::attach::DetachKeys;
use crate::error::MicrosandboxResult;
use crate::options::{ExecOptions, ExecOptionsBuilder, RlimitResource};
use std::time::Duration;

/// Validated options of an attached command, created by [`AttachOptionsBuilder::build`].
#[derive(Debug, Clone)]
pub struct AttachOptions {
    pub(crate) exec: ExecOptions,
    pub(crate) keys: DetachKeys,
}

impl AttachOptions {
    /// Combines the validated options of a command with detach keys, in the form of
    /// [`AttachOptionsBuilder::detach_keys`].
    pub fn new(exec: ExecOptions, detach_keys: Option<&str>) -> MicrosandboxResult<AttachOptions> {
        let keys = detach_keys.map_or_else(|| Ok(DetachKeys::default()), str::parse)?;
        Ok(AttachOptions { exec, keys })
    }
}

/// Builder of the options of an attached command. They never change the sandbox's defaults.
#[derive(Debug, Clone, Default)]
pub struct AttachOptionsBuilder {
    exec: ExecOptionsBuilder,
    keys: Option<String>,
}

impl AttachOptionsBuilder {
    /// Creates options with nothing set.
    pub fn new() -> Self {
        AttachOptionsBuilder::default()
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(self, arg: impl Into<String>) -> Self {
        self.with(|exec| exec.arg(arg))
    }

    /// Appends an argument that need not be UTF-8.
    #[must_use]
    pub fn arg_bytes(self, arg: impl Into<Vec<u8>>) -> Self {
        self.with(|exec| exec.arg_bytes(arg))
    }

    /// Appends arguments.
    #[must_use]
    pub fn args(self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|exec| exec.args(args))
    }

    /// Sets the working directory; default: that of the sandbox.
    #[must_use]
    pub fn cwd(self, cwd: impl Into<String>) -> Self {
        self.with(|exec| exec.cwd(cwd))
    }

    /// Sets a working directory that need not be UTF-8.
    #[must_use]
    pub fn cwd_bytes(self, cwd: impl Into<Vec<u8>>) -> Self {
        self.with(|exec| exec.cwd_bytes(cwd))
    }

    /// Sets the user: `name`, `uid`, `name:group` or `uid:gid`; default: that of the sandbox.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(|exec| exec.user(user))
    }

    /// Sets an environment variable, which overrides the sandbox's.
    #[must_use]
    pub fn env(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|exec| exec.env(key, value))
    }

    /// Sets an environment variable that need not be UTF-8.
    #[must_use]
    pub fn env_bytes(self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.with(|exec| exec.env_bytes(key, value))
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(
        self,
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.with(|exec| exec.envs(vars))
    }

    /// Sets the keys that detach the terminal and let the command continue: characters and names
    /// such as `ctrl-a`, separated by commas. Default: `"ctrl-]"`; other examples are
    /// `"ctrl-p,ctrl-q"` and `"q"`.
    ///
    /// A typed prefix of the keys is held back until the next byte decides.
    #[must_use]
    pub fn detach_keys(mut self, keys: impl Into<String>) -> Self {
        self.keys = Some(keys.into());
        self
    }

    /// Sets the soft and hard limit of a resource. `u64::MAX` is no limit.
    #[must_use]
    pub fn rlimit(self, resource: RlimitResource, limit: u64) -> Self {
        self.with(|exec| exec.rlimit(resource, limit))
    }

    /// Sets both limits of a resource; the command may raise the soft limit up to the hard one.
    #[must_use]
    pub fn rlimit_range(self, resource: RlimitResource, soft: u64, hard: u64) -> Self {
        self.with(|exec| exec.rlimit_range(resource, soft, hard))
    }

    /// Kills the command and everything it started if it has not ended after this time, also after
    /// a detach.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|exec| exec.timeout(timeout))
    }

    /// Validates the options.
    pub fn build(self) -> MicrosandboxResult<AttachOptions> {
        let keys = self.keys.map_or_else(|| Ok(DetachKeys::default()), |keys| keys.parse())?;
        Ok(AttachOptions { exec: self.exec.tty(true).stdin_pipe().build()?, keys })
    }

    fn with(self, f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder) -> Self {
        AttachOptionsBuilder { exec: f(self.exec), keys: self.keys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn h1_invalid_options_are_refused() {
        let new = AttachOptionsBuilder::new;
        for wrong in [
            new().detach_keys(""),
            new().detach_keys("hyper-x"),
            new().rlimit_range(RlimitResource::Nofile, 2, 1),
            new().arg("\0"),
            new().cwd(""),
            new().timeout(Duration::ZERO),
        ] {
            assert_eq!(wrong.build().unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn h1_an_attached_command_has_a_terminal_and_its_options() {
        let options = AttachOptionsBuilder::new()
            .arg("a")
            .args(["b", "c"])
            .env("A", "1")
            .envs([("B", "2")])
            .rlimit(RlimitResource::Nofile, 7)
            .arg_bytes(b"\xff")
            .env_bytes(b"C", b"\xff")
            .cwd_bytes(b"/\xff")
            .timeout(Duration::from_secs(1))
            .detach_keys("q")
            .build()
            .unwrap();
        assert!(options.exec.tty.is_some());
        assert_eq!(options.exec.args, [b"a", b"b", b"c", b"\xff"]);
        assert_eq!((options.exec.env.len(), options.exec.rlimits.len()), (3, 1));
        assert_eq!(options.exec.cwd.as_deref(), Some(b"/\xff".as_slice()));
        assert_eq!(options.exec.timeout, Some(Duration::from_secs(1)));
        assert_eq!(options.keys, "q".parse().unwrap());
    }
}
