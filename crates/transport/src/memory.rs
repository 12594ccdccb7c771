//! Two ends of a connection inside one process, for testing one side alone.

use crate::stream::Stream;
use std::io;
use std::os::unix::net::UnixStream;

/// A connected pair. Must be called inside the runtime that will wait on both.
pub fn pair() -> io::Result<(Stream, Stream)> {
    let (a, b) = UnixStream::pair()?;
    Ok((Stream::from_unix(a)?, Stream::from_unix(b)?))
}
