//! Watching over one sandbox while it starts and runs.

use crate::agent_link::{Activity, AgentLink};
use crate::boot::come_up;
use crate::console::Console;
use crate::control::{Answer, Asked, Control};
use crate::creator::CreatorWatch;
use crate::heart::Heart;
use crate::inherited::Status;
use crate::life::{Action, Input, State};
use crate::log::Log;
use crate::namespaces::MountedRoot;
use crate::run::End;
use crate::signals::Signals;
use msb_driver::{Driver, Machine, MachineSpec, Users};
use msb_state::{
    Failure, Outcome, Ready, Reply, Request, SandboxConfig, SandboxDir, Started, StatusRecord,
    now_ms,
};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long the agent has, beyond the grace that it gives to others, to end itself.
const AGENT_GRACE: Duration = Duration::from_millis(250);
/// How long a killed machine may take to disappear.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the agent may take to take or give a message.
const AGENT_LIMIT: Duration = Duration::from_secs(1);
/// How often the agent is asked how busy it is, at most and at least.
const ACTIVITY_PERIODS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is needed to watch over a sandbox.
pub(crate) struct Supervisor {
    pub(crate) drivers: Vec<Box<dyn Driver>>,
    pub(crate) dir: SandboxDir,
    pub(crate) creator: CreatorWatch,
    pub(crate) signals: Signals,
    pub(crate) control: Control,
    /// Who waits for the end.
    pub(crate) waiting: Vec<Answer>,
    /// Where readiness is reported, until it has been.
    pub(crate) status: Option<Status>,
    /// The root filesystem, once it is mounted.
    pub(crate) mounted: Option<MountedRoot>,
}

