//! What the parent and a process that enters a jail say to each other: the description one way,
//! lines about the jail the other, until the process closes its end.

use crate::describe::Jail;
use crate::error::JailError;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The number of the channel's descriptor in the process that enters a jail.
pub const CHANNEL: i32 = 60;

/// A message about a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The id of its process.
    Pid(i32),
    /// A wall that it lacks, with the reason and the remedy.
    Missing(String),
    /// It holds.
    Ready,
    /// It does not come about.
    Error(String),
    /// It does not come about, because the owners of a bind cannot be mapped.
    Unmapped(String),
}

impl From<&JailError> for Message {
    fn from(error: &JailError) -> Message {
        let text = error.to_string();
        if error.is_unmapped() { Message::Unmapped(text) } else { Message::Error(text) }
    }
}

/// The end of the process that enters.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn inherited() -> Result<Channel, JailError> {
        let fd = sys::inherited(CHANNEL);
        let fd = fd.map_err(|error| JailError::new("open the channel of the jail", error))?;
        Ok(Channel(UnixStream::from(fd)))
    }

    /// Reads the parent's process id and the description.
    pub(crate) fn receive(&mut self) -> Result<(i32, Jail), JailError> {
        let mut text = Vec::new();
        let read = self.0.read_to_end(&mut text);
        read.map_err(|error| JailError::new("read the description of the jail", error))?;
        serde_json::from_slice(&text)
            .map_err(|error| JailError::new("read the description of the jail", error.into()))
    }

    pub(crate) fn send(&mut self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        // A parent that does not listen is gone, and this process goes with it.
        let _ = self.0.write_all(&line);
    }

    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
