//! When a session tells its end: a pure state machine.
//!
//! ```text
//!            exited, bytes owed                  all owed bytes read
//!  Running ───────────────────────> Settling ─────────────────────────> Draining ──> Ended
//!     │                                                                    ^           ^
//!     └──────────────── exited, nothing owed ──────────────────────────────┘           │
//!                              (both outputs at their end, or the drain time over) ────┘
//! ```
//!
//! *Owed* are the bytes that stood in the pipes when the process ended: all that it wrote itself.
//! `Exited` is told when they are read, so on entering `Draining`; `End` on entering `Ended`.

use msb_wire::OutputStream;

/// What one output still has to give before the exit may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Open; `owed` bytes of it belong before the exit.
    Open { owed: u64 },
    /// At its end.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Settling,
    Draining,
    Ended,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The process ended with this many bytes waiting on stdout and stderr.
    Exited { waiting: [u64; 2] },
    /// Bytes were read.
    Read(OutputStream, u64),
    /// An output has nothing more for now.
    Empty(OutputStream),
    /// An output is at its end.
    Over(OutputStream),
    /// The drain time has passed since the exit was told.
    DrainTimeOver,
}

/// What is to be told, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Actions {
    /// Tell that the process ended.
    pub(crate) exited: bool,
    /// Tell that the output is over, and whether a writer was left.
    pub(crate) end: Option<bool>,
}

/// The state of one session's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Machine {
    phase: Phase,
    outputs: [Output; 2],
}

fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

impl Machine {
    /// A running process. With a terminal there is one output only.
    pub(crate) fn new(terminal: bool) -> Machine {
        let open = Output::Open { owed: 0 };
        let second = if terminal { Output::Over } else { open };
        Machine { phase: Phase::Running, outputs: [open, second] }
    }

    /// Whether the output is to be read from.
    pub(crate) fn wants(&self, stream: OutputStream) -> bool {
        let output = self.outputs.get(index(stream));
        match (self.phase, output) {
            (Phase::Running | Phase::Draining, Some(Output::Open { .. })) => true,
            (Phase::Settling, Some(Output::Open { owed })) => *owed > 0,
            _ => false,
        }
    }

    /// The most bytes that may be read from an output at once: never across the exit.
    pub(crate) fn may_read(&self, stream: OutputStream, at_most: usize) -> usize {
        match (self.phase, self.outputs.get(index(stream))) {
            (Phase::Settling, Some(Output::Open { owed })) => {
                usize::try_from(*owed).map_or(at_most, |owed| owed.min(at_most))
            }
            _ => at_most,
        }
    }

