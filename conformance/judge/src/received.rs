//! The events of a command received so far.

use crate::bytes::show;
use crate::format::Kind;
use std::time::Instant;

/// The received events.
#[derive(Default)]
pub(crate) struct Received {
    pub(crate) events: Vec<Kind>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// The offsets up to which `wait_stdout` and `wait_stderr` have searched.
    pub(crate) looked: [usize; 2],
    pub(crate) stdin_errors: u32,
    /// When `exited` was received.
    pub(crate) exited: Option<Instant>,
}

impl Received {
    pub(crate) fn ended(&self) -> bool {
        self.events.last() == Some(&Kind::End)
    }

    pub(crate) fn output(&self, at: usize) -> &[u8] {
        if at == 0 { &self.stdout } else { &self.stderr }
    }

    pub(crate) fn summary(&self) -> String {
        let (stdout, stderr) = (show(&self.stdout), show(&self.stderr));
        format!("{:?}, stdout {stdout}, stderr {stderr}", self.events)
    }

    pub(crate) fn take(&mut self, kind: Kind, data: &[u8]) {
        match kind {
            // Every later call returns the end again.
            Kind::End if self.ended() => return,
            Kind::Stdout => self.stdout.extend_from_slice(data),
            Kind::Stderr => self.stderr.extend_from_slice(data),
            Kind::StdinError => self.stdin_errors += 1,
            Kind::Exited => self.exited = Some(Instant::now()),
            Kind::Started | Kind::Failed | Kind::Lost | Kind::End => {}
        }
        // Output has pieces of any size, so their number is not compared.
        let output = matches!(kind, Kind::Stdout | Kind::Stderr);
        if !(output && self.events.last() == Some(&kind)) {
            self.events.push(kind);
        }
    }
}
