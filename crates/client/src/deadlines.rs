//! Deadlines for the answers of an agent.
//!
//! Owns: the limits, and the deadline of each channel. Does not own: the reaction to a missed
//! deadline, nor the clock: times are arguments, and [`Deadlines::due`] returns what has expired.
//!
//! Invariant: a deadline expires only after this process ran for [`CONFIRM`] beyond it. An expired
//! deadline is first extended by that time, so that the reader handles what had arrived. One that
//! is found so late that this process cannot have run (it was stopped, or the host was busy) is
//! extended each time. So a paused host never makes an agent look unresponsive.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Limit for the start of a command.
const START: Duration = Duration::from_secs(60);
/// Limit for the answer to any other request.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the report of a timeout may take after the timeout itself.
const TIMEOUT_GRACE: Duration = Duration::from_secs(10);
/// Limit for the exit of a command after the host killed it.
const KILL_GRACE: Duration = Duration::from_secs(3);
/// How long an expired deadline is extended for confirmation.
const CONFIRM: Duration = Duration::from_secs(1);
/// A timer that fires this late shows that this process did not run.
const LATE: Duration = Duration::from_millis(500);
/// Output that an agent may have buffered for a slow reader, in bytes. More than that was produced
/// after the deadline.
const KEPT_OUTPUT: u64 = 8 * 1024 * 1024;

/// The limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub(crate) start: Duration,
    pub(crate) answer: Duration,
    pub(crate) grace: Duration,
}

impl Limits {
    /// Returns the limits for a sandbox with this boot timeout. A machine that boots slowly, such
    /// as an emulated one, gets longer limits later, too.
    pub fn new(boot_timeout: Duration) -> Self {
        let slow = if boot_timeout > START { boot_timeout } else { Duration::ZERO };
        Limits {
            start: START.max(boot_timeout),
            answer: ANSWER.max(boot_timeout),
            grace: TIMEOUT_GRACE.max(slow),
        }
    }
}

/// What the options of a command say about its duration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// Its timeout, measured by the guest's clock.
    pub(crate) timeout: Option<Duration>,
    /// How long output of other processes is forwarded after the exit; `None` has no limit.
    pub(crate) drain: Option<Duration>,
}

/// What an agent has to do before a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Answer a request.
    Answer,
    /// Start a command.
    Start,
    /// End a command whose timeout has expired.
    Exit,
    /// End a command that was killed.
    Kill,
    /// End the output of a command that has exited.
    End,
}

/// One deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    pub(crate) wait: Wait,
    /// The total time that the agent had.
    pub(crate) limit: Duration,
    confirmed: bool,
    /// Output received when the deadline expired while the reader was behind.
    received: Option<u64>,
}

/// The deadlines of the open channels.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    of: HashMap<u32, Deadline>,
    order: BTreeSet<(Instant, u32)>,
    /// When the timer fires.
    armed: Option<Instant>,
}

impl Deadlines {
    /// Sets the deadline of a channel. Returns whether the timer has to be set again.
    #[must_use]
    pub(crate) fn set(&mut self, channel: u32, wait: Wait, limit: Duration, now: Instant) -> bool {
        // Beyond the range of the clock: no deadline.
        let Some(at) = now.checked_add(limit) else {
            self.clear(channel);
            return false;
        };
        self.put(channel, Deadline { at, wait, limit, confirmed: false, received: None })
    }

    fn put(&mut self, channel: u32, deadline: Deadline) -> bool {
        self.clear(channel);
        self.of.insert(channel, deadline);
        self.order.insert((deadline.at, channel));
        self.armed.is_none_or(|armed| deadline.at < armed)
    }

    /// As [`Deadlines::set`] for a command that its caller killed, unless it is to end earlier.
    #[must_use]
    pub(crate) fn set_kill(&mut self, channel: u32, limit: Duration, now: Instant) -> bool {
        let is_later =
            |deadline: &Deadline| now.checked_add(limit).is_none_or(|at| at < deadline.at);
        self.of.get(&channel).is_none_or(is_later) && self.set(channel, Wait::Kill, limit, now)
    }

    /// What the agent is to do next on a channel, if there is a limit.
    pub(crate) fn wait(&self, channel: u32) -> Option<Wait> {
        self.of.get(&channel).map(|deadline| deadline.wait)
    }

    /// A channel has none any more.
    pub(crate) fn clear(&mut self, channel: u32) {
        if let Some(deadline) = self.of.remove(&channel) {
            self.order.remove(&(deadline.at, channel));
        }
    }

