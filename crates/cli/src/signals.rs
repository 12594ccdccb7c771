//! Signals to this process, and how often someone has to insist.

use crate::failure::Failure;
use std::future::pending;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How long a command that was told to end, other than from a keyboard, has before it is killed:
/// nobody may be there to say it a second time.
const GRACE: Duration = Duration::from_secs(10);
/// SIGINT's number.
const SIGINT: i32 = 2;

/// What is wanted, and which signal said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The first time: the command is to have the signal.
    Pass(i32),
    /// The second time, or too long after the first: the command is to be killed.
    Kill(i32),
    /// The third time: msb is to end now.
    Leave(i32),
}

/// The signals that ask this process to end.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(i32, Signal)>,
    insistence: Insistence,
    /// When the grace is over, and which signal began it.
    over: Option<(Instant, i32)>,
}

impl Signals {
    /// Takes over those that are not ignored: whoever started us in the background, or with
    /// `nohup`, wants it to stay that way.
    pub(crate) fn take() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let mut streams = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let number = kind.as_raw_value();
            if ignored & (1 << (number - 1)) == 0 {
                let stream = signal(kind).map_err(|error| {
                    Failure::own(format!("cannot listen for signal {number}: {error}"))
                })?;
                streams.push((number, stream));
            }
        }
        Ok(Signals { streams, insistence: Insistence::None, over: None })
    }

    /// Waits for the next wish. Giving the wait up loses none.
    pub(crate) async fn next(&mut self) -> Wish {
        let over = self.over;
        let grace = async {
            match over {
                Some((at, signal)) => {
                    sleep_until(at).await;
                    signal
                }
                None => pending().await,
            }
        };
        let (wish, insistence) = tokio::select! {
            number = any(&mut self.streams) => self.insistence.on(number),
            number = grace => (Wish::Kill(number), Insistence::Twice),
        };
        self.insistence = insistence;
        self.over = match wish {
            Wish::Pass(number) if number != SIGINT => Some((Instant::now() + GRACE, number)),
            _ => None,
        };
        wish
    }
}

/// How often it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Insistence {
    None,
    Once,
    Twice,
}

impl Insistence {
    fn on(self, signal: i32) -> (Wish, Insistence) {
        match self {
            Insistence::None => (Wish::Pass(signal), Insistence::Once),
            Insistence::Once => (Wish::Kill(signal), Insistence::Twice),
            Insistence::Twice => (Wish::Leave(signal), Insistence::Twice),
        }
    }
}

/// Waits for any of them.
async fn any(streams: &mut [(i32, Signal)]) -> i32 {
    std::future::poll_fn(|context| {
        for (number, stream) in streams.iter_mut() {
            if stream.poll_recv(context).is_ready() {
                return std::task::Poll::Ready(*number);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// The mask of ignored signals in the text of `/proc/self/status`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_passed_on_the_second_kills_and_the_third_leaves() {
        let (wish, next) = Insistence::None.on(15);
        assert_eq!(wish, Wish::Pass(15));
        let (wish, next) = next.on(2);
        assert_eq!(wish, Wish::Kill(2));
        let (wish, next) = next.on(2);
        assert_eq!(wish, Wish::Leave(2));
        assert_eq!(next.on(1).0, Wish::Leave(1));
    }

    #[test]
    fn what_is_ignored_is_read_from_the_kernels_mask() {
        assert_eq!(ignored("Name:\tmsb\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored("nothing"), 0);
    }
}
