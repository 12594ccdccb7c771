//! Reaps all children: those of the agent, and the orphans that PID 1 inherits.

use crate::registry::Registry;
use crate::sys;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

/// Children that are reaped before other tasks run (a count).
const BATCH: usize = 64;
/// Interval for checking a cgroup whose last process was reaped. The kernel counts that process a
/// moment longer, without an event at the end.
const CGROUP_RETRY: Duration = Duration::from_millis(5);

/// Reaps children until an error.
pub(crate) async fn run(signals: OwnedFd, registry: Rc<Registry>) -> io::Result<()> {
    let signals = sys::watch(signals)?;
    let mut buffer = [0; 128 * 8];
    loop {
        let mut count = 0;
        while let Some(reaped) = sys::reap() {
            registry.child_exited(&reaped);
            count += 1;
            // Commands can create orphans faster than they are reaped: let other tasks run.
            if count % BATCH == 0 {
                registry.release_cgroups();
                tokio::task::yield_now().await;
            }
        }
        let is_emptying = registry.release_cgroups();
        tokio::select! {
            ready = signals.readable() => {
                let mut guard = ready?;
                // Pending signals of one kind merge, so their number means nothing.
                while rustix::io::read(signals.get_ref(), &mut buffer[..]).is_ok() {}
                guard.clear_ready();
            }
            () = registry.left_background.notified() => {}
            () = tokio::time::sleep(CGROUP_RETRY), if is_emptying => {}
        }
    }
}
