//! The one place that waits for children: ours, and the orphans that PID 1 inherits.

use crate::registry::Registry;
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Waits for children for ever; an error means that it cannot any more.
pub(crate) async fn run(signals: OwnedFd, registry: Rc<Registry>) -> io::Result<()> {
    let signals = sys::watch(signals)?;
    let mut buffer = [0; 128 * 8];
    loop {
        while let Some(reaped) = sys::reap() {
            registry.child_ended(&reaped);
        }
        let mut guard = signals.readable().await?;
        // Signals of one kind merge while they are pending, so each says only "look again".
        while rustix::io::read(signals.get_ref(), &mut buffer[..]).is_ok() {}
        guard.clear_ready();
    }
}
