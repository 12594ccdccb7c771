//! What the reader of a stream of events has seen.

use crate::bytes::show;
use crate::format::Kind;
use microsandbox::{ExecEvent, ExecFailed};

/// What a reader has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Kind>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Up to where `wait_stdout` and `wait_stderr` have looked.
    pub(crate) looked: [usize; 2],
    pub(crate) stdin_errors: u32,
    pub(crate) failed: Option<ExecFailed>,
}

impl Seen {
    pub(crate) fn ended(&self) -> bool {
        self.events.last() == Some(&Kind::End)
    }

    pub(crate) fn output(&self, at: usize) -> &[u8] {
        if at == 0 { &self.stdout } else { &self.stderr }
    }

    pub(crate) fn tell(&self) -> String {
        let (stdout, stderr) = (show(&self.stdout), show(&self.stderr));
        format!("{:?}, stdout {stdout}, stderr {stderr}, {:?}", self.events, self.failed)
    }

    pub(crate) fn take(&mut self, event: Option<ExecEvent>) {
        if event.is_none() && self.ended() {
            // The end is told for ever after, to whoever asks again.
            return;
        }
        let kind = match event {
            None => Kind::End,
            Some(ExecEvent::Started { .. }) => Kind::Started,
            Some(ExecEvent::Stdout(data)) => {
                self.stdout.extend_from_slice(&data);
                Kind::Stdout
            }
            Some(ExecEvent::Stderr(data)) => {
                self.stderr.extend_from_slice(&data);
                Kind::Stderr
            }
            Some(ExecEvent::StdinError(_)) => {
                self.stdin_errors += 1;
                Kind::StdinError
            }
            Some(ExecEvent::Exited { .. }) => Kind::Exited,
            Some(ExecEvent::Failed(failed)) => {
                self.failed = Some(failed);
                Kind::Failed
            }
            Some(_) => Kind::Lost,
        };
        // Output comes in pieces of any size; everything else counts each time.
        let output = matches!(kind, Kind::Stdout | Kind::Stderr);
        if !(output && self.events.last() == Some(&kind)) {
            self.events.push(kind);
        }
    }
}
