//! State machine for an agent's messages about one command.
//!
//! ```text
//!  Joining
//!     | Attached
//!     +------------------+
//!            Started     v       Exited             End
//!  Opening ----------> Running ----------> Draining ----------> Ended
//!     |                   |                    |                  ^
//!     | Failed, Lost      | Lost               | Lost             |
//!     +-------------------+--------------------+------------------+
//! ```
//!
//! A new command starts in `Opening`, an attached session in `Joining`. `Failed` and `Lost` end
//! both in the same way.

use crate::message::Message;

/// The state of a command, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Requested; no message yet.
    Opening,
    /// Attach requested; no message yet.
    Joining,
    /// Running.
    Running,
    /// Exited; other processes may still write to its output.
    Draining,
    /// Ended: no more messages.
    Ended,
}

/// An input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecInput {
    /// The command runs.
    Started,
    /// The channel follows the session.
    Attached,
    /// Bytes of an output.
    Output,
    /// The command stopped reading its input.
    StdinError,
    /// A grant of credit for input.
    StdinCredit,
    /// The command exited.
    Exited,
    /// The command never started.
    Failed,
    /// No more output.
    End,
    /// The connection was lost.
    Lost,
    /// A frame of another kind of channel.
    Foreign,
}

impl ExecInput {
    /// Returns the input that an agent's message is.
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Started(_) => ExecInput::Started,
            Message::Attached(_) => ExecInput::Attached,
            Message::Stdout(_) | Message::Stderr(_) => ExecInput::Output,
            Message::StdinError(_) => ExecInput::StdinError,
            Message::Credit(_) => ExecInput::StdinCredit,
            Message::Exited(_) => ExecInput::Exited,
            Message::Failed(_) => ExecInput::Failed,
            Message::End(_) => ExecInput::End,
            _ => ExecInput::Foreign,
        }
    }
}

/// The action that the reader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecAction {
    /// Deliver it as an event.
    Deliver,
    /// Deliver it as the last event.
    DeliverLast,
    /// End the stream of events.
    Finish,
    /// Apply it; it is no event.
    Apply,
    /// Ignore it: it is late.
    Ignore,
    /// Report a protocol violation.
    Violation(&'static str),
}

