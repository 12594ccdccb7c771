//! System calls of the init process of a virtual machine.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Limit on open files of commands (a count), as service managers set it.
const DESCRIPTORS: u64 = 1 << 20;

/// Opens standard input, output and error where the kernel did not: the console, else the null
/// device.
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
