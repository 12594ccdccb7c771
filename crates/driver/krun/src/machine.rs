//! A running machine: one process, the VMM.

use crate::control::{Control, Phase};
use crate::jail::Sockets;
use msb_driver::{BoxFuture, ChildExit, Exit, Machine, kill};
use msb_jail::Slot;
use msb_state::{Failure, Protection};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// The parts of a machine.
pub(crate) struct Parts {
    pub(crate) vmm: AsyncFd<OwnedFd>,
    pub(crate) control: Control,
    pub(crate) sockets: Sockets,
    /// The VMM's ids.
    pub(crate) slot: Option<Slot>,
    pub(crate) protection: Protection,
}

/// A running machine.
pub(crate) struct Krun {
    vmm: AsyncFd<OwnedFd>,
    control: Control,
    /// The sockets, until the agent has started.
    sockets: Option<Sockets>,
    protection: Protection,
    exit: Option<Exit>,
    _slot: Option<Slot>,
}

impl Krun {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { vmm, control, sockets, slot, protection } = parts;
        Krun { vmm, control, sockets: Some(sockets), protection, exit: None, _slot: slot }
    }

    async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let ended = ChildExit::wait(&self.vmm).await;
        let exit = exit(&ended, self.control.phase());
        self.exit = Some(exit.clone());
        exit
    }

    async fn boot(&mut self) -> Result<(), String> {
        tokio::select! {
            biased;
            up = self.control.up() => {
                up.map_err(|error| error.to_string())?;
                self.sockets.take().map_or(Ok(()), Sockets::publish)
            }
            exit = async { exit(&ChildExit::wait(&self.vmm).await, Phase::Silent) } => {
                self.exit = Some(exit.clone());
                Err(format!("{} before its agent started", exit.detail))
            }
        }
    }
}

/// Returns how the machine exited.
fn exit(vmm: &ChildExit, phase: Phase) -> Exit {
    match (vmm.code, phase) {
        (Some(0), Phase::Bye) => {
            Exit { detail: "the guest shut down on request".to_owned(), orderly: true }
        }
        // A kernel panic resets the machine, as a reboot does.
        (Some(0), _) => {
            Exit { detail: "the guest was reset from within".to_owned(), orderly: false }
        }
        _ => Exit { detail: format!("the VMM {}", vmm.text), orderly: false },
    }
}

impl Machine for Krun {
    fn ready(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.boot())
    }

    fn protection(&self) -> Protection {
        self.protection.clone()
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        Box::pin(self.wait())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        kill(&self.vmm).map_err(|error| Failure::boot(format!("cannot kill the VMM: {error}")))
    }
}

impl Drop for Krun {
    fn drop(&mut self) {
        if let Err(error) = kill(&self.vmm) {
            tracing::error!(%error, "cannot kill the VMM");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_only_a_shutdown_is_orderly() {
        let zero = ChildExit { code: Some(0), text: "exited with 0".to_owned() };
        let killed = ChildExit { code: None, text: "was killed by signal 9".to_owned() };
        assert!(exit(&zero, Phase::Bye).orderly);
        assert!(!exit(&zero, Phase::Up).orderly);
        assert!(!exit(&killed, Phase::Bye).orderly);
        assert_eq!(exit(&killed, Phase::Up).detail, "the VMM was killed by signal 9");
    }
}
