//! Signals to this process, and what each of them asks for.

use crate::failure::Failure;
use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// Time that a command has to exit after a forwarded SIGTERM or SIGHUP: nobody may be there to
/// signal a second time, as there is with SIGINT.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// The number of SIGINT.
const SIGINT: i32 = 2;

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// The first signal: forward it to the command.
    Forward(i32),
    /// The second signal, or the end of the grace period: kill the command.
    Kill(i32),
    /// The third signal: exit without waiting for anything.
    Exit(i32),
}

impl SignalAction {
    /// Returns the signal's number.
    pub(crate) fn signal(self) -> i32 {
        let (SignalAction::Forward(signal)
        | SignalAction::Kill(signal)
        | SignalAction::Exit(signal)) = self;
        signal
    }
}

/// The signals that ask this process to end.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(i32, Signal)>,
    state: SignalState,
    /// When the grace period ends, and which signal started it.
    grace: Option<(Instant, i32)>,
}

impl Signals {
    /// Handles those signals that are not ignored: `nohup` and `&` ignore some on purpose.
    pub(crate) fn handle() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let mut streams = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let number = kind.as_raw_value();
            if ignored & (1 << (number - 1)) == 0 {
                let stream = signal(kind).map_err(|error| {
                    Failure::new(format!("cannot handle signal {number}: {error}"))
                })?;
                streams.push((number, stream));
            }
        }
        Ok(Signals { streams, state: SignalState::Idle, grace: None })
    }

    /// Waits for the next action. Cancel-safe: no signal is lost.
    pub(crate) async fn next(&mut self) -> SignalAction {
        let grace = self.grace;
        let grace_over = async {
            match grace {
                Some((end, signal)) => {
                    sleep_until(end).await;
                    signal
                }
                None => pending().await,
            }
        };
        let (action, state) = tokio::select! {
            number = any(&mut self.streams) => self.state.on(number),
            number = grace_over => (SignalAction::Kill(number), SignalState::Killed),
        };
        self.state = state;
        self.grace = match action {
            SignalAction::Forward(number) if number != SIGINT => {
                Some((Instant::now() + GRACE, number))
            }
            _ => None,
        };
        action
    }

    /// Waits for `future`, or fails at the first signal.
    pub(crate) async fn interrupt<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            result = future => Ok(result),
            action = self.next() => Err(Failure::by_signal(action.signal())),
        }
    }
}

/// What the signals so far have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalState {
    Idle,
    Forwarded,
    Killed,
}

impl SignalState {
    fn on(self, signal: i32) -> (SignalAction, SignalState) {
        match self {
            SignalState::Idle => (SignalAction::Forward(signal), SignalState::Forwarded),
            SignalState::Forwarded => (SignalAction::Kill(signal), SignalState::Killed),
            SignalState::Killed => (SignalAction::Exit(signal), SignalState::Killed),
        }
    }
}

/// Waits for any of the signals.
async fn any(streams: &mut [(i32, Signal)]) -> i32 {
    poll_fn(|context| {
        let mut streams = streams.iter_mut();
        let ready = streams
            .find_map(|(number, stream)| stream.poll_recv(context).is_ready().then_some(*number));
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Returns the mask of ignored signals in the text of `/proc/self/status`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_signal_is_forwarded_second_kills_third_exits() {
        let (action, next) = SignalState::Idle.on(15);
        assert_eq!(action, SignalAction::Forward(15));
        let (action, next) = next.on(2);
        assert_eq!(action, SignalAction::Kill(2));
        let (action, next) = next.on(2);
        assert_eq!(action, SignalAction::Exit(2));
        assert_eq!(next.on(1).0, SignalAction::Exit(1));
    }

    #[test]
    fn ignored_signals_are_read_from_the_kernels_mask() {
        assert_eq!(ignored("Name:\tmsb\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored("nothing"), 0);
    }
}
