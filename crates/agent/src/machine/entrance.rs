//! How the host comes in.

use crate::sys;
use msb_relay as relay;
use msb_transport::{Listener, Stream};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The name of the virtio-serial port that the driver gives a machine.
const PORT_NAME: &str = "msb";
/// The vsock port that the library's connections come to.
const AGENT_PORT: u32 = 1024;
/// The vsock port on the host that is told when the agent is there, and when it goes.
const CONTROL_PORT: u32 = 1025;
/// How long the host may take over a farewell. One that is alive takes milliseconds, in a machine
/// that has next to no time; with one that is gone the machine is gone, too.
const FAREWELL_LIMIT: Duration = Duration::from_secs(10);

/// The ways to the host from a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One virtio-serial port, with a relay.
    Serial,
    /// Virtio sockets.
    Vsock,
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// A socket that the runner listens on.
    Unix(Listener),
    /// The relay's guest side.
    Relay(mpsc::Receiver<UnixStream>),
    /// A vsock that the host, and nobody else, may connect to.
    Vsock(sys::VsockListener),
}

/// How the host is told that the end is wanted.
#[derive(Debug)]
pub(crate) enum Farewell {
    Relay(relay::Shutdown),
    Vsock(OwnedFd),
}

impl Way {
    /// Looks whether it is there.
    pub(crate) fn check(self) -> io::Result<()> {
        match self {
            Way::Serial => port_name().map(drop),
            Way::Vsock => Ok(()),
        }
    }

    /// Opens it, and lets the host know. Must be called inside the runtime.
    pub(crate) async fn open(self) -> io::Result<(Entrance, Farewell)> {
        match self {
            Way::Serial => {
                let port = relay::Device::new(open_port()?)?;
                let (guest, hello) = relay::guest(port).await.map_err(io::Error::other)?;
                set_clock(hello.now_ns)?;
                Ok((Entrance::Relay(guest.connections), Farewell::Relay(guest.shutdown)))
            }
            Way::Vsock => {
                let listener = sys::VsockListener::bind(AGENT_PORT)?;
                let control = sys::connect_to_host(CONTROL_PORT)?;
                let mut file = fs::File::from(control);
                let mut now = [0; 8];
                file.write_all(b"up\n")?;
                file.read_exact(&mut now)?;
                set_clock(u64::from_le_bytes(now))?;
                rustix::fs::fcntl_setfl(&file, OFlags::NONBLOCK)?;
                Ok((Entrance::Vsock(listener), Farewell::Vsock(file.into())))
            }
        }
    }
}

impl Entrance {
    pub(crate) fn unix(listener: UnixListener) -> io::Result<Self> {
        Ok(Entrance::Unix(Listener::from_unix(listener)?))
    }

    /// Waits for the next connection; `None` when there will be none any more. Cancel-safe.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<Stream>> {
        match self {
            Entrance::Unix(listener) => listener.accept().await.map(Some),
            Entrance::Relay(connections) => match connections.recv().await {
                Some(stream) => Stream::from_unix(stream.into_std()?).map(Some),
                None => Ok(None),
            },
            Entrance::Vsock(listener) => Stream::from_vsock(listener.accept().await?).map(Some),
        }
    }
}

impl Farewell {
    /// Tells the host. All connections have to be closed.
    pub(crate) async fn say(self) {
        match self {
            Farewell::Relay(shutdown) => shutdown.announce().await,
            Farewell::Vsock(control) => {
                let farewell = async {
                    let control = Stream::from_vsock(control)?;
                    say_bye(&control).await?;
                    hear_the_end(&control).await
                };
                // A host that does not answer is gone, or about to end the machine itself.
                let _ = timeout(FAREWELL_LIMIT, farewell).await;
            }
        }
    }
}

async fn say_bye(control: &Stream) -> io::Result<()> {
    let mut rest: &[u8] = b"bye\n";
    while !rest.is_empty() {
        control.writable().await?;
        match control.try_write(&[io::IoSlice::new(rest)]) {
            Ok(length) => rest = rest.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The end of the connection is the host's answer.
async fn hear_the_end(control: &Stream) -> io::Result<()> {
    let mut said = bytes::BytesMut::with_capacity(64);
    loop {
        control.readable().await?;
        match control.try_read(&mut said) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => said.clear(),
        }
    }
}

/// The kernel's own devices, which commands cannot change: they may see others, or fewer.
static DEVICES: OnceLock<OwnedFd> = OnceLock::new();

/// Keeps the kernel's devices. Called in the first root.
pub(super) fn hold_devices() -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let devices = rustix::fs::open("/dev", flags, Mode::empty())?;
    // The first is kept.
    let _ = DEVICES.set(devices);
    Ok(())
}

/// The name of the device of the port with our name.
fn port_name() -> io::Result<OsString> {
    for entry in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT_NAME {
            return Ok(entry.file_name());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no virtio-serial port has our name"))
}

/// Opens the port and announces the agent.
fn open_port() -> io::Result<OwnedFd> {
    let name = port_name()?;
    let devices = DEVICES.get().ok_or(io::ErrorKind::NotFound)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let port = rustix::fs::openat(devices, name, flags, Mode::empty())?;
    // While it blocks: only such a write waits until the host's end is open (virtio_console.c).
    // Until then a read would say that the port has ended.
    fs::File::from(port.try_clone()?).write_all(&relay::announcement())?;
    rustix::fs::fcntl_setfl(&port, OFlags::NONBLOCK)?;
    Ok(port)
}

/// Sets the machine's clock. An emulated one has none; one that was paused is late.
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
    use std::os::unix::net;

    #[test]
    fn b7_good_bye_is_said_over_a_socket_that_was_never_polled_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, mut theirs) = net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let host = std::thread::spawn(move || {
            let mut said = [0; 4];
            theirs.read_exact(&mut said).map(|()| said)
        });
        runtime.block_on(Farewell::Vsock(ours.into()).say());
        assert_eq!(&host.join().unwrap().unwrap(), b"bye\n");
    }

    #[test]
    fn b7_a_host_that_is_gone_holds_no_farewell_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, theirs) = net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        drop(theirs);
        runtime.block_on(async {
            timeout(FAREWELL_LIMIT / 2, Farewell::Vsock(ours.into()).say()).await.unwrap();
        });
    }
}
