//! Validation of the messages that an agent sends.
//!
//! Owns: the range of every number and the length of every text from an agent. The decoder applies
//! them, so that the host reads validated values only. A number out of range ends the connection; a
//! text that is too long is truncated.

use crate::error::WireError;
use crate::failure::Failure;
use crate::fs;
use crate::kind::Kind;
use crate::limits::{PID_MAX, SIGNAL_MAX, TEXT};
use crate::message::{Attached, Exited, Message, SessionInfo, Started, StdinError, Verdict};
use crate::range::{Checked, error_number, truncate};

/// Validates the numbers of an agent's message and truncates its texts.
pub(crate) fn from_agent(kind: Kind, mut message: Message) -> Result<Message, WireError> {
    let checked = match &mut message {
        Message::Started(Started { pid }) => process_id(*pid),
        Message::Attached(attached) => position(attached),
        Message::StdinError(StdinError { errno }) => error_number(*errno),
        Message::Exited(exited) => exit_status(exited),
        Message::Failed(Failure { errno, path, message, .. }) => {
            path.truncate(TEXT);
            truncate(message);
            error_number(*errno)
        }
        Message::Verdict(Verdict { errno, message, .. }) => {
            truncate(message);
            error_number(*errno)
        }
        Message::Sessions(list) => list.sessions.iter().try_for_each(session),
        Message::Error(text) => {
            truncate(text);
            Ok(())
        }
        Message::Fs(message) => fs::check(message),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => Ok(message),
        Err((what, value)) => Err(WireError::OutOfRange { kind, what, value }),
    }
}

fn process_id(pid: u32) -> Checked {
    match (1..=PID_MAX).contains(&pid) {
        true => Ok(()),
        false => Err(("process id", pid.into())),
    }
}

fn exit_status(exited: &Exited) -> Checked {
    match (exited.code, exited.signal) {
        (0..=255, None) => Ok(()),
        (-1, Some(signal)) if (1..=SIGNAL_MAX).contains(&signal) => Ok(()),
        (-1, Some(signal)) => Err(("signal number", signal.into())),
        (code, _) => Err(("exit code", code.into())),
    }
}

fn position(attached: &Attached) -> Checked {
    process_id(attached.pid)?;
    // Readers add to positions: the bound keeps the sums from overflowing.
    if attached.from > i64::MAX as u64 {
        return Err(("position", attached.from.into()));
    }
    if attached.missed > attached.from {
        return Err(("number of missed bytes", attached.missed.into()));
    }
    Ok(())
}

fn session(info: &SessionInfo) -> Checked {
    process_id(info.pid)?;
    info.exited.as_ref().map_or(Ok(()), exit_status)
}
