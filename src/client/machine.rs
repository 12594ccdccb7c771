//! The order in which an agent may tell about one command.
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

/// How far the story of a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
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
pub(crate) enum Input {
    Started,
    Attached,
    Output,
    StdinError,
    StdinCredit,
    Exited,
    Failed,
    End,
    /// The connection is lost.
    Lost,
    /// A frame that belongs to another kind of channel.
    Foreign,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
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

impl Machine {
    pub(crate) fn on(self, input: Input) -> (Machine, Action) {
        use Action::{Apply, Deliver, DeliverLast, Finish, Ignore, Violation};
        use Machine::{Draining, Ended, Joining, Opening, Running};
        match (self, input) {
            // The ending of a command is told once: after an exit, a lost connection only cuts
            // off what others might have written.
            (Opening | Joining | Running, Input::Lost) => (Ended, DeliverLast),
            (Draining, Input::Lost) => (Ended, Finish),
            (Ended, Input::Lost) => (Ended, Ignore),
            (state, Input::Foreign) => (state, Violation("a frame of another kind of channel")),

            (Opening, Input::Started) => (Running, Deliver),
            (Opening, Input::Failed) => (Ended, DeliverLast),
            (Opening, Input::StdinCredit) => (Opening, Apply),
            (Opening, _) => (Opening, Violation("a frame before the start")),

            (Joining, Input::Attached) => (Running, Deliver),
            (Joining, Input::Failed) => (Ended, DeliverLast),
            (Joining, _) => (Joining, Violation("a frame before the session was joined")),

            (Running, Input::Output | Input::StdinError) => (Running, Deliver),
            (Running, Input::StdinCredit) => (Running, Apply),
            (Running, Input::Exited) => (Draining, Deliver),
            (Running, Input::Started) => (Running, Violation("a second start")),
            (Running, Input::Attached) => (Running, Violation("a join after the start")),
            (Running, Input::Failed) => (Running, Violation("a failure to start after the start")),
            (Running, Input::End) => (Running, Violation("an end of output before the exit")),

            (Draining, Input::Output) => (Draining, Deliver),
            // Both may cross the exit on their way.
            (Draining, Input::StdinError | Input::StdinCredit) => (Draining, Ignore),
            (Draining, Input::End) => (Ended, Finish),
            (Draining, Input::Started) => (Draining, Violation("a start after the exit")),
            (Draining, Input::Attached) => (Draining, Violation("a join after the exit")),
            (Draining, Input::Exited) => (Draining, Violation("a second exit")),
            (Draining, Input::Failed) => (Draining, Violation("a failure to start after the exit")),

            (Ended, Input::StdinCredit) => (Ended, Ignore),
            (Ended, _) => (Ended, Violation("a frame after the end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUTS: [Input; 10] = [
        Input::Started,
        Input::Attached,
        Input::Output,
        Input::StdinError,
        Input::StdinCredit,
        Input::Exited,
        Input::Failed,
        Input::End,
        Input::Lost,
        Input::Foreign,
    ];

    fn actions(inputs: &[Input]) -> Vec<Action> {
        actions_from(Machine::Opening, inputs)
    }

    fn actions_from(mut machine: Machine, inputs: &[Input]) -> Vec<Action> {
        let step = |input: &Input| {
            let (next, action) = machine.on(*input);
            machine = next;
            action
        };
        inputs.iter().map(step).collect()
    }

    #[test]
    fn b1_the_usual_stories_are_told_as_they_are() {
        use Action::{Deliver, DeliverLast, Finish, Ignore};
        use Input::{End, Exited, Failed, Lost, Output, Started, StdinError};
        let table: [(&[Input], &[Action]); 5] = [
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
        use Input::{End, Exited, Failed, Foreign, Output, Started, StdinError};
        let table: [&[Input]; 11] = [
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
            assert!(matches!(last, Action::Violation(_)), "{inputs:?}");
        }
    }

    #[test]
    fn d5_a_session_that_is_followed_begins_by_being_joined_and_goes_on_like_any_other() {
        use Action::{Deliver, DeliverLast, Finish};
        use Input::{Attached, End, Exited, Failed, Lost, Output, Started};
        let table: [(&[Input], &[Action]); 4] = [
            (&[Attached, Output, Exited, End], &[Deliver, Deliver, Deliver, Finish]),
            (&[Attached, Lost], &[Deliver, DeliverLast]),
            (&[Failed], &[DeliverLast]),
            (&[Lost], &[DeliverLast]),
        ];
        for (inputs, expected) in table {
            assert_eq!(actions_from(Machine::Joining, inputs), expected, "{inputs:?}");
        }
        let wrong: [&[Input]; 5] = [
            &[Output],
            &[Started],
            &[Attached, Started],
            &[Attached, Attached],
            &[Attached, Exited, Attached],
        ];
        for inputs in wrong {
            let last = *actions_from(Machine::Joining, inputs).last().unwrap();
            assert!(matches!(last, Action::Violation(_)), "{inputs:?}");
        }
        assert!(matches!(actions(&[Attached])[0], Action::Violation(_)));
    }

    proptest! {
        #[test]
        fn b1_whatever_comes_there_is_one_start_one_ending_and_nothing_behind_it(
            joins: bool,
            picks in proptest::collection::vec(0..INPUTS.len(), 0..40)
        ) {
            let first = if joins { Machine::Joining } else { Machine::Opening };
            let (mut machine, mut starts, mut endings, mut over) = (first, 0, 0, false);
            for pick in picks {
                let input = INPUTS[pick];
                let (next, action) = machine.on(input);
                if let Action::Violation(_) = action {
                    prop_assert_eq!(next, machine, "a broken rule changes nothing");
                }
                let delivered = matches!(action, Action::Deliver | Action::DeliverLast);
                prop_assert!(!(over && delivered), "an event after the end");
                if delivered {
                    match input {
                        Input::Started | Input::Attached => {
                            prop_assert_eq!((starts, endings), (0, 0));
                            starts += 1;
                        }
                        Input::Exited | Input::Failed | Input::Lost => endings += 1,
                        Input::StdinError => prop_assert_eq!((starts, endings), (1, 0)),
                        _ => prop_assert_eq!(starts, 1),
                    }
                }
                over |= matches!(action, Action::DeliverLast | Action::Finish);
                prop_assert_eq!(over, next == Machine::Ended);
                machine = next;
            }
            prop_assert!(endings <= 1);
            let (last, _) = machine.on(Input::Lost);
            prop_assert_eq!(last, Machine::Ended, "a lost connection ends every story");
        }
    }
}
