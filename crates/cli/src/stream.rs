//! Copies a command's output to this process's streams, and turns its end into an exit code.

use crate::failure::{Failure, SIGPIPE, signal_code};
use crate::output::{Outputs, Stream};
use crate::signals::{SignalAction, Signals};
use crate::stdin::StdinForwarder;
use crate::stdio;
use microsandbox::{ErrorKind, ExecControl, ExecEvent, ExecHandle, ExitStatus};
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Time limit for killing a command whose output is no longer followed.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the end of a command that was killed. With the grace period before it, msb exits
/// within 15 s of the first signal.
const END_LIMIT: Duration = Duration::from_secs(3);
/// A second wait, for events that arrived while this process was stopped.
const CONFIRM: Duration = Duration::from_secs(1);
/// Output that the agent may have buffered, in bytes. A killed command that sends more is not
/// ending.
const BUFFERED_OUTPUT: u64 = 8 * 1024 * 1024;

/// Follows a command to the end of its output and returns its exit code. A failure kills it.
pub(crate) async fn follow(
    handle: &mut ExecHandle,
    signals: &mut Signals,
    time: Option<Duration>,
) -> Result<u8, Failure> {
    let control = handle.control();
    let target = Target { control: control.clone(), owned: true };
    let stdin = match handle.take_stdin() {
        Some(sink) => StdinForwarder::start(sink).map_err(|error| read_failure(&error))?,
        None => StdinForwarder::default(),
    };
    if let Err(failure) = pump(handle, stdin, &target, signals).await {
        // Nobody follows the command any more. That it may have ended is fine.
        if !failure.exit_now && !failure.agent_silent {
            let _ = timeout(KILL_LIMIT, control.kill()).await;
        }
        return Err(failure);
    }
    exit_code(&handle.wait().await.map_err(Failure::no_exit)?, time)
}

/// Follows a command of another client: a second signal or a closed output ends msb, not the
/// command.
pub(crate) async fn watch(handle: &mut ExecHandle, signals: &mut Signals) -> Result<u8, Failure> {
    let target = Target { control: handle.control(), owned: false };
    tokio::select! {
        result = pump(handle, StdinForwarder::default(), &target, signals) => result?,
        () = stdio::stdout_closed() => return Err(Failure::by_signal(SIGPIPE)),
    }
    exit_code(&handle.wait().await.map_err(Failure::no_exit)?, None)
}

/// Returns the exit code for a command's exit status.
pub(crate) fn exit_code(status: &ExitStatus, time: Option<Duration>) -> Result<u8, Failure> {
    if status.timed_out {
        let after = time.map(|time| format!(" after {time:?}")).unwrap_or_default();
        return Err(Failure::timed_out(format!(
            "the command timed out{after} and was killed; raise the limit with --timeout"
        )));
    }
    Ok(match status.signal {
        Some(signal) => signal_code(signal),
        // The library lets no other value through.
        None => u8::try_from(status.code)
            .map_err(|_| Failure::new(format!("the exit code {} is out of range", status.code)))?,
    })
}

/// Copies the output until it ends.
///
/// The next event is received only once the last output is written: a slow reader slows the
/// command, and no memory fills up.
async fn pump(
    handle: &mut ExecHandle,
    mut stdin: StdinForwarder,
    target: &Target,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut outputs = Outputs::open()?;
    let mut killed = None;
    loop {
        let is_flooding = killed.as_ref().is_some_and(Killed::is_flooding);
        // Every arm is cancel-safe: an event stays queued, a write continues, a signal is kept. The
        // order prefers available events to the deadline.
        tokio::select! {
            biased;
            action = signals.next() => {
                target.act(action)?;
                if let SignalAction::Kill(_) = action {
                    killed = Some(Killed::now());
                }
            }
            error = stdin.failed() => return Err(read_failure(&error)),
            written = outputs.written(), if outputs.is_writing() => written?,
            event = handle.recv(), if !outputs.is_writing() && !is_flooding => {
                let data = match event {
                    Some(ExecEvent::Stdout(data)) => Some((Stream::Stdout, data)),
                    Some(ExecEvent::Stderr(data)) => Some((Stream::Stderr, data)),
                    Some(_) => None,
                    None => return Ok(()),
                };
                if let Some((stream, data)) = data {
                    killed.iter_mut().for_each(|killed| killed.output += data.len() as u64);
                    outputs.start_write(stream, data);
                }
            }
            () = overdue(&mut killed), if !outputs.is_writing() => {
                return Err(no_answer());
            }
        }
    }
}

