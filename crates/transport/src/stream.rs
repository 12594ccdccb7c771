//! The streams themselves.

use bytes::BytesMut;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use std::io::{self, IoSlice};
use std::os::unix::net as std_unix;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

/// One connection. Reading and writing never wait; `readable` and `writable` do.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    Unix(UnixStream),
}

impl Stream {
    /// Takes over a connected Unix socket. Must be called inside the runtime that will wait on it.
    pub fn from_unix(stream: std_unix::UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream(Inner::Unix(UnixStream::from_std(stream)?)))
    }

    /// Waits until there may be something to read. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Unix(stream) => stream.readable().await,
        }
    }

    /// Waits until there may be room to write. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Unix(stream) => stream.writable().await,
        }
    }

    /// Appends what has arrived to `buffer`, at most its spare capacity; `Ok(0)` is the end.
    /// `WouldBlock` when nothing has arrived.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.0 {
            Inner::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as much of `pieces` as there is room for. `WouldBlock` when there is none.
    pub fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            // Not writev: a host program that leaves SIGPIPE alone would be killed by it.
            Inner::Unix(stream) => stream.try_io(Interest::WRITABLE, || {
                let mut control = SendAncillaryBuffer::default();
                Ok(sendmsg(stream, pieces, &mut control, SendFlags::NOSIGNAL)?)
            }),
        }
    }

    /// Ends the stream in both directions, also for whoever else holds it.
    pub fn shutdown(&self) {
        match &self.0 {
            // Fails only when the other side has ended it already.
            Inner::Unix(stream) => drop(shutdown(stream, Shutdown::Both)),
        }
    }
}

/// Where connections come in.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Takes over a listening Unix socket. Must be called inside the runtime that will wait on it.
    pub fn from_unix(listener: std_unix::UnixListener) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        Ok(Listener(UnixListener::from_std(listener)?))
    }

    /// Waits for the next connection. Cancel-safe.
    pub async fn accept(&self) -> io::Result<Stream> {
        let (stream, _) = self.0.accept().await?;
        Ok(Stream(Inner::Unix(stream)))
    }
}
