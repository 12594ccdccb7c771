//! The frames of the family.

use super::entry::check_stat;
use super::error::FsError;
use super::reply::{FsDone, FsOpened, FsReply};
use super::request::FsRequest;
use crate::codec::{cbor, data, put_cbor, raw};
use crate::error::WireError;
use crate::kind::Kind;
use crate::limits::{FS_SKIPPED_PATH, TEXT};
use crate::range::{Checked, error_number, truncate};
use bytes::{Bytes, BytesMut};

/// A message about files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsMessage {
    /// Host: begins an operation; opens a channel.
    Request(FsRequest),
    /// Both: bytes, as the operation defines them.
    Data(Bytes),
    /// Host: no more data. The agent completes the operation.
    Eof,
    /// Agent: the operation begins.
    Opened(FsOpened),
    /// Agent: it succeeded. Last on its channel.
    Reply(FsReply),
    /// Agent: it failed. Last on its channel.
    Failed(FsError),
}

/// Decodes the payload of a kind of this family.
pub(crate) fn parse(kind: Kind, payload: BytesMut) -> Result<FsMessage, WireError> {
    Ok(match kind {
        Kind::FsRequest => FsMessage::Request(cbor(kind, &payload)?),
        Kind::FsData => FsMessage::Data(data(payload)),
        Kind::FsEof => FsMessage::Eof,
        Kind::FsOpened => FsMessage::Opened(cbor(kind, &payload)?),
        Kind::FsReply => FsMessage::Reply(cbor(kind, &payload)?),
        Kind::FsFailed => FsMessage::Failed(cbor(kind, &payload)?),
        _ => return Err(WireError::UnknownKind(kind as u8)),
    })
}

/// Appends a payload and returns its kind.
pub(crate) fn put(message: &FsMessage, out: &mut BytesMut) -> Kind {
    match message {
        FsMessage::Request(m) => put_cbor(Kind::FsRequest, m, out),
        FsMessage::Data(bytes) => raw(Kind::FsData, bytes, out),
        FsMessage::Eof => Kind::FsEof,
        FsMessage::Opened(m) => put_cbor(Kind::FsOpened, m, out),
        FsMessage::Reply(m) => put_cbor(Kind::FsReply, m, out),
        FsMessage::Failed(m) => put_cbor(Kind::FsFailed, m, out),
    }
}

/// Validates the numbers of an agent's message and truncates its texts.
pub(crate) fn check(message: &mut FsMessage) -> Checked {
    match message {
        FsMessage::Opened(FsOpened { stat: Some(stat) })
        | FsMessage::Reply(FsReply::Stat(stat)) => check_stat(stat),
        FsMessage::Reply(FsReply::Done(done)) => {
            truncate_done(done);
            Ok(())
        }
        FsMessage::Failed(error) => {
            error.path.truncate(TEXT);
            truncate(&mut error.operation);
            truncate(&mut error.message);
            error_number(error.errno)
        }
        _ => Ok(()),
    }
}

fn truncate_done(done: &mut FsDone) {
    for skipped in &mut done.skipped {
        skipped.path.truncate(FS_SKIPPED_PATH);
        truncate(&mut skipped.why);
    }
}
