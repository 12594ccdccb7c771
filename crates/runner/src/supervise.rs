//! The supervisor of one sandbox, from its start to its exit.

use crate::boot::boot;
use crate::console::Console;
use crate::control::{Control, PendingReply, Received};
use crate::creator::CreatorWatch;
use crate::heartbeat::Heartbeat;
use crate::idle::Idle;
use crate::inherited::Status;
use crate::life::{Action, Input, State};
use crate::log::Log;
use crate::namespaces::MountedRoot;
use crate::signals::Signals;
use msb_client::Connection;
use msb_driver::{Driver, Machine, MachineSpec, Users};
use msb_state::{
    Failure, Outcome, Ready, Reason, Reply, Request, SandboxConfig, SandboxDir, Signal, Started,
    StatusRecord, now_ms,
};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Time for the agent's own exit, beyond the grace period of the other processes.
const AGENT_GRACE: Duration = Duration::from_millis(250);
/// How long a killed machine may take to exit.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How a sandbox ended, and the error if it failed to boot.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) failure: Option<Failure>,
}

impl End {
    /// The end of a sandbox that failed to boot.
    pub(crate) fn failed(failure: Failure) -> Self {
        let outcome = Outcome::now(Reason::BootFailed, Some(failure.to_string()));
        End { outcome, failure: Some(failure) }
    }
}

/// The supervisor of a sandbox.
pub(crate) struct Supervisor {
    pub(crate) drivers: Vec<Box<dyn Driver>>,
    pub(crate) dir: SandboxDir,
    pub(crate) creator: CreatorWatch,
    pub(crate) signals: Signals,
    pub(crate) control: Control,
    /// Replies due at the exit.
    pub(crate) waiting: Vec<PendingReply>,
    /// The status pipe, until readiness is reported.
    pub(crate) status: Option<Status>,
    /// The root filesystem, once it is mounted.
    pub(crate) mounted: Option<MountedRoot>,
}

impl Supervisor {
    /// Starts the sandbox and supervises it until its machine has exited.
    pub(crate) async fn supervise(&mut self, agent: PathBuf, users: Users) -> End {
        let (mut slot, mut log) = (None, None);
        let end = match self.start(agent, users, &mut slot, &mut log).await {
            Err(failure) => End::failed(failure),
            Ok(mut watch) => match slot.as_mut() {
                Some(machine) => {
                    let outcome = watch.until_exit(self, machine.as_mut()).await;
                    End { outcome, failure: None }
                }
                None => End::failed(Failure::boot("the driver started nothing")),
            },
        };
        if let Some(mut machine) = slot {
            if let Err(failure) = machine.kill() {
                tracing::error!(%failure, "cannot kill the machine");
            }
            if timeout(KILL_LIMIT, machine.exited()).await.is_err() {
                tracing::error!("timed out waiting for the killed machine");
            }
        }
        if let Some(log) = log {
            // The last output of the sessions is still in flight.
            log.finished().await;
        }
        end
    }

