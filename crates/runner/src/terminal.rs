//! The guard of an attached terminal: gives it its settings back when the host program ends without
//! having done so, as by a signal that it does not handle.
//!
//! Descriptor 0 is a socket to the host program, 1 the terminal's output, 2 its input. Each packet of
//! the host's is a byte and what restores the screen from then on. Invariant: a terminal that is no
//! longer in raw mode, since somebody has restored it, is left alone.

use crate::sys;
use rustix::io::Errno;
use rustix::process::setsid;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::io;
use std::process::ExitCode;

/// Longer than any packet, in bytes.
const PACKET: usize = 1024;

/// Waits for the end of the host program.
pub(crate) fn guard() -> Result<ExitCode, String> {
    let failed = |what: &str, error: io::Error| format!("cannot {what}: {error}");
    sys::close_from(3).map_err(|error| failed("close descriptors", error))?;
    // What signals the host program's group or terminal spares this process.
    setsid().map_err(|errno| failed("become a session leader", errno.into()))?;
    let (host, output, input) = (io::stdin(), io::stdout(), io::stderr());
    let settings =
        tcgetattr(&input).map_err(|errno| failed("read the terminal's settings", errno.into()))?;
    let mut raw = settings.clone();
    raw.make_raw();
    // From now on the host program may change them.
    rustix::io::write(&host, &[0]).map_err(|errno| failed("greet", errno.into()))?;
    let (mut undo, mut packet) = (Vec::new(), [0; PACKET]);
    loop {
        match rustix::io::read(&host, &mut packet) {
            Ok(0) => break,
            Ok(length) => undo = packet.get(1..length).unwrap_or_default().to_vec(),
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    let is_raw = tcgetattr(&input).is_ok_and(|now| format!("{now:?}") == format!("{raw:?}"));
    if is_raw {
        // Fails only when the terminal is gone.
        let _ = tcsetattr(&input, OptionalActions::Now, &settings);
        // As far as the terminal takes it at once.
        let _ = rustix::io::write(&output, &undo);
    }
    Ok(ExitCode::SUCCESS)
}
