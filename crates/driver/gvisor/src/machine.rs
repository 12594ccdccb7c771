//! A running sandbox: `runsc` and a relay, of which neither outlives the other.

use msb_driver::{BoxFuture, ChildExit, Exit, Machine, Relay, RelayEnd, kill, watch};
use msb_state::{Failure, Protection};
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// The gofer and the sentry (a count).
const CHILDREN: usize = 2;
/// How long `runsc` may take to exit after the relay or a child.
const EXIT_GRACE: Duration = Duration::from_secs(2);

/// A running sandbox.
pub(crate) struct Gvisor {
    pid: u32,
    runsc: AsyncFd<OwnedFd>,
    /// The sentry and the gofer, of which `runsc` notices only the former's exit.
    children: Vec<AsyncFd<OwnedFd>>,
    relay: Relay,
    ended: Option<ChildExit>,
    exit: Option<Exit>,
    protection: Protection,
}

impl Gvisor {
    pub(crate) fn new(pid: u32, relay: Relay, protection: Protection) -> io::Result<Self> {
        Ok(Gvisor {
            pid,
            runsc: watch(pid)?,
            children: Vec::new(),
            relay,
            ended: None,
            exit: None,
            protection,
        })
    }

    async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        self.find_children();
        while self.ended.is_none() {
            tokio::select! {
                () = any_exits(&self.children) => {
                    self.end_soon().await;
                    self.children.clear();
                }
                ended = ChildExit::wait(&self.runsc) => self.ended = Some(ended),
                () = self.relay.ended(), if self.relay.end().is_none() => self.end_soon().await,
            }
        }
        // The sandbox's end is closed, so the relay only forwards the last bytes.
        let _ = timeout(EXIT_GRACE, self.relay.ended()).await;
        let exit = exit(self.ended.as_ref(), self.relay.end());
        self.exit = Some(exit.clone());
        exit
    }

    /// Looks for the children, which exist once the agent answers.
    fn find_children(&mut self) {
        if self.children.len() < CHILDREN {
            // One that has exited already is seen by `runsc` or the relay.
            self.children = children(self.pid).into_iter().flat_map(watch).collect();
        }
    }

    /// Waits a moment for the exit of `runsc`, then kills it.
    async fn end_soon(&self) {
        if timeout(EXIT_GRACE, self.runsc.readable()).await.is_err() {
            self.end();
        }
    }

    fn end(&self) {
        if let Err(error) = kill(&self.runsc) {
            tracing::error!(%error, "cannot kill runsc");
        }
    }
}

/// Returns a process's children, which any of its threads may have created.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let text = lists.collect::<String>();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until one of the processes exits; for ever without any.
async fn any_exits(processes: &[AsyncFd<OwnedFd>]) {
    let mut exits: Vec<_> = processes.iter().map(|process| Box::pin(process.readable())).collect();
    std::future::poll_fn(|context| {
        match exits.iter_mut().any(|exit| exit.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
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
