//! A machine that runs: two processes and a relay, of which none outlives the others.

use crate::qmp::Said;
use msb_driver::{BoxFuture, Ended, Exit, Machine, watch};
use msb_jail::Slot;
use msb_relay::{End, RelayError};
use msb_state::{Failure, Protection};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long QEMU may take to end once something that it cannot do without has.
const FOLLOW: Duration = Duration::from_secs(1);

/// What a machine consists of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// QEMU's process id.
    pub(crate) qemu: u32,
    /// That of the program that shows the image.
    pub(crate) files: u32,
    pub(crate) relay: JoinHandle<Result<End, RelayError>>,
    pub(crate) said: Said,
    /// The ids of both.
    pub(crate) slot: Option<Slot>,
    pub(crate) protection: Protection,
}

/// See the module.
pub(crate) struct Qemu {
    qemu: AsyncFd<OwnedFd>,
    files: AsyncFd<OwnedFd>,
    relay: JoinHandle<Result<End, RelayError>>,
    said: Said,
    /// What the relay came to, once it is over.
    relayed: Option<Relayed>,
    /// How virtiofsd ended, once it has.
    files_ended: Option<Ended>,
    qemu_ended: Option<Ended>,
    exit: Option<Exit>,
    protection: Protection,
    /// Given back when both processes have been killed.
    _slot: Option<Slot>,
}

/// What the relay came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Relayed {
    Bye,
    Closed,
    /// The guest broke the rules, in these words.
    Broken(String),
}

impl Qemu {
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let Parts { qemu, files, relay, said, slot, protection } = parts;
        Ok(Qemu {
            qemu: watch(qemu)?,
            files: watch(files)?,
            relay,
            said,
            relayed: None,
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
            // Kept before anything else is waited for: it can be had once only, and this may be
            // given up at any time.
            if let Some(ended) = self.qemu_ended.clone() {
                let exit = self.conclude(ended).await;
                self.exit = Some(exit.clone());
                return exit;
            }
            tokio::select! {
                ended = Ended::of(&self.qemu) => self.qemu_ended = Some(ended),
                ended = Ended::of(&self.files), if self.files_ended.is_none() => {
                    // It also ends when QEMU does, of which is heard a moment later.
                    self.files_ended = Some(ended);
                    self.follow().await;
                }
                end = &mut self.relay, if self.relayed.is_none() => {
                    self.relayed = Some(relayed(end));
                    self.follow().await;
                }
            }
        }
    }

    /// Waits a moment for QEMU to end by itself, and ends it then.
    async fn follow(&self) {
        if timeout(FOLLOW, self.qemu.readable()).await.is_err() {
            end(&self.qemu);
        }
    }

    async fn conclude(&mut self, qemu: Ended) -> Exit {
        if self.relayed.is_none() {
            // Its end of the port is closed, so this only hands on what came last.
            let end = timeout(2 * FOLLOW, &mut self.relay).await;
            self.relayed = end.ok().map(relayed);
        }
        if self.files_ended.is_none() {
            end(&self.files);
            self.files_ended = Some(Ended::of(&self.files).await);
            return self.told(&qemu, None);
        }
        self.told(&qemu, self.files_ended.as_ref())
    }

    fn told(&self, qemu: &Ended, files: Option<&Ended>) -> Exit {
        exit(qemu, files, self.relayed.as_ref(), self.said.words().as_deref())
    }
}

/// How the machine ended, of all that is known. `files` is virtiofsd's end if that came first.
fn exit(
    qemu: &Ended,
    files: Option<&Ended>,
    relayed: Option<&Relayed>,
    said: Option<&str>,
) -> Exit {
    if qemu.code == Some(0) && relayed == Some(&Relayed::Bye) {
        return Exit { detail: "the guest ended as it was asked to".to_owned(), orderly: true };
    }
    let detail = match (relayed, files, said) {
        (Some(Relayed::Broken(how)), _, _) => {
            format!("the guest broke the rules of the connection: {how}")
        }
        (_, Some(files), _) if files.code != Some(0) => format!("virtiofsd {}", files.text),
        (_, _, Some(said)) if qemu.code == Some(0) => format!("the guest ended: {said}"),
        _ => format!("QEMU {}", qemu.text),
    };
    Exit { detail, orderly: false }
}

fn relayed(end: Result<Result<End, RelayError>, tokio::task::JoinError>) -> Relayed {
    match end {
        Ok(Ok(End::Bye)) => Relayed::Bye,
        Ok(Ok(End::Closed)) => Relayed::Closed,
        Ok(Err(error)) => Relayed::Broken(error.to_string()),
        Err(error) => Relayed::Broken(error.to_string()),
    }
}

/// Kills a process; one that has ended is fine.
fn end(process: &AsyncFd<OwnedFd>) {
    if let Err(error) = kill(process) {
        tracing::error!(%error, "a process of the machine was not killed");
    }
}

fn kill(process: &AsyncFd<OwnedFd>) -> io::Result<()> {
    match pidfd_send_signal(process.get_ref(), Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
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
        self.relay.abort();
        end(&self.qemu);
        end(&self.files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<i32>) -> Ended {
        let text = code.map_or("was killed by signal 9".to_owned(), |c| format!("exited with {c}"));
        Ended { code, text }
    }

    #[test]
    fn b7_only_a_farewell_makes_an_end_orderly() {
        let ok = ended(Some(0));
        assert!(exit(&ok, None, Some(&Relayed::Bye), None).orderly);
        let reset = exit(&ok, None, Some(&Relayed::Closed), Some("it was reset from within"));
        assert!(!reset.orderly && reset.detail == "the guest ended: it was reset from within");
        assert!(!exit(&ok, None, None, None).orderly);
        // A farewell does not make up for a crash behind it.
        let killed = exit(&ended(None), None, Some(&Relayed::Bye), None);
        assert!(!killed.orderly && killed.detail == "QEMU was killed by signal 9");
    }

    #[test]
    fn b7_the_cause_is_told_and_not_what_followed_from_it() {
        let files = ended(None);
        let exit_of = |files, relayed| exit(&ended(None), files, relayed, None).detail;
        assert_eq!(
            exit_of(Some(&files), Some(&Relayed::Closed)),
            "virtiofsd was killed by signal 9"
        );
        let broken = Relayed::Broken("a frame of unknown kind 9".to_owned());
        assert!(exit_of(None, Some(&broken)).ends_with("a frame of unknown kind 9"));
    }
}
