//! The state of a command as far as its events were received.

use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::event::Ending;
use crate::output::{ExecOutput, ExitStatus};
use bytes::Bytes;
use msb_client::{Event, StreamEnd};
use msb_wire::OutputStream;
use std::time::Duration;

/// The options of a command that concern collecting.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_output: Option<u64>,
    pub(crate) wait_for_eof: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ExecRecord {
    settings: Settings,
    gathered: Gathered,
    ending: Option<Ending>,
    end: Option<StreamEnd>,
    position: u64,
    missed: u64,
}

/// The output collected so far, which outlives a cancelled call.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

/// The collected part of one stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// The bytes, up to the caller's limit.
    pub data: Vec<u8>,
    /// The total size of the stream, including bytes beyond the caller's limit.
    pub total: u64,
}

impl Stream {
    fn add(&mut self, data: &[u8], max: Option<u64>) {
        self.total += data.len() as u64;
        let room = max.map_or(u64::MAX, |max| max.saturating_sub(self.data.len() as u64));
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.data.extend_from_slice(data.get(..room).unwrap_or(data));
    }

    /// Returns whether the stream was cut at the caller's limit.
    pub fn is_cut(&self) -> bool {
        (self.data.len() as u64) < self.total
    }
}

impl ExecRecord {
    pub(crate) fn new(settings: Settings) -> ExecRecord {
        ExecRecord { settings, ..ExecRecord::default() }
    }

    /// Creates the record of a joined session, whose output begins at `position` after `missed`
    /// lost bytes.
    pub(crate) fn joined(position: u64, missed: u64) -> ExecRecord {
        ExecRecord { position, missed, ..ExecRecord::default() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Records an event that was taken out of the queue.
    pub(crate) fn note(&mut self, event: &Event) {
        match event {
            Event::Output(_, data) => self.position += data.len() as u64,
            Event::Exited(exited) => self.ending = Some(Ending::Exited(exited.into())),
            Event::Failed(failure) => self.ending = Some(Ending::Failed(failure.clone().into())),
            Event::Lost(lost) => self.ending = Some(Ending::Lost(lost.clone())),
            _ => {}
        }
    }

    /// Records an event as [`ExecRecord::note`], and keeps its output for `collect`.
    pub(crate) fn gather(&mut self, event: &Event) {
        self.note(event);
        if let Event::Output(stream, data) = event {
            let gathered = match stream {
                OutputStream::Stdout => &mut self.gathered.stdout,
                OutputStream::Stderr => &mut self.gathered.stderr,
            };
            gathered.add(data, self.settings.max_output);
        }
    }

    /// Records the end of the stream.
    pub(crate) fn ended(&mut self, end: StreamEnd) {
        self.end = Some(end);
    }

    pub(crate) fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Takes the output that was collected and not yet returned.
    pub(crate) fn take_gathered(&mut self) -> Gathered {
        std::mem::take(&mut self.gathered)
    }

    /// Returns the ending; fails before the end of the stream.
    pub(crate) fn known_ending(&self) -> MicrosandboxResult<&Ending> {
        self.ending.as_ref().ok_or_else(|| Error::internal("the events ended without an ending"))
    }

    /// Returns the exit status; any other ending is an error.
    pub(crate) fn status(&self) -> MicrosandboxResult<ExitStatus> {
        match self.known_ending()? {
            Ending::Exited(status) => Ok(*status),
            Ending::Failed(failed) => Err(Error::ExecFailed(failed.clone())),
            Ending::Lost(lost) => Err(Error::lost(lost)),
        }
    }

    /// Returns the collected output; fails before the end of the stream.
    pub(crate) fn output(&mut self) -> MicrosandboxResult<ExecOutput> {
        let end = self.end.unwrap_or_default();
        let status = self.status()?;
        if end.cut && self.settings.wait_for_eof {
            let context = "the connection to the sandbox was lost before the end of the output";
            return Err(Error::new(ErrorKind::StreamLost, Origin::Transport, context));
        }
        let Gathered { stdout, stderr } = self.take_gathered();
        let output = ExecOutput {
            status,
            stdout_total: stdout.total,
            stderr_total: stderr.total,
            stdout: Bytes::from(stdout.data),
            stderr: Bytes::from(stderr.data),
            writer_left: end.writer_left,
        };
        match self.settings.timeout {
            Some(timeout) if status.timed_out => {
                Err(Error::ExecTimeout { timeout, output: Box::new(output) })
            }
            _ => Ok(output),
        }
    }
}
