//! Options of one command.

use crate::error::{Error, MicrosandboxResult};
use bytes::Bytes;
use msb_client::StdinSource;
use msb_wire::{TtyModes, TtySize};
use std::time::Duration;

/// The default size of a terminal.
const DEFAULT_SIZE: TtySize = TtySize { rows: 24, cols: 80 };

/// Validated options of one command, created by [`ExecOptionsBuilder::build`].
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) cwd: Option<Vec<u8>>,
    pub(crate) user: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) tty: Option<TtySize>,
    pub(crate) modes: Option<TtyModes>,
    pub(crate) stdin: StdinSource,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) drain: Option<Duration>,
    pub(crate) wait_for_eof: bool,
    pub(crate) max_output: Option<u64>,
}

/// Builder of the options of one command. They never change the sandbox's defaults or another
/// command.
#[derive(Debug, Clone, Default)]
pub struct ExecOptionsBuilder {
    options: ExecOptions,
    tty: bool,
    size: Option<(u16, u16)>,
}

impl ExecOptionsBuilder {
    /// Creates options with nothing set.
    pub fn new() -> Self {
        ExecOptionsBuilder::default()
    }

    /// Appends an argument.
    #[must_use]
    pub fn arg(self, arg: impl Into<String>) -> Self {
        self.arg_bytes(arg.into())
    }

    /// Appends an argument that need not be UTF-8.
    #[must_use]
    pub fn arg_bytes(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.options.args.push(arg.into());
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.options.args.extend(args.into_iter().map(|arg| arg.into().into_bytes()));
        self
    }

    /// Sets the working directory; default: that of the sandbox.
    #[must_use]
    pub fn cwd(self, cwd: impl Into<String>) -> Self {
        self.cwd_bytes(cwd.into())
    }

    /// Sets a working directory that need not be UTF-8.
    #[must_use]
    pub fn cwd_bytes(mut self, cwd: impl Into<Vec<u8>>) -> Self {
        self.options.cwd = Some(cwd.into());
        self
    }

