//! State machine for the output of a session: when exit and end of output are reported.
//!
//! ```text
//!            exited, bytes owed                  all owed bytes read
//!  Running ───────────────────────> Settling ─────────────────────────> Draining ──> Ended
//!     │                                                                    ^           ^
//!     └──────────────── exited, nothing owed ──────────────────────────────┘           │
//!                              (both outputs at end of file, or the drain time over) ──┘
//! ```
//!
//! *Owed* are the bytes in the pipes when the process exited: everything that it wrote itself.
//! Entering `Draining` reports the exit; entering `Ended` reports the end of output.

use msb_wire::OutputStream;

/// The state of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Open; `owed` bytes precede the exit.
    Open { owed: u64 },
    /// At end of file.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Settling,
    Draining,
    Ended,
}

/// An input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The process exited with this many bytes pending on stdout and stderr.
    Exited { pending: [u64; 2] },
    /// Bytes were read.
    Read(OutputStream, u64),
    /// An output has no bytes now.
    Empty(OutputStream),
    /// An output is at end of file.
    Eof(OutputStream),
    /// The drain time since the exit has passed.
    DrainTimeOver,
}

/// What to report, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Actions {
    /// The exit of the process.
    pub(crate) exited: bool,
    /// The end of output, and whether a writer is left.
    pub(crate) end: Option<bool>,
}

/// The state of a session's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputState {
    phase: Phase,
    outputs: [Output; 2],
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

impl OutputState {
    /// Creates the state of a running process. A terminal has one output only.
    pub(crate) fn new(terminal: bool) -> OutputState {
        let open = Output::Open { owed: 0 };
        let second = if terminal { Output::Closed } else { open };
        OutputState { phase: Phase::Running, outputs: [open, second] }
    }

    /// Returns whether the output may be read.
    pub(crate) fn wants(&self, stream: OutputStream) -> bool {
        let output = self.outputs.get(index(stream));
        match (self.phase, output) {
            (Phase::Running | Phase::Draining, Some(Output::Open { .. })) => true,
            (Phase::Settling, Some(Output::Open { owed })) => *owed > 0,
            _ => false,
        }
    }

    /// Returns how many bytes may be read from an output at once: never beyond the exit.
    pub(crate) fn may_read(&self, stream: OutputStream, at_most: usize) -> usize {
        match (self.phase, self.outputs.get(index(stream))) {
            (Phase::Settling, Some(Output::Open { owed })) => {
                usize::try_from(*owed).map_or(at_most, |owed| owed.min(at_most))
            }
            _ => at_most,
        }
    }

