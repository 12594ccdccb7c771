//! A running sandbox: `runsc` and a relay, of which neither outlives the other.

use msb_driver::{BoxFuture, ChildExit, Exit, Machine, Relay, RelayEnd, kill, watch};
use msb_state::{Failure, Protection};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long `runsc` may take to exit after the relay.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// A running sandbox.
pub(crate) struct Gvisor {
    runsc: AsyncFd<OwnedFd>,
    relay: Relay,
    ended: Option<ChildExit>,
    exit: Option<Exit>,
    protection: Protection,
}

impl Gvisor {
    pub(crate) fn new(pid: u32, relay: Relay, protection: Protection) -> io::Result<Self> {
        Ok(Gvisor { runsc: watch(pid)?, relay, ended: None, exit: None, protection })
    }

    async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        while self.ended.is_none() {
            tokio::select! {
                ended = ChildExit::wait(&self.runsc) => self.ended = Some(ended),
                () = self.relay.ended(), if self.relay.end().is_none() => {
                    if timeout(EXIT_GRACE, self.runsc.readable()).await.is_err() {
                        self.end();
                    }
                }
            }
        }
        // The sandbox's end is closed, so the relay only forwards the last bytes.
        let _ = timeout(EXIT_GRACE, self.relay.ended()).await;
        let exit = exit(self.ended.as_ref(), self.relay.end());
        self.exit = Some(exit.clone());
        exit
    }

    fn end(&self) {
        if let Err(error) = kill(&self.runsc) {
            tracing::error!(%error, "cannot kill runsc");
        }
    }
}

fn exit(runsc: Option<&ChildExit>, relay: Option<&RelayEnd>) -> Exit {
    let code = runsc.and_then(|ended| ended.code);
    if code == Some(0) && relay == Some(&RelayEnd::Bye) {
        return Exit { detail: "the guest shut down on request".to_owned(), orderly: true };
    }
    let text = runsc.map_or("ended", |ended| ended.text.as_str());
    let detail = match relay {
        Some(RelayEnd::Broken(how)) => {
            format!("the guest violated the relay's protocol: {how}")
        }
        _ => format!("the sandbox's first process {text}"),
    };
    Exit { detail, orderly: false }
}

impl Machine for Gvisor {
    fn protection(&self) -> Protection {
        self.protection.clone()
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        Box::pin(self.wait())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        // The kernel kills the other processes of a PID namespace with its first.
        kill(&self.runsc).map_err(|error| Failure::boot(format!("cannot kill runsc: {error}")))
    }
}

impl Drop for Gvisor {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_only_a_shutdown_is_orderly() {
        let ended = |code: Option<i32>| ChildExit { code, text: "exited".to_owned() };
        assert!(exit(Some(&ended(Some(0))), Some(&RelayEnd::Bye)).orderly);
        assert!(!exit(Some(&ended(Some(0))), Some(&RelayEnd::Closed)).orderly);
        assert!(!exit(Some(&ended(None)), Some(&RelayEnd::Bye)).orderly);
        let broken = RelayEnd::Broken("kind 9".to_owned());
        assert!(exit(Some(&ended(None)), Some(&broken)).detail.ends_with("protocol: kind 9"));
    }
}
