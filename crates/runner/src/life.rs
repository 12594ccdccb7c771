//! The life of a booted sandbox, as a pure state machine.
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
//!                           finished
//! ```

use msb_state::Reason;
use std::time::Duration;

/// Grace period of the processes of an idle sandbox.
const IDLE_GRACE: Duration = Duration::from_secs(2);

/// The state of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Running,
    /// The agent got the request to shut down.
    Stopping(Reason),
    /// The machine has been killed.
    Ending(Reason),
}

/// What happens to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A client requested a graceful shutdown.
    Stop(Duration),
    /// A client requested an immediate kill.
    Kill,
    /// Its creator has ended, and it is attached.
    CreatorGone,
    /// Its maximum duration has passed.
    MaxDuration,
    /// It has been idle for too long.
    Idle,
    /// The runner got a signal to end.
    Terminated,
    /// The agent no longer answers.
    Hung,
    /// The grace period has passed, or the agent is unreachable.
    GraceOver,
    /// The machine has exited.
    Exited {
        /// For users.
        detail: String,
        /// Whether it exited by itself and without an error.
        orderly: bool,
    },
}

/// What the supervisor does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    None,
    /// Ask the agent to shut down within this time.
    AskAgent(Duration),
    /// Kill the machine.
    Kill,
    /// Clean up and report this reason.
    Finish(Reason, Option<String>),
}

impl State {
    /// Returns the next state and the action for an input.
    pub(crate) fn on(self, input: Input) -> (State, Action) {
        use State::{Ending, Running, Stopping};
        match (self, input) {
            // Running ─Exited─▶ finished
            (Running, Input::Exited { detail, .. }) => {
                (self, Action::Finish(Reason::Crashed, Some(detail)))
            }
            // Stopping ─Exited─▶ finished: it may crash during the shutdown.
            (Stopping(_), Input::Exited { detail, orderly: false }) => {
                (self, Action::Finish(Reason::Crashed, Some(detail)))
            }
            // Stopping, Ending ─Exited─▶ finished
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
            // The first request to stop counts; without a grace period none can be over.
            (Stopping(_), Input::Stop(_) | Input::Idle) | (Running, Input::GraceOver) => {
                (self, Action::None)
            }
        }
    }

    /// Returns whether an input can still change the outcome.
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
    fn crash_during_shutdown_is_a_crash() {
        let crashed = Input::Exited { detail: "signal 9".to_owned(), orderly: false };
        for state in [State::Running, State::Stopping(Reason::Stopped)] {
            let (_, action) = state.on(crashed.clone());
            assert_eq!(action, Action::Finish(Reason::Crashed, Some("signal 9".to_owned())));
        }
        // A kill is never orderly.
        let (_, action) = State::Ending(Reason::Stopped).on(crashed);
        assert_eq!(action, Action::Finish(Reason::Stopped, None));
    }

    #[test]
    fn unrequested_exit_is_a_crash() {
        let (_, action) = State::Running.on(exited());
        assert_eq!(action, Action::Finish(Reason::Crashed, Some("x".to_owned())));
    }

    #[test]
    fn stop_asks_first_and_kills_after_the_grace_period() {
        let grace = Duration::from_secs(3);
        let (state, action) = State::Running.on(Input::Stop(grace));
        assert_eq!(action, Action::AskAgent(grace));
        assert_eq!(state.on(exited()).1, Action::Finish(Reason::Stopped, None));
        let (state, action) = state.on(Input::GraceOver);
        assert_eq!(action, Action::Kill);
        assert_eq!(state.on(exited()).1, Action::Finish(Reason::Stopped, None));
    }

    #[test]
    fn hard_reasons_kill_once_from_every_open_state() {
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
