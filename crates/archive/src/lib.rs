//! Reads and writes the members of tar archives.
//!
//! Owns: the format. Does not own: where the bytes come from, or what a member becomes. Names,
//! links and attributes are any bytes, and never normalised: the unpacker decides where a name
//! may lead.

#![forbid(unsafe_code)]

mod error;
mod holes;
mod tarball;
mod writer;

pub use error::{Error, Result};
pub use holes::sparse_map;
pub use tar::EntryType;
pub use tarball::{Kind, Member, TarReader};
pub use writer::{Entry, Segment, TarWriter};