    /// Returns when the timer has to fire next. Removing a deadline does not reset the timer: most
    /// are removed long before they expire.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        self.armed = self.order.first().map(|(at, _)| *at);
        self.armed
    }

    /// Removes and returns the next expired deadline and its channel.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(u32, Deadline)> {
        while let Some(&(at, channel)) = self.order.first().filter(|(at, _)| *at <= now) {
            let deadline = *self.of.get(&channel)?;
            self.clear(channel);
            if deadline.confirmed && now.saturating_duration_since(at) < LATE {
                return Some((channel, deadline));
            }
            let deadline = Deadline { at: now + CONFIRM, confirmed: true, ..deadline };
            let _ = self.put(channel, deadline);
        }
        None
    }

    /// Extends a deadline because the reader is behind, so that the agent may lack credit for its
    /// answer. Returns false if more output has arrived since than the agent can have buffered.
    pub(crate) fn excuse(
        &mut self,
        channel: u32,
        deadline: Deadline,
        received: u64,
        now: Instant,
    ) -> bool {
        let first = deadline.received.unwrap_or(received);
        if received.saturating_sub(first) > KEPT_OUTPUT {
            return false;
        }
        let at = now + KILL_GRACE;
        let deadline = Deadline { at, confirmed: false, received: Some(first), ..deadline };
        let _ = self.put(channel, deadline);
        true
    }

    /// Sets the deadline for the exit of a command that the host killed.
    pub(crate) fn killed(&mut self, channel: u32, deadline: Deadline, now: Instant) {
        let limit = deadline.limit + KILL_GRACE;
        let at = now + KILL_GRACE;
        let deadline = Deadline { at, wait: Wait::Kill, limit, confirmed: false, ..deadline };
        let _ = self.put(channel, deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_deadline_is_over_only_after_it_is_confirmed() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut deadlines = Deadlines::default();
        assert!(deadlines.set(1, Wait::Answer, Duration::from_secs(2), start));
        assert_eq!(deadlines.arm(), Some(after(2000)));
        assert!(!deadlines.set(2, Wait::Start, Duration::from_secs(5), start));
        assert!(deadlines.due(after(1999)).is_none());
        assert!(deadlines.due(after(2000)).is_none(), "not yet confirmed");
        assert_eq!(deadlines.arm(), Some(after(3000)));
        let (channel, deadline) = deadlines.due(after(3001)).unwrap();
        assert_eq!((channel, deadline.wait), (1, Wait::Answer));
        assert_eq!(deadlines.arm(), Some(after(5000)));
        deadlines.clear(2);
        assert_eq!(deadlines.arm(), None);
    }

    #[test]
    fn d3_stopped_host_extends_deadlines() {
        let start = Instant::now();
        let after = |s| start + Duration::from_secs(s);
        let mut deadlines = Deadlines::default();
        let _ = deadlines.set(1, Wait::Answer, Duration::from_secs(2), start);
        assert!(deadlines.due(after(100)).is_none());
        assert!(deadlines.due(after(200)).is_none(), "stopped once more");
        assert!(deadlines.due(after(201)).is_some());
    }

    #[test]
    fn d3_slow_reader_extends_deadlines_up_to_a_bound() {
        let start = Instant::now();
        let mut deadlines = Deadlines::default();
        let _ = deadlines.set(1, Wait::Exit, Duration::ZERO, start);
        assert!(deadlines.due(start).is_none());
        let (mut now, mut received) = (start + CONFIRM, 1000);
        loop {
            let (channel, deadline) = deadlines.due(now).unwrap();
            if !deadlines.excuse(channel, deadline, received, now) {
                break;
            }
            received += KEPT_OUTPUT / 4;
            now += KILL_GRACE;
            assert!(deadlines.due(now).is_none());
            now += CONFIRM;
        }
        assert!(received > KEPT_OUTPUT && received < 2 * KEPT_OUTPUT);
    }

    #[test]
    fn d3_slow_machine_has_longer_limits() {
        let usual = Limits::new(Duration::from_secs(30));
        assert_eq!((usual.start, usual.answer, usual.grace), (START, ANSWER, TIMEOUT_GRACE));
        let long = Duration::from_secs(300);
        let slow = Limits::new(long);
        assert_eq!((slow.start, slow.answer, slow.grace), (long, long, long));
    }
}
