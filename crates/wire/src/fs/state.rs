//! State machine for an agent's messages about one operation on files.
//!
//! ```text
//!               FsOpened             FsReply, FsError, Lost
//!  Announcing ------------> Open --------------------------> Ended
//!       |                                                      ^
//!       |  FsError, Lost                                       |
//!       +------------------------------------------------------+
//! ```
//!
//! An operation that is announced starts in `Announcing`, any other in `Open`.

use super::frame::FsMessage;
use super::request::FsOp;
use crate::message::Message;

/// The state of an operation, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsState {
    /// Requested; `FsOpened` comes first.
    Announcing,
    /// Under way.
    Open {
        /// Whether the agent may send data.
        data: bool,
    },
    /// Ended: no more messages.
    Ended,
}

/// An input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsInput {
    /// The operation begins.
    Opened,
    /// Bytes.
    Data,
    /// A grant of credit for data to the agent.
    Credit,
    /// It succeeded.
    Reply,
    /// It failed.
    Failed,
    /// The connection was lost.
    Lost,
    /// A frame of another kind of channel.
    Foreign,
}

/// The action that the host takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsAction {
    /// Deliver it.
    Deliver,
    /// Deliver it as the end of the operation; a lost connection is an error.
    DeliverLast,
    /// Apply it to the credit.
    Apply,
    /// Ignore it: it is late.
    Ignore,
    /// Report a protocol violation.
    Violation(&'static str),
}

impl FsInput {
    /// Returns the input that an agent's message is.
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Fs(FsMessage::Opened(_)) => FsInput::Opened,
            Message::Fs(FsMessage::Data(_)) => FsInput::Data,
            Message::Fs(FsMessage::Reply(_)) => FsInput::Reply,
            Message::Fs(FsMessage::Failed(_)) => FsInput::Failed,
            Message::Credit(_) => FsInput::Credit,
            _ => FsInput::Foreign,
        }
    }
}

impl FsState {
    /// Returns the state of an operation that was requested.
    pub const fn new(op: &FsOp) -> FsState {
        match op.is_announced() {
            true => FsState::Announcing,
            false => FsState::Open { data: op.sends_data() },
        }
    }

    /// Returns the next state and the action. A violation leaves the state unchanged.
    pub fn on(self, input: FsInput) -> (FsState, FsAction) {
        use FsAction::{Apply, Deliver, DeliverLast, Ignore, Violation};
        use FsState::{Announcing, Ended, Open};
        match (self, input) {
            (Ended, FsInput::Lost | FsInput::Credit) => (Ended, Ignore),
            (Ended, _) => (Ended, Violation("a frame after the end")),
            (_, FsInput::Lost | FsInput::Failed) => (Ended, DeliverLast),
            (state, FsInput::Credit) => (state, Apply),
            (state, FsInput::Foreign) => (state, Violation("a frame of another kind of channel")),

            (Announcing, FsInput::Opened) => (Open { data: true }, Deliver),
            (Announcing, _) => (Announcing, Violation("a frame before the operation began")),

            (Open { data: true }, FsInput::Data) => (self, Deliver),
            (Open { .. }, FsInput::Reply) => (Ended, DeliverLast),
            (Open { .. }, FsInput::Opened) => (self, Violation("a second beginning")),
            (Open { .. }, FsInput::Data) => (self, Violation("data that was not requested")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INPUTS: [FsInput; 7] = [
        FsInput::Opened,
        FsInput::Data,
        FsInput::Credit,
        FsInput::Reply,
        FsInput::Failed,
        FsInput::Lost,
        FsInput::Foreign,
    ];

    fn actions(mut state: FsState, inputs: &[FsInput]) -> Vec<FsAction> {
        let step = |input: &FsInput| {
            let (next, action) = state.on(*input);
            state = next;
            action
        };
        inputs.iter().map(step).collect()
    }

    #[test]
    fn k3_valid_sequences_are_delivered() {
        use FsAction::{Apply, Deliver, DeliverLast, Ignore};
        use FsInput::{Credit, Data, Failed, Lost, Opened, Reply};
        let (announced, plain) = (FsState::Announcing, FsState::Open { data: false });
        let table: [(FsState, &[FsInput], &[FsAction]); 5] = [
            (announced, &[Opened, Data, Data, Reply], &[Deliver, Deliver, Deliver, DeliverLast]),
            (announced, &[Failed, Lost], &[DeliverLast, Ignore]),
            (announced, &[Opened, Data, Failed], &[Deliver, Deliver, DeliverLast]),
            (plain, &[Credit, Reply, Credit], &[Apply, DeliverLast, Ignore]),
            (plain, &[Lost], &[DeliverLast]),
        ];
        for (state, inputs, expected) in table {
            assert_eq!(actions(state, inputs), expected, "{inputs:?}");
        }
    }

    #[test]
    fn k3_sequences_out_of_order_are_violations() {
        use FsInput::{Data, Foreign, Opened, Reply};
        let (announced, plain) = (FsState::Announcing, FsState::Open { data: false });
        let table: [(FsState, &[FsInput]); 8] = [
            (announced, &[Data]),
            (announced, &[Reply]),
            (announced, &[Opened, Opened]),
            (announced, &[Foreign]),
            (announced, &[Opened, Reply, Data]),
            (plain, &[Data]),
            (plain, &[Opened]),
            (plain, &[Reply, Reply]),
        ];
        for (state, inputs) in table {
            let last = *actions(state, inputs).last().unwrap();
            assert!(matches!(last, FsAction::Violation(_)), "{inputs:?}");
        }
    }

    proptest! {
        #[test]
        fn k3_any_input_gives_one_end_and_nothing_after(
            first in proptest::sample::select(vec![
                FsState::Announcing,
                FsState::Open { data: true },
                FsState::Open { data: false },
            ]),
            inputs in proptest::collection::vec(proptest::sample::select(INPUTS.to_vec()), 0..40)
        ) {
            let (mut state, mut ends) = (first, 0);
            for input in inputs {
                let (next, action) = state.on(input);
                if let FsAction::Violation(_) = action {
                    prop_assert_eq!(next, state, "a violation changes nothing");
                }
                let delivered = matches!(action, FsAction::Deliver | FsAction::DeliverLast);
                prop_assert!(ends == 0 || !delivered, "a delivery after the end");
                ends += usize::from(action == FsAction::DeliverLast);
                prop_assert_eq!(ends == 1, next == FsState::Ended);
                state = next;
            }
            prop_assert_eq!(state.on(FsInput::Lost).0, FsState::Ended);
        }
    }
}
