//! The order of an agent's messages about one command.
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
//! A command that is asked for begins in `Opening`, a session that is followed in `Joining`, which
//! `Failed` and `Lost` end in the same way.

use crate::message::Message;

/// How far a command has come, as its reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Asked for; not a word yet.
    Opening,
    /// To be followed; not a word yet.
    Joining,
    /// Started.
    Running,
    /// Exited; others may still write to its output.
    Draining,
    /// Nothing more will come.
    Ended,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecInput {
    /// The command runs.
    Started,
    /// The channel follows the session.
    Attached,
    /// Bytes of an output.
    Output,
    /// The command no longer reads its input.
    StdinError,
    /// Credit for input.
    StdinCredit,
    /// The command ended.
    Exited,
    /// The command never started.
    Failed,
    /// No more output.
    End,
    /// The connection is lost.
    Lost,
    /// A frame that belongs to another kind of channel.
    Foreign,
}

impl ExecInput {
    /// Returns what a message of the agent is to the state.
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

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecAction {
    /// It becomes an event.
    Deliver,
    /// It becomes an event, and the stream ends behind it.
    DeliverLast,
    /// The stream ends.
    Finish,
    /// It counts, but makes no event.
    Apply,
    /// It came too late to matter.
    Ignore,
    /// The agent broke a rule.
    Violation(&'static str),
}

impl ExecState {
    /// Returns the next state and what to do. A broken rule leaves the state as it is.
    pub fn on(self, input: ExecInput) -> (ExecState, ExecAction) {
        use ExecAction::{Apply, Deliver, DeliverLast, Finish, Ignore, Violation};
        use ExecState::{Draining, Ended, Joining, Opening, Running};
        match (self, input) {
            // The ending of a command is told once: after an exit, a lost connection only cuts
            // off what others might have written.
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
            // Both may cross the exit on their way.
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

    fn actions_from(mut machine: ExecState, inputs: &[ExecInput]) -> Vec<ExecAction> {
        let step = |input: &ExecInput| {
            let (next, action) = machine.on(*input);
            machine = next;
            action
        };
        inputs.iter().map(step).collect()
    }

    #[test]
    fn b1_the_usual_stories_are_told_as_they_are() {
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
    fn b1_every_story_out_of_order_is_refused() {
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
    fn d5_a_session_that_is_followed_begins_by_being_joined_and_goes_on_like_any_other() {
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
        fn b1_whatever_comes_there_is_one_start_one_ending_and_nothing_behind_it(
            joins: bool,
            inputs in proptest::collection::vec(proptest::sample::select(INPUTS.to_vec()), 0..40)
        ) {
            let first = if joins { ExecState::Joining } else { ExecState::Opening };
            let (mut machine, mut starts, mut endings, mut over) = (first, 0, 0, false);
            for input in inputs {
                let (next, action) = machine.on(input);
                if let ExecAction::Violation(_) = action {
                    prop_assert_eq!(next, machine, "a broken rule changes nothing");
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
                machine = next;
            }
            prop_assert!(endings <= 1);
            let (last, _) = machine.on(ExecInput::Lost);
            prop_assert_eq!(last, ExecState::Ended, "a lost connection ends every story");
        }
    }
}