impl Supervisor {
    /// Starts the sandbox and watches it until nothing of its machine is left.
    pub(crate) async fn supervise(&mut self, agent: PathBuf, users: Users) -> End {
        let (mut slot, mut log) = (None, None);
        let end = match self.start(agent, users, &mut slot, &mut log).await {
            Err(failure) => End::failed(failure),
            Ok((link, ready, config)) => {
                tracing::info!(driver = ready.driver, isolation = %ready.isolation, "it came up");
                match slot.as_mut() {
                    Some(machine) => {
                        let heart = Heart::begin(&self.dir, config.boot_timeout());
                        let mut watch = Watch::new(link, heart, ready, &config);
                        let outcome = watch.until_the_end(self, machine.as_mut()).await;
                        End { outcome, failure: None }
                    }
                    None => End::failed(Failure::boot("the driver started nothing")),
                }
            }
        };
        if let Some(mut machine) = slot {
            if let Err(failure) = machine.kill() {
                tracing::error!(%failure, "the machine was not killed");
            }
            if timeout(KILL_LIMIT, machine.exited()).await.is_err() {
                tracing::error!("the killed machine did not end");
            }
        }
        if let Some(log) = log {
            // What the sessions put out last is still on its way.
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
    ) -> Result<(AgentLink, Ready, SandboxConfig), Failure> {
        let text = |error: msb_state::Error| Failure::boot(error.to_string());
        let stored = self.dir.read_config().map_err(text)?;
        let config = stored.ok_or_else(|| Failure::boot("it has no configuration"))?.config;
        let (dir, rootfs) = (self.dir.clone(), self.dir.rootfs());
        let path = dir.agent_log();
        let (words, console) =
            Console::begin(path.clone()).map_err(|error| Failure::boot_io("open", &path, error))?;
        let mut spec = MachineSpec { config, dir, rootfs, agent, users, console };
        let limit = spec.config.boot_timeout();
        let (link, ready) = tokio::select! {
            came_up = timeout(limit, begin(&self.drivers, &mut spec, &words, slot, log, &mut self.mounted)) => match came_up {
                Ok(result) => result?,
                Err(_) => return Err(Failure::boot(format!(
                    "the agent did not answer within {} ms; {}",
                    limit.as_millis(),
                    words.last_words().await
                )).hint("allow it more time")),
            },
            () = self.creator.gone() => {
                return Err(Failure::boot("the process that created it has ended"));
            }
            () = self.signals.arrived() => {
                return Err(Failure::boot("the system asked the runner to end"));
            }
            () = end_request(&mut self.control, &mut self.waiting) => {
                return Err(Failure::boot("it was ended before it came up"));
            }
        };
        let machine = Some((ready.driver.clone(), ready.isolation));
        let protection = Some(ready.protection.clone());
        let started = Started { at_ms: now_ms(), machine, protection };
        self.dir.write_started(&started).map_err(text)?;
        if let Some(status) = self.status.take() {
            status.report(&StatusRecord::Ready(ready.clone()));
        }
        Ok((link, ready, spec.config))
    }
}

/// Brings the machine up, and the log before anybody can run something.
async fn begin(
    drivers: &[Box<dyn Driver>],
    spec: &mut MachineSpec,
    console: &Console,
    slot: &mut Option<Box<dyn Machine>>,
    log: &mut Option<Log>,
    mounted: &mut Option<MountedRoot>,
) -> Result<(AgentLink, Ready), Failure> {
    let up = come_up(drivers, spec, console, slot, mounted).await?;
    if let Some(config) = spec.config.log {
        *log = Some(Log::begin(&spec.dir, config).await?);
    }
    Ok(up)
}

/// Answers requests during the start, until one wants the end.
async fn end_request(control: &mut Control, waiting: &mut Vec<Answer>) {
    loop {
        let Asked { request, answer } = control.next().await;
        match request {
            Request::Stop { .. } | Request::Kill => {
                waiting.push(answer);
                return;
            }
            Request::Wait => await_end(waiting, answer),
            _ => answer.send(Reply::Refused { message: "it is not up yet".to_owned() }),
        }
    }
}

/// Remembers who waits for the end, and forgets who gave that up.
fn await_end(waiting: &mut Vec<Answer>, answer: Answer) {
    waiting.retain(Answer::is_wanted);
    waiting.push(answer);
}

/// The watch over a sandbox that has come up.
struct Watch {
    state: State,
    link: Option<AgentLink>,
    heart: Heart,
    /// Whether its end is that it no longer answered.
    is_hung: bool,
    ready: Ready,
    since_ms: u64,
    /// When its time is over.
    over: Option<Instant>,
    /// When an orderly end has taken long enough.
    grace_over: Option<Instant>,
    idle: Option<IdleWatch>,
}

impl Watch {
    fn new(link: AgentLink, heart: Heart, ready: Ready, config: &SandboxConfig) -> Self {
        let now = Instant::now();
        Watch {
            state: State::Running,
            link: Some(link),
            heart,
            is_hung: false,
            ready,
            since_ms: now_ms(),
            over: config.max_duration_ms.map(|limit| now + Duration::from_millis(limit)),
            grace_over: None,
            idle: config.idle_timeout_ms.map(|limit| IdleWatch::new(limit, now)),
        }
    }

    async fn until_the_end(
        &mut self,
        around: &mut Supervisor,
        machine: &mut dyn Machine,
    ) -> Outcome {
        loop {
            let mut next = self.next_input(around, machine).await;
            while let Some(input) = next.take() {
                let (state, action) = self.state.on(input);
                self.state = state;
                match action {
                    Action::None => {}
                    Action::Kill => kill(machine),
                    Action::AskAgent(grace) => next = self.ask_agent(grace).await,
                    Action::Finish(reason, detail) => {
                        return Outcome::now(reason, self.explanation(detail));
                    }
                }
            }
        }
    }

    /// Waits for whatever happens first. Every arm may be given up at any time.
    async fn next_input(
        &mut self,
        around: &mut Supervisor,
        machine: &mut dyn Machine,
    ) -> Option<Input> {
        let open = self.state.is_open();
        let check = self.idle.as_ref().map(|idle| idle.next_check);
        tokio::select! {
            exit = machine.exited() => {
                Some(Input::Exited { detail: exit.detail, orderly: exit.orderly })
            }
            asked = around.control.next() => self.take_request(asked, &mut around.waiting),
            () = around.creator.gone(), if open => Some(Input::CreatorGone),
            () = around.signals.arrived(), if open => Some(Input::Terminated),
            () = self.heart.hung(), if open && !self.is_hung => {
                self.is_hung = true;
                Some(Input::Hung)
            }
            () = at(self.over), if open => Some(Input::MaxDuration),
            () = at(self.grace_over), if open => Some(Input::GraceOver),
            () = at(check), if self.state == State::Running => self.check_idle().await,
        }
    }

