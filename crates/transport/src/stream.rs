//! Streams and their listener.

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net as std_unix;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};

/// One connection. Reads and writes never wait; `readable` and `writable` do.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    Unix(UnixStream),
    Vsock(AsyncFd<OwnedFd>),
}

/// Longest write of a guest to a vsock, in bytes: a longer one hangs on some kernels (libkrun
/// issues 535 and 674).
const VSOCK_WRITE: usize = 16 * 1024;
/// Longest read from a vsock, in bytes.
const VSOCK_READ: usize = 32 * 1024;

impl Stream {
    /// Takes ownership of a connected Unix socket. Must be called inside the runtime that waits on
    /// it.
    pub fn from_unix(stream: std_unix::UnixStream) -> io::Result<Stream> {
        stream.set_nonblocking(true)?;
        Ok(Stream(Inner::Unix(UnixStream::from_std(stream)?)))
    }

    /// Takes ownership of a connected, non-blocking vsock. Must be called inside the runtime.
    #[allow(
        deprecated,
        reason = "the constructor is only unsound for types that lie about their descriptor; an \
                  OwnedFd does not, and its replacement is unsafe to call"
    )]
    pub fn from_vsock(socket: OwnedFd) -> io::Result<Stream> {
        Ok(Stream(Inner::Vsock(AsyncFd::new(socket)?)))
    }

    /// Waits until there may be something to read. Cancel-safe.
    pub async fn readable(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Unix(stream) => stream.readable().await,
            Inner::Vsock(socket) => socket.readable().await.map(|mut ready| ready.retain_ready()),
        }
    }

    /// Waits until there may be room to write. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Unix(stream) => stream.writable().await,
            Inner::Vsock(socket) => socket.writable().await.map(|mut ready| ready.retain_ready()),
        }
    }

    /// Appends received bytes to `buffer`, at most its spare capacity. `Ok(0)` is the end,
    /// `WouldBlock` means that nothing is available.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.0 {
            Inner::Unix(stream) => stream.try_read_buf(buffer),
            Inner::Vsock(socket) => {
                let mut piece = [0; VSOCK_READ];
                let room = VSOCK_READ.min(buffer.capacity() - buffer.len());
                let room = piece.get_mut(..room).unwrap_or_default();
                let length = socket.try_io(Interest::READABLE, |socket| {
                    Ok(recv(socket, &mut *room, RecvFlags::empty())?.0)
                })?;
                buffer.extend_from_slice(room.get(..length).unwrap_or_default());
                Ok(length)
            }
        }
    }

    /// Writes as much of `pieces` as the stream accepts. `WouldBlock` when it accepts nothing.
    pub fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            // Not writev: SIGPIPE would kill a host program that does not handle it.
            Inner::Unix(stream) => stream.try_io(Interest::WRITABLE, || {
                let mut control = SendAncillaryBuffer::default();
                Ok(sendmsg(stream, pieces, &mut control, SendFlags::NOSIGNAL)?)
            }),
            Inner::Vsock(socket) => socket.try_io(Interest::WRITABLE, |socket| {
                let mut control = SendAncillaryBuffer::default();
                let (pieces, last) = first_bytes(pieces, VSOCK_WRITE);
                let sent = match pieces {
                    [] => sendmsg(socket, &[IoSlice::new(last)], &mut control, SendFlags::NOSIGNAL),
                    pieces => sendmsg(socket, pieces, &mut control, SendFlags::NOSIGNAL),
                };
                Ok(sent?)
            }),
        }
    }

    /// Returns whether the peer has closed its end; bytes that it sent before may still be unread.
    pub fn is_hung_up(&self) -> bool {
        let fd = match &self.0 {
            Inner::Unix(stream) => stream.as_fd(),
            Inner::Vsock(socket) => socket.get_ref().as_fd(),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Shuts the stream down in both directions, also for other owners of its descriptor.
    pub fn shutdown(&self) {
        match &self.0 {
            // Fails only when the peer has closed it already.
            Inner::Unix(stream) => drop(shutdown(stream, Shutdown::Both)),
            Inner::Vsock(socket) => drop(shutdown(socket, Shutdown::Both)),
        }
    }
}

/// Returns the pieces that fit into a limit, and the part of the first one that does.
fn first_bytes<'a, 'b>(pieces: &'a [IoSlice<'b>], limit: usize) -> (&'a [IoSlice<'b>], &'a [u8]) {
    let mut sum = 0;
    let count = pieces.iter().take_while(|piece| {
        sum += piece.len();
        sum <= limit
    });
    let whole = pieces.get(..count.count()).unwrap_or_default();
    let first = pieces.first().map(|piece| &piece[..]).unwrap_or_default();
    (whole, first.get(..limit).unwrap_or(first))
}

/// A listener for connections.
#[derive(Debug)]
pub struct Listener(UnixListener);

impl Listener {
    /// Takes ownership of a listening Unix socket. Must be called inside the runtime that waits on
    /// it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vsock_writes_at_most_16_kib_at_once() {
        let (small, large) = (vec![1; 10_000], vec![2; 20_000]);
        let slices = |pieces: &[&'static [u8]]| -> Vec<usize> {
            let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            let (whole, part) = first_bytes(&pieces, VSOCK_WRITE);
            let whole: Vec<_> = whole.iter().map(|piece| piece.len()).collect();
            if whole.is_empty() { vec![part.len()] } else { whole }
        };
        let (small, large): (&[u8], &[u8]) = (small.leak(), large.leak());
        assert_eq!(slices(&[small, small]), [10_000]);
        assert_eq!(slices(&[large, small]), [VSOCK_WRITE]);
        assert_eq!(slices(&[&small[..100], &small[..16], large]), [100, 16]);
        assert_eq!(slices(&[]), [0]);
    }
}
