//! The byte stream below the relay.

use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

/// Longest read that Linux's virtio-serial driver returns (`virtio_console.c`: a page), in bytes.
const READ: usize = 4096;

/// A stream of bytes that can be read and written at the same time.
pub trait Port: Send + Sync + 'static {
    /// Waits until there may be something to read. Cancel-safe.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits until there may be room to write. Cancel-safe.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Appends received bytes, at most the buffer's spare capacity; `Ok(0)` is the end.
    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize>;
    /// Writes as many bytes as the stream accepts now.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl Port for UnixStream {
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        UnixStream::readable(self)
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send {
        UnixStream::writable(self)
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        self.try_read_buf(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        UnixStream::try_write(self, bytes)
    }
}

/// A character device: the guest's end of a virtio-serial port.
///
/// Not one of tokio's pipes: they take a short read for an empty pipe, but a port returns at most
/// one of the driver's buffers per read.
#[derive(Debug)]
pub struct Device(AsyncFd<OwnedFd>);

impl Device {
    /// Takes ownership of a non-blocking device. Must be called inside the runtime.
    #[allow(
        deprecated,
        reason = "the constructor is only unsound for types that lie about their descriptor; an \
                  OwnedFd does not, and its replacement is unsafe to call"
    )]
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Device(AsyncFd::with_interest(fd, Interest::READABLE | Interest::WRITABLE)?))
    }
}

impl Port for Device {
    async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut guard| guard.retain_ready())
    }

    async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(|mut guard| guard.retain_ready())
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut piece = [0; READ];
        let length =
            self.0.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut piece)?))?;
        buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        Ok(length)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?))
    }
}
