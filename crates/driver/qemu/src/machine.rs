//! A running machine: two processes and a relay, of which none outlives the others.

use crate::qmp::ShutdownReason;
use msb_driver::{BoxFuture, ChildExit, Exit, Machine, Relay, RelayEnd, kill, watch};
use msb_jail::Slot;
use msb_state::{Failure, Protection};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long QEMU may take to exit after virtiofsd or the relay.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// The parts of a machine.
#[derive(Debug)]
pub(crate) struct Parts {
    /// QEMU's pid.
    pub(crate) qemu: u32,
    /// virtiofsd's pid.
    pub(crate) files: u32,
    pub(crate) relay: Relay,
    pub(crate) reason: ShutdownReason,
    /// The ids of both.
    pub(crate) slot: Option<Slot>,
    pub(crate) protection: Protection,
}

/// A running machine.
pub(crate) struct Qemu {
    qemu: AsyncFd<OwnedFd>,
    files: AsyncFd<OwnedFd>,
    relay: Relay,
    reason: ShutdownReason,
    /// virtiofsd's exit, if it came first.
    files_ended: Option<ChildExit>,
    qemu_ended: Option<ChildExit>,
    exit: Option<Exit>,
    protection: Protection,
    /// Released when both processes have been killed.
    _slot: Option<Slot>,
}

impl Qemu {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { qemu, files, relay, reason, slot, protection } = parts;
        Ok(Qemu {
            qemu: watch(qemu)?,
            files: watch(files)?,
            relay,
            reason,
            files_ended: None,
            qemu_ended: None,
            exit: None,
            protection,
            _slot: slot,
        })
    }

    async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        loop {
            // Stored before the next await: the process is reaped once, and this future may be
            // dropped at any time.
            if let Some(ended) = self.qemu_ended.clone() {
                let exit = self.conclude(ended).await;
                self.exit = Some(exit.clone());
                return exit;
            }
            tokio::select! {
                ended = ChildExit::wait(&self.qemu) => self.qemu_ended = Some(ended),
                ended = ChildExit::wait(&self.files), if self.files_ended.is_none() => {
                    // It also exits with QEMU, whose exit is seen a moment later.
                    self.files_ended = Some(ended);
                    self.end_qemu().await;
                }
                () = self.relay.ended(), if self.relay.end().is_none() => {
                    self.end_qemu().await;
                }
            }
        }
    }

    /// Waits a moment for QEMU's exit, then kills it.
    async fn end_qemu(&self) {
        if timeout(EXIT_GRACE, self.qemu.readable()).await.is_err() {
            end(&self.qemu);
        }
    }

    async fn conclude(&mut self, qemu: ChildExit) -> Exit {
        // QEMU's end is closed, so the relay only forwards the last bytes.
        let _ = timeout(2 * EXIT_GRACE, self.relay.ended()).await;
        if self.files_ended.is_none() {
            end(&self.files);
            self.files_ended = Some(ChildExit::wait(&self.files).await);
            return self.exit(&qemu, None);
        }
        self.exit(&qemu, self.files_ended.as_ref())
    }

    fn exit(&self, qemu: &ChildExit, files: Option<&ChildExit>) -> Exit {
        exit(qemu, files, self.relay.end(), self.reason.get().as_deref())
    }
}

/// Returns how the machine exited. `files` is virtiofsd's exit if it came first.
fn exit(
    qemu: &ChildExit,
    files: Option<&ChildExit>,
    relay: Option<&RelayEnd>,
    reason: Option<&str>,
) -> Exit {
    if qemu.code == Some(0) && relay == Some(&RelayEnd::Bye) {
        return Exit { detail: "the guest shut down on request".to_owned(), orderly: true };
    }
    let detail = match (relay, files, reason) {
        (Some(RelayEnd::Broken(how)), _, _) => {
            format!("the guest violated the relay's protocol: {how}")
        }
        (_, Some(files), _) if files.code != Some(0) => format!("virtiofsd {}", files.text),
        (_, _, Some(reason)) if qemu.code == Some(0) => format!("the guest ended: {reason}"),
        _ => format!("QEMU {}", qemu.text),
    };
    Exit { detail, orderly: false }
}

/// Kills a process, and traces a failure.
fn end(process: &AsyncFd<OwnedFd>) {
    if let Err(error) = kill(process) {
        tracing::error!(%error, "cannot kill a process of the machine");
    }
}

impl Machine for Qemu {
    fn protection(&self) -> Protection {
        self.protection.clone()
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        Box::pin(self.wait())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        kill(&self.qemu).map_err(|error| Failure::boot(format!("cannot kill QEMU: {error}")))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&self.qemu);
        end(&self.files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>) -> ChildExit {
        let text = code.map_or("was killed by signal 9".to_owned(), |c| format!("exited with {c}"));
        ChildExit { code, text }
    }

    #[test]
    fn b7_only_a_shutdown_is_orderly() {
        let ok = ended(Some(0));
        assert!(exit(&ok, None, Some(&RelayEnd::Bye), None).orderly);
        let reset = exit(&ok, None, Some(&RelayEnd::Closed), Some("it was reset from within"));
        assert!(!reset.orderly && reset.detail == "the guest ended: it was reset from within");
        assert!(!exit(&ok, None, None, None).orderly);
        // A crash after the shutdown message is a crash.
        let killed = exit(&ended(None), None, Some(&RelayEnd::Bye), None);
        assert!(!killed.orderly && killed.detail == "QEMU was killed by signal 9");
    }

    #[test]
    fn b7_detail_names_the_cause_not_its_consequence() {
        let files = ended(None);
        let exit_of = |files, relay| exit(&ended(None), files, relay, None).detail;
        assert_eq!(
            exit_of(Some(&files), Some(&RelayEnd::Closed)),
            "virtiofsd was killed by signal 9"
        );
        let broken = RelayEnd::Broken("a frame of unknown kind 9".to_owned());
        assert!(exit_of(None, Some(&broken)).ends_with("a frame of unknown kind 9"));
    }
}