/// A command that was killed and has not ended yet.
#[derive(Debug)]
pub(crate) struct Killed {
    due: Instant,
    confirmed: bool,
    /// Bytes of output since the kill.
    output: u64,
}

impl Killed {
    pub(crate) fn now() -> Self {
        Killed { due: Instant::now() + END_LIMIT, confirmed: false, output: 0 }
    }

    /// Whether, past the deadline, more output came than the agent can have buffered.
    fn is_flooding(&self) -> bool {
        self.output > BUFFERED_OUTPUT && self.confirmed
    }
}

/// Waits until the end of a killed command is overdue; forever if none was killed.
pub(crate) async fn overdue(killed: &mut Option<Killed>) {
    let Some(killed) = killed else { return pending().await };
    sleep_until(killed.due).await;
    if !killed.confirmed {
        killed.confirmed = true;
        killed.due = Instant::now() + CONFIRM;
        sleep_until(killed.due).await;
    }
}

fn read_failure(error: &io::Error) -> Failure {
    Failure::new(format!("cannot read standard input: {error}"))
}

/// The failure of a kill that the agent does not answer.
pub(crate) fn no_answer() -> Failure {
    Failure::agent_silent(
        "the connection to the sandbox was lost: the agent did not answer the kill request; the \
         command's exit status is unknown",
    )
}

/// The command that gets the signals.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) control: ExecControl,
    /// Whether msb started it: it then ends with msb. Another client's is never killed.
    pub(crate) owned: bool,
}

impl Target {
    /// Does what a signal asks for. A failure ends msb.
    pub(crate) fn act(&self, action: SignalAction) -> Result<(), Failure> {
        let kill = match action {
            SignalAction::Exit(signal) => return Err(Failure::exit_now(signal)),
            SignalAction::Kill(signal) if !self.owned => return Err(Failure::by_signal(signal)),
            SignalAction::Pass(_) | SignalAction::Forward(_) => false,
            SignalAction::Kill(_) => true,
        };
        let control = self.control.clone();
        // In a task, since the output goes on while the agent answers. Tasks begin in their order.
        tokio::spawn(async move {
            let result = match kill {
                true => control.kill().await,
                false => control.signal(action.signal()).await,
            };
            match result {
                // The command ended just now, or the end of the stream will tell.
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::NoSuchProcess | ErrorKind::StreamLost
                    ) =>
                {
                    stdio::report(&format!("cannot signal the command: {error}"));
                }
                _ => {}
            }
        });
        Ok(())
    }
}

/// Waits until a background command has started.
pub(crate) async fn wait_started(
    handle: &mut ExecHandle,
    signals: &mut Signals,
) -> Result<(), Failure> {
    // Stays open for a client that attaches.
    if let Some(stdin) = handle.take_stdin() {
        stdin.leave_open();
    }
    loop {
        let event = match signals.interrupt(handle.recv()).await {
            Ok(event) => event,
            Err(failure) => {
                let _ = timeout(KILL_LIMIT, handle.kill()).await;
                return Err(failure);
            }
        };
        match event {
            Some(ExecEvent::Started { .. }) => return Ok(()),
            Some(ExecEvent::Failed(failed)) => return Err(failed.into()),
            Some(_) => {}
            None => return handle.wait().await.map(drop).map_err(Failure::no_exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::GRACE;

    #[test]
    fn d3_first_signal_ends_msb_within_15_seconds() {
        assert!(GRACE + END_LIMIT + CONFIRM < Duration::from_secs(15));
    }
}