    async fn start(
        &mut self,
        agent: PathBuf,
        users: Users,
        slot: &mut Option<Box<dyn Machine>>,
        log: &mut Option<Log>,
    ) -> Result<Watch, Failure> {
        let text = |error: msb_state::Error| Failure::boot(error.to_string());
        let stored = self.dir.read_config().map_err(text)?;
        let config =
            stored.ok_or_else(|| Failure::boot("the sandbox has no configuration"))?.config;
        let (dir, rootfs) = (self.dir.clone(), self.dir.rootfs());
        let path = dir.agent_log();
        let (log_file, console) =
            Console::start(path.clone()).map_err(|error| Failure::boot_io("open", &path, error))?;
        let mut spec =
            MachineSpec { config, dir, rootfs, agent, users, mounts: Vec::new(), console };
        let limit = spec.config.boot_timeout();
        let (drivers, mounted) = (&self.drivers, &mut self.mounted);
        let booting = boot_with_log(drivers, &mut spec, &log_file, slot, log, mounted);
        let (link, ready) = tokio::select! {
            booted = timeout(limit, booting) => match booted {
                Ok(result) => result?,
                Err(_) => return Err(Failure::boot(format!(
                    "the agent did not answer within {} ms; {}",
                    limit.as_millis(),
                    log_file.tail().await
                )).hint("allow it more time")),
            },
            () = self.creator.gone() => {
                return Err(Failure::boot("the process that created the sandbox has ended"));
            }
            () = self.signals.arrived() => {
                return Err(Failure::boot("the runner was asked to end by a signal"));
            }
            () = stop_request(&mut self.control, &mut self.waiting) => {
                return Err(Failure::boot("the sandbox was stopped during its start"));
            }
        };
        let machine = Some((ready.driver.clone(), ready.isolation));
        let protection = Some(ready.protection.clone());
        let started = Started { at_ms: now_ms(), machine, protection };
        // Before a client connects: the runner's connections are the agent's first.
        let watch = Watch::new(link, &self.dir, ready.clone(), &spec.config)
            .map_err(|error| Failure::boot(format!("cannot connect to the agent: {error}")))?;
        self.dir.write_started(&started).map_err(text)?;
        if let Some(status) = self.status.take() {
            status.report(&StatusRecord::Ready(ready.clone()));
        }
        tracing::info!(driver = ready.driver, isolation = %ready.isolation, "booted");
        Ok(watch)
    }
}

/// Boots the machine, and starts the log before a client can run a command.
async fn boot_with_log(
    drivers: &[Box<dyn Driver>],
    spec: &mut MachineSpec,
    console: &Console,
    slot: &mut Option<Box<dyn Machine>>,
    log: &mut Option<Log>,
    mounted: &mut Option<MountedRoot>,
) -> Result<(Arc<Connection>, Ready), Failure> {
    let booted = boot(drivers, spec, console, slot, mounted).await?;
    if let Some(config) = spec.config.log {
        *log = Some(Log::start(&spec.dir, config).await?);
    }
    Ok(booted)
}

/// Replies to requests during the start; returns on a request to stop.
async fn stop_request(control: &mut Control, waiting: &mut Vec<PendingReply>) {
    loop {
        let Received { request, reply } = control.next().await;
        match request {
            Request::Stop { .. } | Request::Kill => {
                waiting.push(reply);
                return;
            }
            Request::Wait => reply_at_exit(waiting, reply),
            _ => {
                reply.send(Reply::Refused { message: "the sandbox has not booted yet".to_owned() })
            }
        }
    }
}

/// Queues a reply for the exit, and drops those whose client has hung up.
fn reply_at_exit(waiting: &mut Vec<PendingReply>, reply: PendingReply) {
    waiting.retain(PendingReply::is_wanted);
    waiting.push(reply);
}

/// The supervision of a booted sandbox.
struct Watch {
    state: State,
    link: Arc<Connection>,
    heartbeat: Heartbeat,
    /// Whether it was killed because its agent no longer answered.
    is_hung: bool,
    ready: Ready,
    since_ms: u64,
    /// The end of its maximum duration.
    deadline: Option<Instant>,
    /// The end of the grace period.
    grace_over: Option<Instant>,
    idle: Option<Idle>,
    /// What commands are asked to end with, if it is not SIGTERM.
    stop_signal: Option<i32>,
}

impl Watch {
    fn new(
        link: Arc<Connection>,
        dir: &SandboxDir,
        ready: Ready,
        config: &SandboxConfig,
    ) -> io::Result<Self> {
        let idle = config.idle_timeout_ms.map(Duration::from_millis);
        let max_duration = config.max_duration_ms.map(Duration::from_millis);
        let heartbeat = Heartbeat::start(dir, config.boot_timeout())?;
        let start = |limit| Idle::start(dir, limit, heartbeat.limit());
        let idle = idle.map(start).transpose()?;
        Ok(Watch {
            state: State::Running,
            link,
            heartbeat,
            is_hung: false,
            ready,
            since_ms: now_ms(),
            deadline: max_duration.and_then(|limit| Instant::now().checked_add(limit)),
            grace_over: None,
            idle,
            stop_signal: config
                .stop_signal
                .map(Signal::number)
                .filter(|number| *number != libc::SIGTERM),
        })
    }