    /// Sets the user: `name`, `uid`, `name:group` or `uid:gid`; default: that of the sandbox.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.options.user = Some(user.into());
        self
    }

    /// Sets an environment variable, which overrides the sandbox's.
    #[must_use]
    pub fn env(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env_bytes(key.into(), value.into())
    }

    /// Sets an environment variable that need not be UTF-8.
    #[must_use]
    pub fn env_bytes(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.options.env.push((key.into(), value.into()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(
        self,
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        vars.into_iter().fold(self, |builder, (key, value)| builder.env(key, value))
    }

    /// Kills the command and everything it started if it has not ended after this time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Gives the command a terminal. Standard output then carries its standard error, too.
    #[must_use]
    pub fn tty(mut self, enabled: bool) -> Self {
        self.tty = enabled;
        self
    }

    /// Sets the initial size of the terminal; default: 24 rows and 80 columns.
    #[must_use]
    pub fn tty_size(mut self, rows: u16, cols: u16) -> Self {
        self.size = Some((rows, cols));
        self
    }

    /// Connects standard input to `/dev/null`, the default.
    #[must_use]
    pub fn stdin_null(mut self) -> Self {
        self.options.stdin = StdinSource::Null;
        self
    }

    /// Connects standard input to the sink of
    /// [`ExecHandle::take_stdin`](crate::ExecHandle::take_stdin).
    #[must_use]
    pub fn stdin_pipe(mut self) -> Self {
        self.options.stdin = StdinSource::Pipe;
        self
    }

    /// Feeds these bytes to standard input, then end of file.
    #[must_use]
    pub fn stdin_bytes(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.options.stdin = StdinSource::Bytes(Bytes::from(data.into()));
        self
    }

    /// Sets the soft and hard limit of a resource. `u64::MAX` is no limit.
    #[must_use]
    pub fn rlimit(self, resource: RlimitResource, limit: u64) -> Self {
        self.rlimit_range(resource, limit, limit)
    }

    /// Sets both limits of a resource; the command may raise the soft limit up to the hard one.
    #[must_use]
    pub fn rlimit_range(mut self, resource: RlimitResource, soft: u64, hard: u64) -> Self {
        self.options.rlimits.push(Rlimit { resource, soft, hard });
        self
    }

    /// Sets how long output of other processes that hold the command's output open is forwarded
    /// after the exit; default: 250 ms.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.options.drain = Some(drain);
        self
    }

    /// Forwards output until every process that holds it open has closed it, without a time limit.
    #[must_use]
    pub fn wait_for_eof(mut self, enabled: bool) -> Self {
        self.options.wait_for_eof = enabled;
        self
    }

    /// Sets how many bytes of each stream are collected. The rest is counted and discarded; see
    /// [`ExecOutput::truncated`](crate::ExecOutput::truncated).
    #[must_use]
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.options.max_output = Some(bytes);
        self
    }

    /// Validates the options.
    pub fn build(mut self) -> MicrosandboxResult<ExecOptions> {
        for limit in &self.options.rlimits {
            if limit.soft > limit.hard {
                let Rlimit { resource, soft, hard } = limit;
                let name = resource.name();
                return Err(Error::invalid(format!(
                    "the soft limit of {name} is {soft}, above its hard limit {hard}"
                )));
            }
        }
        for arg in &self.options.args {
            no_nul("an argument", arg)?;
        }
        for (key, value) in &self.options.env {
            if key.is_empty() || key.contains(&b'=') {
                let key = String::from_utf8_lossy(key);
                return Err(Error::invalid(format!(
                    "the name of the variable {key:?} is empty or contains '='"
                )));
            }
            no_nul("the name of a variable", key)?;
            no_nul("the value of a variable", value)?;
        }
        if let Some(cwd) = &self.options.cwd {
            no_nul("the working directory", cwd)?;
            not_empty("the working directory", cwd)?;
        }
        if let Some(user) = &self.options.user {
            no_nul("the user", user.as_bytes())?;
            not_empty("the user", user.as_bytes())?;
        }
        if self.options.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::invalid("the timeout is zero; leave it out or give it a time"));
        }
        self.options.tty = match (self.tty, self.size) {
            (false, _) => None,
            (true, None) => Some(DEFAULT_SIZE),
            (true, Some((rows, cols))) => Some(msb_client::checked_size(rows, cols)?),
        };
        Ok(self.options)
    }
}

/// Rejects a NUL byte, which cannot be passed to a program.
pub(crate) fn no_nul(what: &str, bytes: &[u8]) -> MicrosandboxResult<()> {
    match bytes.iter().position(|byte| *byte == 0) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(format!("{what} contains a NUL byte at position {at}"))),
    }
}

/// Rejects an empty value.
pub(crate) fn not_empty(what: &str, bytes: &[u8]) -> MicrosandboxResult<()> {
    if bytes.is_empty() { Err(Error::invalid(format!("{what} is empty"))) } else { Ok(()) }
}

/// The limits of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Which resource.
    pub resource: RlimitResource,
    /// The soft limit, in force; the command may raise it up to `hard`.
    pub soft: u64,
    /// The hard limit; raising it takes privileges. `u64::MAX` is no limit.
    pub hard: u64,
}

/// Declares the resources once: variant, Linux's number, name.
macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A resource that can be limited.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum RlimitResource {
            $($(#[$doc])* $variant,)*
        }

        impl RlimitResource {
            /// Every resource.
            pub const ALL: [RlimitResource; 16] = [$(RlimitResource::$variant),*];

            /// Returns the name in lower case, the same in every language.
            pub const fn name(self) -> &'static str {
                match self { $(RlimitResource::$variant => $name,)* }
            }

            /// Returns the resource with Linux's number `number`.
            pub fn from_number(number: u8) -> Option<RlimitResource> {
                RlimitResource::ALL.into_iter().find(|resource| resource.number() == number)
            }

            /// Returns Linux's number (asm-generic/resource.h).
            pub(crate) const fn number(self) -> u8 {
                match self { $(RlimitResource::$variant => $number,)* }
            }
        }
    };
}

