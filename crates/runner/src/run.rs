//! The runner's life: from the fork to the release of the lock.

use crate::cleanup::clean;
use crate::control::{Control, PendingReply};
use crate::creator::CreatorWatch;
use crate::drivers::{cache_of, drivers};
use crate::inherited::Inherited;
use crate::namespaces::{MountedRoot, Side, enter};
use crate::process::{runtime, start_trace};
use crate::signals::Signals;
use crate::supervise::{End, Supervisor};
use msb_driver::{Driver, Users};
use msb_state::{Failure, Outcome, Reply, SandboxDir, SandboxLock, StatusRecord, bind_in, retire};
use rustix::process::{getpid, set_child_subreaper, setsid};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for writing the last replies.
const REPLY_LIMIT: Duration = Duration::from_secs(1);

/// Starts a sandbox and supervises it. Returns at once in the process that the library waits for.
pub(crate) fn run(
    dir: SandboxDir,
    agent: PathBuf,
    inherited: Inherited,
) -> Result<ExitCode, String> {
    let users = match enter(false) {
        Ok(Side::Outside(code)) => return Ok(code),
        Ok(Side::Inside(users)) => users,
        Err(failure) => {
            let Inherited { lock, status, .. } = inherited;
            record(&dir, &End::failed(failure.clone()).outcome);
            drop(lock);
            status.report(&StatusRecord::Error(failure));
            return Ok(ExitCode::SUCCESS);
        }
    };
    // Out of reach of the host program's terminal and shell.
    setsid().map_err(|error| format!("cannot become a session leader: {error}"))?;
    // The OCI runtime's orphans become children of this process.
    set_child_subreaper(Some(getpid()))
        .map_err(|error| format!("cannot become a subreaper: {error}"))?;
    start_trace();
    runtime()?.block_on(supervise(dir, agent, inherited, users))
}

async fn supervise(
    dir: SandboxDir,
    agent: PathBuf,
    inherited: Inherited,
    users: Users,
) -> Result<ExitCode, String> {
    let Inherited { lock, status, creator } = inherited;
    let text = |error: std::io::Error| error.to_string();
    let listener = bind_in(&dir.run(), "runner.sock").map_err(|error| error.to_string())?;
    let mut supervisor = Supervisor {
        drivers: drivers(&cache_of(&dir), &agent, users),
        dir,
        creator: CreatorWatch::new(creator).map_err(text)?,
        signals: Signals::catch().map_err(text)?,
        control: Control::listen(listener).map_err(text)?,
        waiting: Vec::new(),
        status: Some(status),
        mounted: None,
    };
    let end = supervisor.supervise(agent, users).await;
    let Supervisor { drivers, dir, creator, control, waiting, status, mounted, .. } = supervisor;
    tracing::info!(reason = ?end.outcome.reason, detail = end.outcome.detail, "the sandbox ended");
    let creator_is_gone = timeout(Duration::ZERO, creator.gone()).await.is_ok();
    clean_up(&drivers, &dir, mounted.as_ref(), creator_is_gone, &end.outcome).await;
    let replies = Replies { control, waiting };
    release(lock, replies, status.zip(end.failure), end.outcome).await;
    Ok(ExitCode::SUCCESS)
}

/// Removes what the sandbox left on the host, and records the outcome.
async fn clean_up(
    drivers: &[Box<dyn Driver>],
    dir: &SandboxDir,
    mounted: Option<&MountedRoot>,
    creator_is_gone: bool,
    outcome: &Outcome,
) {
    let cleaned = clean(drivers, dir, mounted.map(|root| root.path.as_path())).await;
    if let Err(failure) = &cleaned {
        tracing::error!(%failure, "cleanup failed; the next call retries it");
    }
    if creator_is_gone && cleaned.is_ok() {
        // An attached sandbox does not outlive its creator, on disk either.
        match retire(dir.path()) {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "cannot remove the sandbox's directory"),
        }
    }
    record(dir, outcome);
}

fn record(dir: &SandboxDir, outcome: &Outcome) {
    if let Err(error) = dir.write_outcome(outcome) {
        // Without an outcome the sandbox reads as crashed.
        tracing::error!(%error, "cannot write the outcome");
    }
}

struct Replies {
    control: Control,
    waiting: Vec<PendingReply>,
}

/// Releases the lock, then replies to every waiting client, which therefore finds it free.
async fn release(
    lock: SandboxLock,
    replies: Replies,
    failure: Option<(crate::inherited::Status, Failure)>,
    outcome: Outcome,
) {
    drop(lock);
    if let Some((status, failure)) = failure {
        status.report(&StatusRecord::Error(failure));
    }
    for pending in replies.waiting {
        pending.send(Reply::Ended { outcome: outcome.clone() });
    }
    if timeout(REPLY_LIMIT, replies.control.finish()).await.is_err() {
        tracing::debug!("a client did not read its reply");
    }
}
