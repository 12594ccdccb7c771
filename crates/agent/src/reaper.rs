//! The one place that waits for children: ours, and the orphans that PID 1 inherits.

use crate::registry::Registry;
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Children that are taken at once (a count).
const BATCH: usize = 64;
/// How soon a cgroup is looked at again whose last process was reaped: the kernel counts it there
/// for a moment longer, and says nothing when it no longer does.
const EMPTYING: Duration = Duration::from_millis(5);

/// Waits for children for ever; an error means that it cannot any more.
pub(crate) async fn run(signals: OwnedFd, registry: Rc<Registry>) -> io::Result<()> {
    let signals = sys::watch(signals)?;
    let mut buffer = [0; 128 * 8];
    loop {
        let mut count = 0;
        while let Some(reaped) = sys::reap() {
            registry.child_ended(&reaped);
            count += 1;
            // Commands can make orphans faster than they are taken: others have a turn in between.
            if count % BATCH == 0 {
                registry.release_cgroups();
                tokio::task::yield_now().await;
            }
        }
        let emptying = registry.release_cgroups();
        tokio::select! {
            ready = signals.readable() => {
                let mut guard = ready?;
                // Signals of one kind merge while they are pending: each says only "look again".
                while rustix::io::read(signals.get_ref(), &mut buffer[..]).is_ok() {}
                guard.clear_ready();
            }
            () = registry.lingers.notified() => {}
            () = tokio::time::sleep(EMPTYING), if emptying => {}
        }
    }
}