impl ExecState {
    /// Returns the next state and the action. A violation leaves the state unchanged.
    pub fn on(self, input: ExecInput) -> (ExecState, ExecAction) {
        use ExecAction::{Apply, Deliver, DeliverLast, Finish, Ignore, Violation};
        use ExecState::{Draining, Ended, Joining, Opening, Running};
        match (self, input) {
            // Exactly one event reports how a command ended: after an exit, a lost connection only
            // ends the output.
            (Opening | Joining | Running, ExecInput::Lost) => (Ended, DeliverLast),
            (Draining, ExecInput::Lost) => (Ended, Finish),
            (Ended, ExecInput::Lost) => (Ended, Ignore),
            (state, ExecInput::Foreign) => (state, Violation("a frame of another kind of channel")),

            (Opening, ExecInput::Started) => (Running, Deliver),
            (Opening, ExecInput::Failed) => (Ended, DeliverLast),
            (Opening, ExecInput::StdinCredit) => (Opening, Apply),
            (Opening, _) => (Opening, Violation("a frame before the start")),

            (Joining, ExecInput::Attached) => (Running, Deliver),
            (Joining, ExecInput::Failed) => (Ended, DeliverLast),
            (Joining, _) => (Joining, Violation("a frame before the session was joined")),

            (Running, ExecInput::Output | ExecInput::StdinError) => (Running, Deliver),
            (Running, ExecInput::StdinCredit) => (Running, Apply),
            (Running, ExecInput::Exited) => (Draining, Deliver),
            (Running, ExecInput::Started) => (Running, Violation("a second start")),
            (Running, ExecInput::Attached) => (Running, Violation("a join after the start")),
            (Running, ExecInput::Failed) => {
                (Running, Violation("a failure to start after the start"))
            }
            (Running, ExecInput::End) => (Running, Violation("an end of output before the exit")),

            (Draining, ExecInput::Output) => (Draining, Deliver),
            // The agent sent these before it saw the exit.
            (Draining, ExecInput::StdinError | ExecInput::StdinCredit) => (Draining, Ignore),
            (Draining, ExecInput::End) => (Ended, Finish),
            (Draining, ExecInput::Started) => (Draining, Violation("a start after the exit")),
            (Draining, ExecInput::Attached) => (Draining, Violation("a join after the exit")),
            (Draining, ExecInput::Exited) => (Draining, Violation("a second exit")),
            (Draining, ExecInput::Failed) => {
                (Draining, Violation("a failure to start after the exit"))
            }

            (Ended, ExecInput::StdinCredit) => (Ended, Ignore),
            (Ended, _) => (Ended, Violation("a frame after the end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUTS: [ExecInput; 10] = [
        ExecInput::Started,
        ExecInput::Attached,
        ExecInput::Output,
        ExecInput::StdinError,
        ExecInput::StdinCredit,
        ExecInput::Exited,
        ExecInput::Failed,
        ExecInput::End,
        ExecInput::Lost,
        ExecInput::Foreign,
    ];

    fn actions(inputs: &[ExecInput]) -> Vec<ExecAction> {
        actions_from(ExecState::Opening, inputs)
    }

    fn actions_from(mut state: ExecState, inputs: &[ExecInput]) -> Vec<ExecAction> {
        let step = |input: &ExecInput| {
            let (next, action) = state.on(*input);
            state = next;
            action
        };
        inputs.iter().map(step).collect()
    }

    #[test]
    fn b1_valid_sequences_are_delivered() {
        use ExecAction::{Deliver, DeliverLast, Finish, Ignore};
        use ExecInput::{End, Exited, Failed, Lost, Output, Started, StdinError};
        let table: [(&[ExecInput], &[ExecAction]); 5] = [
            (
                &[Started, Output, StdinError, Exited, Output, End],
                &[Deliver, Deliver, Deliver, Deliver, Deliver, Finish],
            ),
            (&[Failed, Lost], &[DeliverLast, Ignore]),
            (&[Lost, Lost], &[DeliverLast, Ignore]),
            (&[Started, Lost], &[Deliver, DeliverLast]),
            (&[Started, Exited, Lost], &[Deliver, Deliver, Finish]),
        ];
        for (inputs, expected) in table {
            assert_eq!(actions(inputs), expected, "{inputs:?}");
        }
    }

    #[test]
    fn b1_sequences_out_of_order_are_violations() {
        use ExecInput::{End, Exited, Failed, Foreign, Output, Started, StdinError};
        let table: [&[ExecInput]; 11] = [
            &[Output],
            &[Exited],
            &[End],
            &[StdinError],
            &[Foreign],
            &[Started, Started],
            &[Started, Failed],
            &[Started, End],
            &[Started, Exited, Exited],
            &[Failed, Started],
            &[Started, Exited, End, Output],
        ];
        for inputs in table {
            let last = *actions(inputs).last().unwrap();
            assert!(matches!(last, ExecAction::Violation(_)), "{inputs:?}");
        }
    }

    #[test]
    fn d5_attached_session_starts_with_attached() {
        use ExecAction::{Deliver, DeliverLast, Finish};
        use ExecInput::{Attached, End, Exited, Failed, Lost, Output, Started};
        let table: [(&[ExecInput], &[ExecAction]); 4] = [
            (&[Attached, Output, Exited, End], &[Deliver, Deliver, Deliver, Finish]),
            (&[Attached, Lost], &[Deliver, DeliverLast]),
            (&[Failed], &[DeliverLast]),
            (&[Lost], &[DeliverLast]),
        ];
        for (inputs, expected) in table {
            assert_eq!(actions_from(ExecState::Joining, inputs), expected, "{inputs:?}");
        }
        let wrong: [&[ExecInput]; 5] = [
            &[Output],
            &[Started],
            &[Attached, Started],
            &[Attached, Attached],
            &[Attached, Exited, Attached],
        ];
        for inputs in wrong {
            let last = *actions_from(ExecState::Joining, inputs).last().unwrap();
            assert!(matches!(last, ExecAction::Violation(_)), "{inputs:?}");
        }
        assert!(matches!(actions(&[Attached]).as_slice(), [ExecAction::Violation(_)]));
    }

    proptest! {
        #[test]
        fn b1_any_input_gives_one_start_one_end_and_nothing_after(
            joins: bool,
            inputs in proptest::collection::vec(proptest::sample::select(INPUTS.to_vec()), 0..40)
        ) {
            let first = if joins { ExecState::Joining } else { ExecState::Opening };
            let (mut state, mut starts, mut endings, mut over) = (first, 0, 0, false);
            for input in inputs {
                let (next, action) = state.on(input);
                if let ExecAction::Violation(_) = action {
                    prop_assert_eq!(next, state, "a violation changes nothing");
                }
                let delivered = matches!(action, ExecAction::Deliver | ExecAction::DeliverLast);
                prop_assert!(!(over && delivered), "an event after the end");
                if delivered {
                    match input {
                        ExecInput::Started | ExecInput::Attached => {
                            prop_assert_eq!((starts, endings), (0, 0));
                            starts += 1;
                        }
                        ExecInput::Exited | ExecInput::Failed | ExecInput::Lost => endings += 1,
                        ExecInput::StdinError => prop_assert_eq!((starts, endings), (1, 0)),
                        _ => prop_assert_eq!(starts, 1),
                    }
                }
                over |= matches!(action, ExecAction::DeliverLast | ExecAction::Finish);
                prop_assert_eq!(over, next == ExecState::Ended);
                state = next;
            }
            prop_assert!(endings <= 1);
            let (last, _) = state.on(ExecInput::Lost);
            prop_assert_eq!(last, ExecState::Ended, "a lost connection ends every state");
        }
    }
}
