//! The link from a machine to the host.

use msb_relay as relay;
use msb_transport::Stream;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream as AsyncStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// Name of the virtio-serial port, which the driver sets.
const PORT_NAME: &str = "msb";
/// Vsock port for the library's connections.
const AGENT_PORT: u32 = 1024;
/// Vsock port on the host for the messages "up" and "bye".
const CONTROL_PORT: u32 = 1025;
/// How long the host may take to acknowledge a shutdown. It needs milliseconds, more in a machine
/// with little processor time; without a host there is no machine.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// How a machine reaches the host.
#[derive(Debug)]
pub enum HostLink {
    /// One virtio-serial port, with the relay.
    Serial,
    /// Virtio sockets.
    Vsock,
    /// One connected socket, with the relay.
    Socket(UnixStream),
}

/// A listener for connections from the host.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A socket that the runner listens on.
    Unix(msb_transport::Listener),
    /// The relay's guest side.
    Relay(mpsc::Receiver<AsyncStream>),
    /// A vsock, for connections of the host only.
    Vsock(VsockListener),
}

/// Announces an orderly shutdown to the host.
#[derive(Debug)]
pub(crate) enum Shutdown {
    Relay(relay::Shutdown),
    Vsock(VsockStream),
}

impl HostLink {
    /// Checks that the link exists.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self {
            HostLink::Serial => port_name().map(drop),
            HostLink::Vsock | HostLink::Socket(_) => Ok(()),
        }
    }

    /// Opens the link and notifies the host. Must be called inside the runtime.
    pub(crate) async fn open(self) -> io::Result<(Listener, Shutdown)> {
        match self {
            HostLink::Serial => {
                let port = relay::Device::new(open_port()?)?;
                let (guest, hello) = relay::guest(port).await.map_err(io::Error::other)?;
                set_clock(hello.now_ns)?;
                Ok((Listener::Relay(guest.connections), Shutdown::Relay(guest.shutdown)))
            }
            HostLink::Socket(socket) => {
                socket.set_nonblocking(false)?;
                (&socket).write_all(&relay::announcement())?;
                socket.set_nonblocking(true)?;
                let socket = AsyncStream::from_std(socket)?;
                let (guest, _) = relay::guest(socket).await.map_err(io::Error::other)?;
                Ok((Listener::Relay(guest.connections), Shutdown::Relay(guest.shutdown)))
            }
            HostLink::Vsock => {
                let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, AGENT_PORT))?;
                let host = VsockAddr::new(VMADDR_CID_HOST, CONTROL_PORT);
                let mut control = VsockStream::connect(host).await?;
                AsyncWriteExt::write_all(&mut control, b"up\n").await?;
                let now = control.read_u64_le().await?;
                set_clock(now)?;
                Ok((Listener::Vsock(listener), Shutdown::Vsock(control)))
            }
        }
    }
}

impl Listener {
    pub(crate) fn unix(listener: UnixListener) -> io::Result<Self> {
        Ok(Listener::Unix(msb_transport::Listener::from_unix(listener)?))
    }

    /// Waits for the next connection; `None` when the link has ended. Cancel-safe.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<Stream>> {
        match self {
            Listener::Unix(listener) => listener.accept().await.map(Some),
            Listener::Relay(connections) => match connections.recv().await {
                Some(stream) => Stream::from_unix(stream.into_std()?).map(Some),
                None => Ok(None),
            },
            Listener::Vsock(listener) => loop {
                let (stream, peer) = listener.accept().await?;
                // Others come from within the machine, and are closed.
                if peer.cid() == VMADDR_CID_HOST {
                    return Stream::from_vsock(stream.into()).map(Some);
                }
            },
        }
    }
}

impl Shutdown {
    /// Announces the shutdown. The caller has closed all connections.
    pub(crate) async fn announce(self) {
        match self {
            Shutdown::Relay(shutdown) => shutdown.announce().await,
            Shutdown::Vsock(mut control) => {
                let announce = async {
                    AsyncWriteExt::write_all(&mut control, b"bye\n").await?;
                    // The host acknowledges by closing the connection.
                    tokio::io::copy(&mut control, &mut tokio::io::sink()).await
                };
                // A host that does not answer has exited, or ends the machine itself.
                let _ = timeout(SHUTDOWN_LIMIT, announce).await;
            }
        }
    }
}

/// The kernel's devtmpfs, which commands cannot change: they may see another `/dev`.
static DEVICES: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the kernel's devtmpfs. Called in the initial root.
pub(super) fn open_devices() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let devices = rustix::fs::open("/dev", flags, Mode::empty())?;
    // Set once.
    let _ = DEVICES.set(devices);
    Ok(())
}

/// Returns the device name of the port that the driver named.
fn port_name() -> io::Result<OsString> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(entry.file_name());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no virtio-serial port is named msb"))
}

/// Opens the port and announces the agent.
fn open_port() -> io::Result<OwnedFd> {
    let name = port_name()?;
    let devices = DEVICES.get().ok_or(io::ErrorKind::NotFound)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let port = rustix::fs::openat(devices, name, flags, Mode::empty())?;
    // Before it is non-blocking: only a blocking write waits until the host has opened its end
    // (virtio_console.c). Until then a read reports end of file.
    fs::File::from(port.try_clone()?).write_all(&relay::announcement())?;
    rustix::fs::fcntl_setfl(&port, OFlags::NONBLOCK)?;
    Ok(port)
}

/// Sets the machine's clock: an emulated machine has none, and a paused one is late.
fn set_clock(now_ns: u64) -> io::Result<()> {
    let time = rustix::time::Timespec {
        tv_sec: i64::try_from(now_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(now_ns % 1_000_000_000).unwrap_or(0),
    };
    Ok(rustix::time::clock_settime(rustix::time::ClockId::Realtime, time)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net;

    #[test]
    fn b7_shutdown_is_announced_on_an_unpolled_socket() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, mut theirs) = net::UnixStream::pair().unwrap();
        let host = std::thread::spawn(move || {
            let mut received = [0; 4];
            theirs.read_exact(&mut received).map(|()| received)
        });
        runtime.block_on(async { Shutdown::Vsock(OwnedFd::from(ours).into()).announce().await });
        assert_eq!(&host.join().unwrap().unwrap(), b"bye\n");
    }

    #[test]
    fn b7_missing_host_does_not_delay_the_shutdown() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, theirs) = net::UnixStream::pair().unwrap();
        drop(theirs);
        runtime.block_on(async {
            let shutdown = Shutdown::Vsock(OwnedFd::from(ours).into());
            timeout(SHUTDOWN_LIMIT / 2, shutdown.announce()).await.unwrap();
        });
    }
}