    /// Returns whether the process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Returns whether the exit was reported.
    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Ended)
    }

    /// Returns whether the end of output was reported.
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Applies an input.
    pub(crate) fn on(mut self, input: Input) -> (OutputState, Actions) {
        match input {
            // Running -> Settling
            Input::Exited { pending } if self.phase == Phase::Running => {
                self.phase = Phase::Settling;
                for (output, pending) in self.outputs.iter_mut().zip(pending) {
                    if let Output::Open { owed } = output {
                        *owed = pending;
                    }
                }
            }
            Input::Exited { .. } => {}
            Input::Read(stream, count) => {
                if let Some(Output::Open { owed }) = self.outputs.get_mut(index(stream)) {
                    *owed = owed.saturating_sub(count);
                }
            }
            // Less than expected: a process in the sandbox read it first.
            Input::Empty(stream) => {
                if let Some(Output::Open { owed }) = self.outputs.get_mut(index(stream)) {
                    *owed = 0;
                }
            }
            Input::Eof(stream) => {
                if let Some(output) = self.outputs.get_mut(index(stream)) {
                    *output = Output::Closed;
                }
            }
            // Draining -> Ended, if a writer is left
            Input::DrainTimeOver if self.phase == Phase::Draining => {
                let writer_left = self.outputs.iter().any(|output| *output != Output::Closed);
                self.phase = Phase::Ended;
                return (self, Actions { exited: false, end: Some(writer_left) });
            }
            Input::DrainTimeOver => {}
        }
        self.advance()
    }

    fn advance(mut self) -> (OutputState, Actions) {
        let mut actions = Actions::default();
        let owed = |output: &Output| matches!(output, Output::Open { owed } if *owed > 0);
        // Settling -> Draining
        if self.phase == Phase::Settling && !self.outputs.iter().any(owed) {
            self.phase = Phase::Draining;
            actions.exited = true;
        }
        // Draining -> Ended
        if self.phase == Phase::Draining && self.outputs == [Output::Closed; 2] {
            self.phase = Phase::Ended;
            actions.end = Some(false);
        }
        (self, actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};
    use proptest::prelude::*;

    fn run(terminal: bool, inputs: &[Input]) -> (OutputState, Vec<Actions>) {
        let mut state = OutputState::new(terminal);
        let mut reported = Vec::new();
        for input in inputs {
            let (next, actions) = state.on(*input);
            state = next;
            reported.push(actions);
        }
        (state, reported)
    }

    const NOTHING: Actions = Actions { exited: false, end: None };
    const EXITED: Actions = Actions { exited: true, end: None };

    #[test]
    fn exit_with_closed_empty_pipes_reports_all_at_once() {
        let (_, reported) = run(
            false,
            &[Input::Eof(Stdout), Input::Eof(Stderr), Input::Exited { pending: [0; 2] }],
        );
        assert_eq!(reported, [NOTHING, NOTHING, Actions { exited: true, end: Some(false) }]);
    }

    #[test]
    fn exit_waits_for_owed_bytes_only() {
        let (state, reported) = run(
            false,
            &[
                Input::Exited { pending: [10, 5] },
                Input::Read(Stdout, 10),
                Input::Read(Stderr, 4),
                Input::Read(Stderr, 1),
            ],
        );
        assert_eq!(reported, [NOTHING, NOTHING, NOTHING, EXITED]);
        assert!(state.wants(Stdout) && state.wants(Stderr) && state.has_exited());
    }

    #[test]
    fn reads_no_more_than_the_owed_bytes() {
        let (state, _) = run(false, &[Input::Exited { pending: [10, 0] }]);
        assert_eq!(state.may_read(Stdout, 4096), 10);
        assert!(state.wants(Stdout) && !state.wants(Stderr));
    }

    #[test]
    fn remaining_writer_is_flagged_after_the_drain_time() {
        let (state, reported) = run(
            false,
            &[Input::Exited { pending: [0; 2] }, Input::Eof(Stderr), Input::DrainTimeOver],
        );
        assert_eq!(reported, [EXITED, NOTHING, Actions { exited: false, end: Some(true) }]);
        assert!(state.has_ended() && !state.wants(Stdout));
    }

    #[test]
    fn end_of_both_outputs_is_no_exit() {
        let (state, reported) = run(false, &[Input::Eof(Stdout), Input::Eof(Stderr)]);
        assert_eq!(reported, [NOTHING, NOTHING]);
        assert!(!state.has_exited());
    }

    #[test]
    fn terminal_has_one_output() {
        let (_, reported) = run(true, &[Input::Exited { pending: [0; 2] }, Input::Eof(Stdout)]);
        assert_eq!(reported, [EXITED, Actions { exited: false, end: Some(false) }]);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        let stream = prop_oneof![Just(Stdout), Just(Stderr)];
        prop_oneof![
            [0u64..100, 0u64..100].prop_map(|pending| Input::Exited { pending }),
            (stream.clone(), 0u64..60).prop_map(|(stream, n)| Input::Read(stream, n)),
            stream.clone().prop_map(Input::Empty),
            stream.prop_map(Input::Eof),
            Just(Input::DrainTimeOver),
        ]
    }

    proptest! {
        #[test]
        fn any_input_reports_one_exit_then_one_end(
            inputs in proptest::collection::vec(any_input(), 0..200), terminal: bool,
        ) {
            let (state, reported) = run(terminal, &inputs);
            let exits: Vec<usize> =
                (0..reported.len()).filter(|i| reported[*i].exited).collect();
            let ends: Vec<usize> =
                (0..reported.len()).filter(|i| reported[*i].end.is_some()).collect();
            prop_assert!(exits.len() <= 1 && ends.len() <= 1);
            prop_assert_eq!(exits.len() == 1, state.has_exited());
            prop_assert_eq!(ends.len() == 1, state.has_ended());
            if let Some(end) = ends.first() {
                prop_assert!(exits[0] <= *end);
            }
            let exited = inputs.iter().any(|i| matches!(i, Input::Exited { .. }));
            prop_assert!(exited || exits.is_empty());
        }
    }
}
