//! The life of a sandbox that has come up, as a pure state machine.
//!
//! ```text
//!            Stop, Idle                  Grace over
//!  Running ──────────────▶ Stopping ────────────────▶ Ending
//!     │   Kill, CreatorGone,  │   Kill, CreatorGone,    │
//!     │   MaxDuration, Term,  │   MaxDuration, Term,    │
//!     │   Hung                │   Hung                  │
//!     ├───────────────────────┼────────────────────────▶│
//!     │ Exited: crashed       │ Exited: its reason,     │ Exited: its reason
//!     │                       │ crashed if disorderly   │
//!     ▼                       ▼                         ▼
//!                            the end
//! ```

use msb_state::Reason;
use std::time::Duration;

/// How long processes have to end by themselves when nobody is there to choose it.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing has been said about its end.
    Running,
    /// The agent has been asked to end everything.
    Stopping(Reason),
    /// The machine has been killed.
    Ending(Reason),
}

/// What happens to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Someone asked for an orderly end.
    Stop(Duration),
    /// Someone asked for an immediate end.
    Kill,
    /// The process that it is attached to has ended.
    CreatorGone,
    /// Its time is over.
    MaxDuration,
    /// Nothing has run for too long.
    Idle,
    /// The system asked the runner to end.
    Terminated,
    /// The agent no longer answers.
    Hung,
    /// The time for an orderly end is over, or the agent cannot be asked.
    GraceOver,
    /// The machine has ended: how, and whether in order, as after an agent that was asked to end.
    Exited {
        /// For people.
        detail: String,
        /// Whether it ended by itself, without an error.
        orderly: bool,
    },
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Ask the agent for an orderly end within this time.
    AskAgent(Duration),
    /// Kill the machine.
    Kill,
    /// Clean up, and report this reason.
    Finish(Reason, Option<String>),
}

impl State {
    /// Takes a step.
    pub(crate) fn on(self, input: Input) -> (State, Action) {
        use State::{Ending, Running, Stopping};
        match (self, input) {
            // Running ─Exited─▶ end
            (Running, Input::Exited { detail, .. }) => {
                (self, Action::Finish(Reason::Crashed, Some(detail)))
            }
            // Stopping ─Exited─▶ end: asked to end, it may have crashed all the same.
            (Stopping(_), Input::Exited { detail, orderly: false }) => {
                (self, Action::Finish(Reason::Crashed, Some(detail)))
            }
            // Stopping, Ending ─Exited─▶ end
            (Stopping(reason) | Ending(reason), Input::Exited { .. }) => {
                (self, Action::Finish(reason, None))
            }
            // Ending ─anything else─▶ Ending
            (Ending(_), _) => (self, Action::None),
            // Running, Stopping ─Kill and the like─▶ Ending
            (_, Input::Kill | Input::Terminated) => (Ending(Reason::Killed), Action::Kill),
            (_, Input::CreatorGone) => (Ending(Reason::CreatorGone), Action::Kill),
            (_, Input::Hung) => (Ending(Reason::Crashed), Action::Kill),
            (_, Input::MaxDuration) => (Ending(Reason::MaxDuration), Action::Kill),
            // Running ─Stop, Idle─▶ Stopping
            (Running, Input::Stop(grace)) => (Stopping(Reason::Stopped), Action::AskAgent(grace)),
            (Running, Input::Idle) => (Stopping(Reason::Idle), Action::AskAgent(IDLE_GRACE)),
            // Stopping ─Grace over─▶ Ending
            (Stopping(reason), Input::GraceOver) => (Ending(reason), Action::Kill),
            // The first request to stop holds; a grace that nobody gave cannot be over.
            (Stopping(_), Input::Stop(_) | Input::Idle) | (Running, Input::GraceOver) => {
                (self, Action::None)
            }
        }
    }

    /// Whether anything can still change how it ends.
    pub(crate) fn is_open(self) -> bool {
        !matches!(self, State::Ending(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited() -> Input {
        Input::Exited { detail: "x".to_owned(), orderly: true }
    }

    #[test]
    fn a_crash_is_a_crash_also_when_an_end_was_just_asked_for() {
        let crashed = Input::Exited { detail: "signal 9".to_owned(), orderly: false };
        for state in [State::Running, State::Stopping(Reason::Stopped)] {
            let (_, action) = state.on(crashed.clone());
            assert_eq!(action, Action::Finish(Reason::Crashed, Some("signal 9".to_owned())));
        }
        // Killed by us, it cannot end in order.
        let (_, action) = State::Ending(Reason::Stopped).on(crashed);
        assert_eq!(action, Action::Finish(Reason::Stopped, None));
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_crash() {
        let (_, action) = State::Running.on(exited());
        assert_eq!(action, Action::Finish(Reason::Crashed, Some("x".to_owned())));
    }

    #[test]
    fn stop_asks_first_and_kills_when_the_grace_is_over() {
        let grace = Duration::from_secs(3);
        let (state, action) = State::Running.on(Input::Stop(grace));
        assert_eq!(action, Action::AskAgent(grace));
        assert_eq!(state.on(exited()).1, Action::Finish(Reason::Stopped, None));
        let (state, action) = state.on(Input::GraceOver);
        assert_eq!(action, Action::Kill);
        assert_eq!(state.on(exited()).1, Action::Finish(Reason::Stopped, None));
    }

    #[test]
    fn from_every_open_state_the_hard_reasons_kill_once() {
        let hard = [
            (Input::Kill, Reason::Killed),
            (Input::Terminated, Reason::Killed),
            (Input::CreatorGone, Reason::CreatorGone),
            (Input::MaxDuration, Reason::MaxDuration),
            (Input::Hung, Reason::Crashed),
        ];
        for (input, reason) in hard {
            for state in [State::Running, State::Stopping(Reason::Stopped)] {
                let (state, action) = state.on(input.clone());
                assert_eq!((state, action), (State::Ending(reason), Action::Kill));
                for again in [Input::Kill, Input::CreatorGone, Input::GraceOver, Input::Idle] {
                    assert_eq!(state.on(again), (state, Action::None));
                }
                assert_eq!(state.on(exited()).1, Action::Finish(reason, None));
            }
        }
    }
}
