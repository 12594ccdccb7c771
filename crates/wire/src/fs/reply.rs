//! The answers of an agent.

use super::entry::FsStat;
use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode};

/// The operation begins: see the table of [`fs`](super). First on its channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsOpened {
    /// The attributes of what was opened, at this moment.
    #[n(0)]
    pub stat: Option<FsStat>,
}

/// The result of a successful operation. Last on its channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FsReply {
    /// It is done.
    #[n(0)]
    Done(#[n(0)] FsDone),
    /// Attributes.
    #[n(1)]
    Stat(#[n(0)] FsStat),
    /// A path, or what a link says.
    #[n(2)]
    Path(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A new handle.
    #[n(3)]
    Handle(#[n(0)] u64),
    /// Whether the path exists.
    #[n(4)]
    Exists(#[n(0)] bool),
}

/// What an operation did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct FsDone {
    /// Bytes of content that were read, written or copied; holes are not counted.
    #[n(0)]
    #[cbor(default)]
    pub bytes: u64,
    /// Files, directories and links that were listed, copied or removed.
    #[n(1)]
    #[cbor(default)]
    pub entries: u64,
    /// The first of what was skipped, at most [`FS_SKIPPED`](crate::limits::FS_SKIPPED).
    #[cbor(n(2), decode_with = "skipped_list")]
    #[cbor(default)]
    pub skipped: Vec<FsSkipped>,
    /// How many were skipped.
    #[n(3)]
    #[cbor(default)]
    pub skipped_total: u64,
}

/// Something that a copy left out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FsSkipped {
    /// Its path, relative to the source or destination, cut at
    /// [`FS_SKIPPED_PATH`](crate::limits::FS_SKIPPED_PATH).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub path: Vec<u8>,
    /// Why: `FIFO`, `socket`, `device`, `vanished`, `temporary` (of another operation), or the name
    /// of an extended attribute.
    #[n(1)]
    pub why: String,
}

fn skipped_list<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Vec<FsSkipped>, Error> {
    let mut list = Vec::new();
    for item in d.array_iter::<FsSkipped>()? {
        if list.len() >= crate::limits::FS_SKIPPED {
            return Err(Error::message("more skipped files than an agent names"));
        }
        list.push(item?);
    }
    Ok(list)
}
