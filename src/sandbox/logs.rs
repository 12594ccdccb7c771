//! Reading what the sessions of a sandbox have put out.

use crate::error::{Error, MicrosandboxResult};
use crate::runtime;
use crate::sandbox::{Sandbox, on_thread};
use msb_driver::{LogOptions, LogReader, LogRecord, LogStep};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Records that are read ahead of the caller (a count); each holds 64 KiB at most.
const READ_AHEAD: usize = 16;

/// The records of a log, in order. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream {
    records: mpsc::Receiver<Read>,
    warning: Option<String>,
}

#[derive(Debug)]
enum Read {
    Record(LogRecord),
    Failed(Error),
    /// There is no more, and this is missing.
    Incomplete(String),
}

/// Reads the log of a sandbox by its name, running or not; see [`Sandbox::logs`].
pub async fn logs(name: impl AsRef<str>, options: LogOptions) -> MicrosandboxResult<LogStream> {
    Sandbox::get(name).await?.logs(options).await
}

impl Sandbox {
    /// Reads its log: what its sessions have put out, byte for byte, and what became of them.
    ///
    /// There is one only if it was asked for by [`SandboxBuilder::log`]. It is kept until the
    /// sandbox is removed, the oldest part only as long as there is room.
    ///
    /// [`SandboxBuilder::log`]: crate::SandboxBuilder::log
    pub async fn logs(&self, options: LogOptions) -> MicrosandboxResult<LogStream> {
        let inner = Arc::clone(&self.inner);
        on_thread("msb-control", move || LogStream::begin(LogReader::open(&inner.dir, options)?))
            .await
    }
}

impl LogStream {
    fn begin(reader: LogReader) -> Result<LogStream, Error> {
        let (sender, records) = mpsc::channel(READ_AHEAD);
        runtime::spawn_thread("msb-logs", move || read(reader, &sender))?;
        Ok(LogStream { records, warning: None })
    }

    /// The next record; `None` at the end. Giving the future up loses nothing.
    pub async fn next(&mut self) -> Option<MicrosandboxResult<LogRecord>> {
        match self.records.recv().await? {
            Read::Record(record) => Some(Ok(record)),
            Read::Failed(error) => Some(Err(error)),
            Read::Incomplete(warning) => {
                self.warning = Some(warning);
                None
            }
        }
    }

    /// What is missing from what was read, in one line; known at the end.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn read(mut reader: LogReader, to: &mpsc::Sender<Read>) {
    while !to.is_closed() {
        let read = match reader.step() {
            Ok(LogStep::Nothing) => {
                reader.wait();
                continue;
            }
            Ok(LogStep::Record(record)) => Read::Record(record),
            Ok(LogStep::End) => match missing(&reader) {
                Some(missing) => Read::Incomplete(missing),
                None => return,
            },
            Err(error) => Read::Failed(error.into()),
        };
        let is_last = !matches!(read, Read::Record(_));
        // Nobody reads any more, or there is nothing more to read.
        if to.blocking_send(read).is_err() || is_last {
            return;
        }
    }
}

fn missing(reader: &LogReader) -> Option<String> {
    if let Some(failure) = reader.failure() {
        return Some(format!("the log could not be written to its end: {failure}"));
    }
    let files = reader.missed_files();
    (files > 0)
        .then(|| format!("{files} files of the log were full and gone before they were read"))
}
