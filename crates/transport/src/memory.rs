//! A connection inside one process, for tests of one peer.

use crate::stream::Stream;
use std::io;
use std::os::unix::net::UnixStream;

/// Creates a connected pair. Must be called inside the runtime that waits on both.
pub fn pair() -> io::Result<(Stream, Stream)> {
    let (a, b) = UnixStream::pair()?;
    Ok((Stream::from_unix(a)?, Stream::from_unix(b)?))
}