    fn explanation(&self, detail: Option<String>) -> Option<String> {
        // It was killed for that, which the machine's own words would tell.
        let silent = || format!("its agent did not answer for {} s", self.heart.limit().as_secs());
        self.is_hung.then(silent).or(detail)
    }

    fn take_request(&self, asked: Asked, waiting: &mut Vec<Answer>) -> Option<Input> {
        let Asked { request, answer } = asked;
        let input = match request {
            Request::Stop { timeout_ms } => Input::Stop(Duration::from_millis(timeout_ms)),
            Request::Kill => Input::Kill,
            Request::Wait => {
                await_end(waiting, answer);
                return None;
            }
            Request::Info => {
                answer.send(Reply::Info {
                    pid: self.ready.runner_pid,
                    driver: self.ready.driver.clone(),
                    isolation: self.ready.isolation,
                    since_ms: self.since_ms,
                });
                return None;
            }
            _ => {
                answer.send(Reply::Refused { message: "unknown request".to_owned() });
                return None;
            }
        };
        waiting.push(answer);
        Some(input)
    }

    /// Asks the agent to end. What comes back is that the time for it is over already.
    async fn ask_agent(&mut self, grace: Duration) -> Option<Input> {
        let asked = match self.link.as_mut() {
            Some(link) => timeout(AGENT_LIMIT, link.shut_down(grace)).await,
            None => return Some(Input::GraceOver),
        };
        match asked {
            Ok(Ok(())) => {
                self.grace_over = Instant::now().checked_add(grace + AGENT_GRACE);
                None
            }
            // The agent is gone; the machine's own end says why.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the agent could not be asked to end");
                self.grace_over = Instant::now().checked_add(AGENT_GRACE);
                None
            }
            Err(_) => {
                tracing::warn!("the agent did not take the request to end");
                Some(Input::GraceOver)
            }
        }
    }

    async fn check_idle(&mut self) -> Option<Input> {
        let idle = self.idle.as_mut()?;
        let activity = match self.link.as_mut() {
            Some(link) => timeout(AGENT_LIMIT, link.activity()).await,
            None => return None,
        };
        let now = Instant::now();
        match activity {
            Ok(Ok(activity)) => idle.on(activity, now).then_some(Input::Idle),
            Ok(Err(_)) | Err(_) => {
                // Half a message may be under way; nothing more can be said on this connection.
                tracing::warn!("the agent did not say how busy it is; idle time is not watched");
                self.idle = None;
                self.link = None;
                None
            }
        }
    }
}

fn kill(machine: &mut dyn Machine) {
    if let Err(failure) = machine.kill() {
        tracing::error!(%failure, "the machine was not killed");
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Notices when nothing has run for too long.
#[derive(Debug)]
struct IdleWatch {
    limit: Duration,
    period: Duration,
    next_check: Instant,
    active: Instant,
    last: Option<Activity>,
}

impl IdleWatch {
    fn new(limit_ms: u64, now: Instant) -> Self {
        let limit = Duration::from_millis(limit_ms);
        let period = (limit / 4).clamp(ACTIVITY_PERIODS.0, ACTIVITY_PERIODS.1);
        IdleWatch { limit, period, next_check: now + period, active: now, last: None }
    }

    /// Whether it has been idle for too long.
    fn on(&mut self, activity: Activity, now: Instant) -> bool {
        let is_news = self.last.as_ref().is_some_and(|last| last.newest != activity.newest);
        if activity.running || is_news {
            self.active = now;
        }
        self.last = Some(activity);
        self.next_check = now + self.period;
        now.saturating_duration_since(self.active) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_between_two_looks_counts_as_activity() {
        let start = Instant::now();
        let mut idle = IdleWatch::new(1000, start);
        let after = |ms| start + Duration::from_millis(ms);
        let quiet = |newest: &str| Activity { running: false, newest: Some(newest.to_owned()) };
        assert!(!idle.on(quiet("a"), after(250)));
        assert!(!idle.on(quiet("b"), after(900)));
        assert!(!idle.on(quiet("b"), after(1800)));
        assert!(!idle.on(Activity { running: true, newest: None }, after(1850)));
        assert!(!idle.on(quiet("b"), after(1900)), "the list changed");
        assert!(idle.on(quiet("b"), after(2900)));
    }
}
