//! System calls of the init process of a virtual machine.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::unix::AsyncFd;

/// Limit on open files of commands (a count), as service managers set it.
const DESCRIPTORS: u64 = 1 << 20;
/// Pending connections of the listener (a count).
const BACKLOG: i32 = 128;

/// Opens standard input, output and error where the kernel did not: the console, else the null device.
pub(crate) fn open_standard_streams() -> io::Result<()> {
    loop {
        let console = std::fs::OpenOptions::new().read(true).write(true).open("/dev/console");
        let file = match console {
            Ok(file) => file,
            Err(_) => std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?,
        };
        if file.as_raw_fd() > 2 {
            return Ok(());
        }
        // One of the three: leave it open.
        let _: i32 = std::os::fd::IntoRawFd::into_raw_fd(file);
    }
}

/// Raises the limit on descriptors, which the kernel sets to 4096 for its init process.
pub(crate) fn limit_descriptors() {
    let limit = Rlimit { current: Some(1024), maximum: Some(DESCRIPTORS) };
    // Optional: without it commands have fewer.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Priority of the agent (nice(2)): it answers also when commands keep all processors busy.
const PRIORITY: i32 = -10;

static RAISED: AtomicBool = AtomicBool::new(false);

/// Raises the agent's priority above that of its commands, which start with the default one.
pub(crate) fn raise_priority() {
    let raised = rustix::process::setpriority_process(None, PRIORITY).is_ok();
    RAISED.store(raised, Ordering::Relaxed);
}

/// Returns whether [`raise_priority`] succeeded.
pub(super) fn is_raised() -> bool {
    RAISED.load(Ordering::Relaxed)
}

/// Switches the loopback interface on.
#[allow(clippy::cast_possible_truncation, reason = "the kernel keeps these flags in 16 bits")]
pub(crate) fn loopback_up() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: a plain struct of numbers and characters, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which `request` is (netdevice(7)).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A vsock listener for the host.
#[derive(Debug)]
pub(crate) struct VsockListener(AsyncFd<OwnedFd>);

impl VsockListener {
    /// Listens on a port. Must be called inside the runtime.
    pub(crate) fn bind(port: u32) -> io::Result<Self> {
        let socket = vsock(libc::SOCK_NONBLOCK)?;
        let address = address(libc::VMADDR_CID_ANY, port);
        // SAFETY: the address is live, and its length is its own.
        let result = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of_address())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `listen` touches no memory.
        if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(VsockListener(super::watch(socket)?))
    }

    /// Waits for the next connection of the host. Closes those from within the machine. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<OwnedFd> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|listener| accept(listener.get_ref())) {
                Ok(Ok((socket, libc::VMADDR_CID_HOST))) => return Ok(socket),
                Ok(Err(error)) => return Err(error),
                // A connection from within the machine, or none yet.
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }
}

fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, u32)> {
    let mut peer = address(0, 0);
    let mut length = length_of_address();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: address and length are live; the length is that of the address.
    let fd = unsafe {
        libc::accept4(listener.as_raw_fd(), (&raw mut peer).cast(), &raw mut length, flags)
    };
    Ok((owned(fd)?, peer.svm_cid))
}

/// Connects to a port of the host with a blocking socket.
pub(crate) fn connect_to_host(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock(0)?;
    let address = address(libc::VMADDR_CID_HOST, port);
    // SAFETY: the address is live, and its length is its own.
    let result = unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length_of_address())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

fn vsock(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: `socket` touches no memory.
    let fd =
        unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) };
    owned(fd)
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor of the system call that returned it, without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(clippy::cast_possible_truncation, reason = "the kernel keeps families in 16 bits")]
fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: a plain struct of numbers, for which zeros are valid.
    let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_port = port;
    address.svm_cid = cid;
    address
}

#[allow(clippy::cast_possible_truncation, reason = "16 bytes")]
fn length_of_address() -> libc::socklen_t {
    mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t
}