    /// Whether the exit has been told.
    pub(crate) fn exit_told(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Ended)
    }

    /// Whether all has been told.
    pub(crate) fn ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Takes an input.
    pub(crate) fn on(mut self, input: Input) -> (Machine, Actions) {
        match input {
            // Running -> Settling
            Input::Exited { waiting } if self.phase == Phase::Running => {
                self.phase = Phase::Settling;
                for (output, waiting) in self.outputs.iter_mut().zip(waiting) {
                    if let Output::Open { owed } = output {
                        *owed = waiting;
                    }
                }
            }
            Input::Exited { .. } => {}
            Input::Read(stream, count) => {
                if let Some(Output::Open { owed }) = self.outputs.get_mut(index(stream)) {
                    *owed = owed.saturating_sub(count);
                }
            }
            // Less was there than announced: a reader inside the sandbox took it.
            Input::Empty(stream) => {
                if let Some(Output::Open { owed }) = self.outputs.get_mut(index(stream)) {
                    *owed = 0;
                }
            }
            Input::Over(stream) => {
                if let Some(output) = self.outputs.get_mut(index(stream)) {
                    *output = Output::Over;
                }
            }
            // Draining -> Ended, with a writer left
            Input::DrainTimeOver if self.phase == Phase::Draining => {
                let writer_left = self.outputs.iter().any(|output| *output != Output::Over);
                self.phase = Phase::Ended;
                return (self, Actions { exited: false, end: Some(writer_left) });
            }
            Input::DrainTimeOver => {}
        }
        self.advance()
    }

    fn advance(mut self) -> (Machine, Actions) {
        let mut actions = Actions::default();
        let owed = |output: &Output| matches!(output, Output::Open { owed } if *owed > 0);
        // Settling -> Draining
        if self.phase == Phase::Settling && !self.outputs.iter().any(owed) {
            self.phase = Phase::Draining;
            actions.exited = true;
        }
        // Draining -> Ended
        if self.phase == Phase::Draining && self.outputs == [Output::Over; 2] {
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

    fn play(terminal: bool, inputs: &[Input]) -> (Machine, Vec<Actions>) {
        let mut machine = Machine::new(terminal);
        let mut told = Vec::new();
        for input in inputs {
            let (next, actions) = machine.on(*input);
            machine = next;
            told.push(actions);
        }
        (machine, told)
    }

    const NOTHING: Actions = Actions { exited: false, end: None };
    const EXITED: Actions = Actions { exited: true, end: None };

    #[test]
    fn an_exit_with_empty_closed_pipes_tells_everything_at_once() {
        let (_, told) = play(
            false,
            &[Input::Over(Stdout), Input::Over(Stderr), Input::Exited { waiting: [0; 2] }],
        );
        assert_eq!(told, [NOTHING, NOTHING, Actions { exited: true, end: Some(false) }]);
    }

    #[test]
    fn the_exit_waits_for_every_owed_byte_and_for_no_other() {
        let (machine, told) = play(
            false,
            &[
                Input::Exited { waiting: [10, 5] },
                Input::Read(Stdout, 10),
                Input::Read(Stderr, 4),
                Input::Read(Stderr, 1),
            ],
        );
        assert_eq!(told, [NOTHING, NOTHING, NOTHING, EXITED]);
        assert!(machine.wants(Stdout) && machine.wants(Stderr) && machine.exit_told());
    }

    #[test]
    fn while_bytes_are_owed_no_more_than_those_are_read() {
        let (machine, _) = play(false, &[Input::Exited { waiting: [10, 0] }]);
        assert_eq!(machine.may_read(Stdout, 4096), 10);
        assert!(machine.wants(Stdout) && !machine.wants(Stderr));
    }

    #[test]
    fn a_writer_that_stays_is_flagged_when_the_drain_time_is_over() {
        let (machine, told) = play(
            false,
            &[Input::Exited { waiting: [0; 2] }, Input::Over(Stderr), Input::DrainTimeOver],
        );
        assert_eq!(told, [EXITED, NOTHING, Actions { exited: false, end: Some(true) }]);
        assert!(machine.ended() && !machine.wants(Stdout));
    }

    #[test]
    fn the_end_of_both_outputs_is_not_the_end_of_the_process() {
        let (machine, told) = play(false, &[Input::Over(Stdout), Input::Over(Stderr)]);
        assert_eq!(told, [NOTHING, NOTHING]);
        assert!(!machine.exit_told());
    }

    #[test]
    fn a_terminal_has_one_output() {
        let (_, told) = play(true, &[Input::Exited { waiting: [0; 2] }, Input::Over(Stdout)]);
        assert_eq!(told, [EXITED, Actions { exited: false, end: Some(false) }]);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        let stream = prop_oneof![Just(Stdout), Just(Stderr)];
        prop_oneof![
            [0u64..100, 0u64..100].prop_map(|waiting| Input::Exited { waiting }),
            (stream.clone(), 0u64..60).prop_map(|(stream, n)| Input::Read(stream, n)),
            stream.clone().prop_map(Input::Empty),
            stream.prop_map(Input::Over),
            Just(Input::DrainTimeOver),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_exit_comes_once_then_end_comes_once(
            inputs in proptest::collection::vec(any_input(), 0..200), terminal: bool,
        ) {
            let (machine, told) = play(terminal, &inputs);
            let exits: Vec<usize> =
                (0..told.len()).filter(|i| told[*i].exited).collect();
            let ends: Vec<usize> =
                (0..told.len()).filter(|i| told[*i].end.is_some()).collect();
            prop_assert!(exits.len() <= 1 && ends.len() <= 1);
            prop_assert_eq!(exits.len() == 1, machine.exit_told());
            prop_assert_eq!(ends.len() == 1, machine.ended());
            if let Some(end) = ends.first() {
                prop_assert!(exits[0] <= *end);
            }
            let exited = inputs.iter().any(|i| matches!(i, Input::Exited { .. }));
            prop_assert!(exited || exits.is_empty());
        }
    }
}
