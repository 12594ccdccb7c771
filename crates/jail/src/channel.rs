//! The protocol between the parent and a process that enters a jail: the description one way, and
//! [`Message`]s the other, until the process closes its end.

use crate::describe::Jail;
use crate::error::JailError;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The channel's descriptor in the process that enters a jail.
pub const CHANNEL: i32 = 60;

/// A message from the process that enters a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The pid of the jailed process.
    Pid(i32),
    /// A missing wall, with the reason and the remedy.
    Missing(String),
    /// The jail holds.
    Ready,
    /// It failed.
    Error(String),
    /// It failed, because the owners of a bind cannot be mapped.
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
        // Fails if the parent has exited; this process then dies, too.
        let _ = self.0.write_all(&line);
    }

    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