    async fn until_exit(
        &mut self,
        supervisor: &mut Supervisor,
        machine: &mut dyn Machine,
    ) -> Outcome {
        loop {
            let mut next = self.next_input(supervisor, machine).await;
            while let Some(input) = next.take() {
                let (state, action) = self.state.on(input);
                self.state = state;
                match action {
                    Action::None => {}
                    Action::Kill => kill(machine),
                    Action::AskAgent(grace) => self.ask_agent(grace),
                    Action::Finish(reason, detail) => {
                        return Outcome::now(reason, self.explanation(detail));
                    }
                }
            }
        }
    }

    /// Waits for the next input. Every arm is cancel-safe.
    async fn next_input(
        &mut self,
        supervisor: &mut Supervisor,
        machine: &mut dyn Machine,
    ) -> Option<Input> {
        let open = self.state.is_open();
        tokio::select! {
            exit = machine.exited() => {
                Some(Input::Exited { detail: exit.detail, orderly: exit.orderly })
            }
            received = supervisor.control.next() => {
                self.take_request(received, &mut supervisor.waiting)
            },
            () = supervisor.creator.gone(), if open => Some(Input::CreatorGone),
            () = supervisor.signals.arrived(), if open => Some(Input::Terminated),
            () = self.heartbeat.hung(), if open && !self.is_hung => {
                self.is_hung = true;
                Some(Input::Hung)
            }
            () = at(self.deadline), if open => Some(Input::MaxDuration),
            () = at(self.grace_over), if open => Some(Input::GraceOver),
            () = over(&mut self.idle), if self.state == State::Running => Some(Input::Idle),
        }
    }

    fn explanation(&self, detail: Option<String>) -> Option<String> {
        // The machine's own detail would only say that it was killed.
        let silent =
            || format!("its agent did not answer for {} s", self.heartbeat.limit().as_secs());
        self.is_hung.then(silent).or(detail)
    }

    fn take_request(&self, received: Received, waiting: &mut Vec<PendingReply>) -> Option<Input> {
        let Received { request, reply } = received;
        let input = match request {
            Request::Stop { timeout_ms } => Input::Stop(Duration::from_millis(timeout_ms)),
            Request::Kill => Input::Kill,
            Request::Wait => {
                reply_at_exit(waiting, reply);
                return None;
            }
            Request::Info => {
                reply.send(Reply::Info {
                    pid: self.ready.runner_pid,
                    driver: self.ready.driver.clone(),
                    isolation: self.ready.isolation,
                    since_ms: self.since_ms,
                });
                return None;
            }
            _ => {
                reply.send(Reply::Refused { message: "unknown request".to_owned() });
                return None;
            }
        };
        waiting.push(reply);
        Some(input)
    }

    /// Asks the agent to shut down.
    fn ask_agent(&mut self, grace: Duration) {
        let grace = match self.link.shut_down(grace, self.stop_signal) {
            Ok(()) => grace + AGENT_GRACE,
            // The agent has exited; the machine's exit has the reason.
            Err(error) => {
                tracing::warn!(%error, "cannot ask the agent to shut down");
                AGENT_GRACE
            }
        };
        self.grace_over = Instant::now().checked_add(grace);
    }
}

fn kill(machine: &mut dyn Machine) {
    if let Err(failure) = machine.kill() {
        tracing::error!(%failure, "cannot kill the machine");
    }
}

async fn over(idle: &mut Option<Idle>) {
    match idle {
        Some(idle) => idle.over().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
