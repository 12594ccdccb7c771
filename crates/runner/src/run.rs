//! A runner from its first step to its last.

use crate::cleanup::clean;
use crate::cli;
use crate::control::{Answer, Control};
use crate::creator::CreatorWatch;
use crate::inherited::Inherited;
use crate::namespaces::{MountedRoot, Side, enter};
use crate::signals::Signals;
use crate::supervise::Supervisor;
use msb_driver::{Driver, Users};
use msb_state::{
    Failure, Outcome, Reason, Reply, SandboxDir, SandboxLock, StatusRecord, bind_in, retire,
};
use rustix::process::{getpid, set_child_subreaper, setsid};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// How long the last answers may take to be written.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Starts a sandbox and stays with it; returns at once in the process that the library waits for.
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
    // A session of its own: neither the terminal nor the shell of the host program reaches it.
    setsid().map_err(|error| format!("cannot become a session leader: {error}"))?;
    // What the OCI runtime leaves behind becomes a child of this process.
    set_child_subreaper(Some(getpid()))
        .map_err(|error| format!("cannot become a subreaper: {error}"))?;
    cli::start_log();
    cli::runtime()?.block_on(live(dir, agent, inherited, users))
}

/// How a sandbox ended, and why it did not come up if it did not.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Option<Failure>,
}

impl End {
    /// The end of one that did not come up.
    pub(crate) fn failed(failure: Failure) -> Self {
        let outcome = Outcome::now(Reason::BootFailed, Some(failure.to_string()));
        End { outcome, failure: Some(failure) }
    }
}

async fn live(
    dir: SandboxDir,
    agent: PathBuf,
    inherited: Inherited,
    users: Users,
) -> Result<ExitCode, String> {
    let Inherited { lock, status, creator } = inherited;
    let text = |error: std::io::Error| error.to_string();
    let listener = bind_in(&dir.run(), "runner.sock").map_err(|error| error.to_string())?;
    let mut supervisor = Supervisor {
        drivers: cli::drivers(&cli::cache_of(&dir), &agent, users),
        dir,
        creator: CreatorWatch::new(creator).map_err(text)?,
        signals: Signals::hold().map_err(text)?,
        control: Control::listen(listener).map_err(text)?,
        waiting: Vec::new(),
        status: Some(status),
        mounted: None,
    };
    let end = supervisor.supervise(agent, users).await;
    let Supervisor { drivers, dir, creator, control, waiting, status, mounted, .. } = supervisor;
    tracing::info!(reason = ?end.outcome.reason, detail = end.outcome.detail, "the sandbox ended");
    let creator_is_gone = timeout(Duration::ZERO, creator.gone()).await.is_ok();
    leave(&drivers, &dir, mounted.as_ref(), creator_is_gone, &end.outcome).await;
    let answers = Answers { control, waiting };
    last_words(lock, answers, status.zip(end.failure), end.outcome).await;
    Ok(ExitCode::SUCCESS)
}

/// Leaves the directory as the next call is to find it.
async fn leave(
    drivers: &[Box<dyn Driver>],
    dir: &SandboxDir,
    mounted: Option<&MountedRoot>,
    creator_is_gone: bool,
    outcome: &Outcome,
) {
    let cleaned = clean(drivers, dir, mounted.map(|root| root.path.as_path())).await;
    if let Err(failure) = &cleaned {
        tracing::error!(%failure, "something was left for the next call to clean up");
    }
    if creator_is_gone && cleaned.is_ok() {
        // An attached sandbox's life is bound to its creator's, also on disk.
        match retire(dir.path()) {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "the sandbox's directory was not removed"),
        }
    }
    record(dir, outcome);
}

fn record(dir: &SandboxDir, outcome: &Outcome) {
    if let Err(error) = dir.write_outcome(outcome) {
        // Without it the sandbox reads as crashed, which is no lie.
        tracing::error!(%error, "the outcome was not written");
    }
}

struct Answers {
    control: Control,
    waiting: Vec<Answer>,
}

/// Gives up the lock, and then tells everybody who waits, so that they find it free.
async fn last_words(
    lock: SandboxLock,
    answers: Answers,
    failure: Option<(crate::inherited::Status, Failure)>,
    outcome: Outcome,
) {
    drop(lock);
    if let Some((status, failure)) = failure {
        status.report(&StatusRecord::Error(failure));
    }
    for answer in answers.waiting {
        answer.send(Reply::Ended { outcome: outcome.clone() });
    }
    if timeout(ANSWER_LIMIT, answers.control.finish()).await.is_err() {
        tracing::debug!("a caller did not take its answer");
    }
}
