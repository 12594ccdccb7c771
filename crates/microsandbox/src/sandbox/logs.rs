//! Reading the log of a sandbox.

use crate::completion::Pending;
use crate::error::MicrosandboxResult;
use crate::sandbox::log_queue::{LogCore, LogItem, LogNext};
use crate::sandbox::{Sandbox, on_thread};
use msb_state::{LogOptions, LogReader, LogRecord};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// The records of a log, in order. Dropping this closes it.
#[derive(Debug)]
pub struct LogStream {
    core: LogCore,
    warning: Option<String>,
}

/// Opens the log of a sandbox by its name, running or not; see [`Sandbox::logs`].
pub async fn logs(name: impl AsRef<str>, options: LogOptions) -> MicrosandboxResult<LogStream> {
    Sandbox::get(name).await?.logs(options).await
}

impl Sandbox {
    /// Opens the log: the output of the sandbox's sessions, byte for byte, and how they ended.
    ///
    /// It exists only if [`SandboxBuilder::log`] was set. It is kept until the sandbox is removed;
    /// its oldest part is removed when its size limit is reached.
    ///
    /// [`SandboxBuilder::log`]: crate::SandboxBuilder::log
    pub async fn logs(&self, options: LogOptions) -> MicrosandboxResult<LogStream> {
        Ok(LogStream { core: self.begin_logs(options).await?, warning: None })
    }

    pub(crate) fn begin_logs(&self, options: LogOptions) -> Pending<LogCore> {
        let inner = Arc::clone(&self.inner);
        on_thread("msb-control", move || LogCore::begin(LogReader::open(&inner.dir, options)?))
    }
}

impl LogStream {
    /// Waits for the next record; `None` at the end. Cancel-safe: dropping the future loses no
    /// record.
    pub async fn next(&mut self) -> Option<MicrosandboxResult<LogRecord>> {
        match self.core.next().await {
            Ok(LogNext::Item(LogItem::Record(record))) => Some(Ok(record)),
            Ok(LogNext::Item(LogItem::Failed(error))) | Err(error) => Some(Err(error)),
            Ok(LogNext::Item(LogItem::Incomplete(warning))) => {
                self.warning = Some(warning);
                None
            }
            Ok(LogNext::End | LogNext::Nothing) => None,
        }
    }

    /// Takes the next item, and waits for it until the deadline. One thread at a time; a second
    /// caller gets [`ErrorKind::Busy`](crate::ErrorKind::Busy).
    pub fn take_until(&self, deadline: Option<Instant>) -> MicrosandboxResult<LogNext> {
        self.core.turn()?.next(deadline)
    }

    /// Returns a descriptor that polls readable while there is an item or the end.
    pub fn fd(&self) -> MicrosandboxResult<BorrowedFd<'_>> {
        self.core.fd()
    }

    /// Closes the log. A waiting call returns at once.
    pub fn close(&self) {
        self.core.close();
    }

    /// Returns what is missing from the log, in one line; known at the end.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}