resources! {
    /// CPU time in seconds.
    Cpu = 0, "cpu";
    /// Size of a created file in bytes.
    Fsize = 1, "fsize";
    /// Size of the data segment.
    Data = 2, "data";
    /// Size of the stack.
    Stack = 3, "stack";
    /// Size of a core file.
    Core = 4, "core";
    /// Resident memory.
    Rss = 5, "rss";
    /// Number of processes.
    Nproc = 6, "nproc";
    /// Number of open descriptors.
    Nofile = 7, "nofile";
    /// Locked memory.
    Memlock = 8, "memlock";
    /// Address space.
    As = 9, "as";
    /// File locks.
    Locks = 10, "locks";
    /// Pending signals.
    Sigpending = 11, "sigpending";
    /// Bytes in POSIX message queues.
    Msgqueue = 12, "msgqueue";
    /// Priority, as `20 - nice`.
    Nice = 13, "nice";
    /// Real-time priority.
    Rtprio = 14, "rtprio";
    /// Real-time CPU time without a pause, in microseconds.
    Rttime = 15, "rttime";
}

impl std::str::FromStr for RlimitResource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        RlimitResource::ALL
            .into_iter()
            .find(|resource| resource.name() == text)
            .ok_or_else(|| Error::invalid(format!("{text:?} is not the name of a resource limit")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refused(change: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder) -> String {
        let error = change(ExecOptionsBuilder::new()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    }

    #[test]
    fn a9_a_soft_limit_above_the_hard_one_is_refused() {
        let message = refused(|o| o.rlimit_range(RlimitResource::Nofile, 2, 1));
        assert!(message.contains("nofile is 2"), "{message}");
        let options = ExecOptionsBuilder::new()
            .rlimit(RlimitResource::As, u64::MAX)
            .rlimit_range(RlimitResource::Core, 0, u64::MAX)
            .build()
            .unwrap();
        assert_eq!(options.rlimits.len(), 2);
    }

    #[test]
    fn a9_sixteen_resources_have_linux_numbers_and_names() {
        for (number, resource) in RlimitResource::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(resource.number()), number);
            assert_eq!(resource.name().parse::<RlimitResource>().unwrap(), resource);
        }
        assert_eq!(i64::from(RlimitResource::Nofile.number()), i64::from(libc::RLIMIT_NOFILE));
        assert_eq!(i64::from(RlimitResource::Rttime.number()), i64::from(libc::RLIMIT_RTTIME));
        assert!("Nofile".parse::<RlimitResource>().is_err());
    }

    #[test]
    fn a2_a_nul_byte_is_refused_wherever_it_is() {
        assert!(refused(|o| o.arg("a\0b")).contains("position 1"));
        assert!(refused(|o| o.args(["x", "\0"])).contains("an argument"));
        assert!(refused(|o| o.env("A", "\0")).contains("the value of a variable"));
        assert!(refused(|o| o.env("A\0", "")).contains("the name of a variable"));
        assert!(refused(|o| o.cwd("/\0")).contains("the working directory"));
        assert!(refused(|o| o.user("\0")).contains("the user"));
    }

    #[test]
    fn other_invalid_values_are_refused() {
        assert!(refused(|o| o.env("", "x")).contains("empty"));
        assert!(refused(|o| o.env("A=B", "x")).contains("A=B"));
        assert!(refused(|o| o.cwd("")).contains("empty"));
        assert!(refused(|o| o.timeout(Duration::ZERO)).contains("timeout"));
        assert!(refused(|o| o.tty(true).tty_size(0, 80)).contains("0 rows"));
    }

    #[test]
    fn b8_terminal_has_24_by_80_by_default() {
        let size = |o: ExecOptionsBuilder| o.build().unwrap().tty.map(|s| (s.rows, s.cols));
        assert_eq!(size(ExecOptionsBuilder::new().tty(true)), Some((24, 80)));
        assert_eq!(size(ExecOptionsBuilder::new().tty(true).tty_size(3, 4)), Some((3, 4)));
        assert_eq!(size(ExecOptionsBuilder::new().tty_size(3, 4)), None);
    }
}
