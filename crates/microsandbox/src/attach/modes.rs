//! The terminal modes that a program has changed.
//!
//! A full-screen program switches to the alternate screen, enables the mouse, hides the cursor, and
//! resets all of it when it exits. One that is killed, lost or detached does not, so it is done
//! here. Only observed changes are reset: nothing is written to an unchanged terminal.
//!
//! The sequences are those of ECMA-48 and of DEC's terminals, as documented by xterm ("XTerm
//! Control Sequences").

/// Modes that are off by default.
const OFF: [u16; 18] =
    [1, 5, 6, 9, 66, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 47, 1047, 1049];
/// Modes that are on by default: lines wrap, the cursor is shown.
const ON: [u16; 2] = [7, 25];
/// Maximum length of a parsed sequence, in bytes; programs use much shorter ones.
const LONGEST: usize = 64;
const ESCAPE: u8 = 0x1b;

/// The modes of a terminal that a program has changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modes {
    /// Modes of `OFF` that are on and modes of `ON` that are off, in the order of their change.
    changed: Vec<u16>,
    /// Graphic attributes are set.
    coloured: bool,
    /// A scrolling region is set.
    region: bool,
    /// The keypad is in application mode.
    keypad: bool,
    sequence: Sequence,
}

/// The state of the parser.
#[derive(Debug, Clone, Default)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// After `ESC [`.
    Control(Vec<u8>),
}

impl Modes {
    /// Processes displayed bytes.
    pub(crate) fn shown(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((byte, behind)) = rest.split_first() {
            if let Sequence::None = self.sequence {
                // Most output contains no sequences.
                let Some(at) = rest.iter().position(|byte| *byte == ESCAPE) else { return };
                self.sequence = Sequence::Escape;
                rest = rest.get(at + 1..).unwrap_or_default();
                continue;
            }
            self.sequence = self.next(*byte);
            rest = behind;
        }
    }

    fn next(&mut self, byte: u8) -> Sequence {
        match (std::mem::take(&mut self.sequence), byte) {
            (_, ESCAPE) => Sequence::Escape,
            (Sequence::None, _) => Sequence::None,
            (Sequence::Escape, b'[') => Sequence::Control(Vec::new()),
            (Sequence::Escape, b'=') => {
                self.keypad = true;
                Sequence::None
            }
            (Sequence::Escape, b'>') => {
                self.keypad = false;
                Sequence::None
            }
            // A full reset.
            (Sequence::Escape, b'c') => {
                *self = Modes::default();
                Sequence::None
            }
            (Sequence::Escape, _) => Sequence::None,
            (Sequence::Control(parameters), 0x40..=0x7e) => {
                self.control(&parameters, byte);
                Sequence::None
            }
            (Sequence::Control(mut parameters), _) if parameters.len() < LONGEST => {
                parameters.push(byte);
                Sequence::Control(parameters)
            }
            (Sequence::Control(_), _) => Sequence::None,
        }
    }

    fn control(&mut self, parameters: &[u8], last: u8) {
        let Ok(text) = std::str::from_utf8(parameters) else { return };
        match (text.strip_prefix('?'), last) {
            (Some(modes), b'h' | b'l') => {
                for mode in modes.split(';').filter_map(|mode| mode.parse().ok()) {
                    self.set(mode, last == b'h');
                }
            }
            (None, b'm') => self.coloured = !matches!(text, "" | "0" | "00"),
            (None, b'r') => self.region = !text.is_empty(),
            // A soft reset.
            (None, b'p') if text == "!" => {
                self.changed.retain(|mode| OFF.contains(mode));
                (self.coloured, self.region, self.keypad) = (false, false, false);
            }
            _ => {}
        }
    }

    fn set(&mut self, mode: u16, on: bool) {
        self.changed.retain(|changed| *changed != mode);
        if (on && OFF.contains(&mode)) || (!on && ON.contains(&mode)) {
            self.changed.push(mode);
        }
    }

    /// Returns the sequences that bring a terminal in its default state into this one. Attributes
    /// and the scrolling region are left to the program, which redraws.
    pub(crate) fn redo(&self) -> Vec<u8> {
        let mut redo = String::new();
        for mode in &self.changed {
            let end = if ON.contains(mode) { 'l' } else { 'h' };
            redo.push_str(&format!("\x1b[?{mode}{end}"));
        }
        if self.keypad {
            redo.push_str("\x1b=");
        }
        redo.into_bytes()
    }

    /// Returns the sequences that reset all changes; empty if there are none.
    pub(crate) fn undo(&self) -> Vec<u8> {
        let mut undo = String::new();
        if self.coloured {
            undo.push_str("\x1b[m");
        }
        if self.region {
            // Resetting the region moves the cursor, which is restored.
            undo.push_str("\x1b7\x1b[r\x1b8");
        }
        if self.keypad {
            undo.push_str("\x1b>");
        }
        // In reverse order, so that the alternate screen is left last.
        for mode in self.changed.iter().rev() {
            let end = if ON.contains(mode) { 'h' } else { 'l' };
            undo.push_str(&format!("\x1b[?{mode}{end}"));
        }
        undo.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undo(shown: &[&str]) -> String {
        let mut modes = Modes::default();
        for piece in shown {
            modes.shown(piece.as_bytes());
        }
        String::from_utf8(modes.undo()).unwrap()
    }

    #[test]
    fn h1_unchanged_terminal_gets_no_output() {
        assert_eq!(
            undo(&["plain\r\n", "\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1H \x1b]0;title\x07"]),
            ""
        );
        assert_eq!(undo(&["\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"]), "");
        assert_eq!(undo(&["\x1b[?1049h\x1b[31m\x1b=\x1bc"]), "");
        // Modes that are not tracked.
        assert_eq!(undo(&["\x1b[?12h\x1b[4h\x1b[?9999999h"]), "");
    }

    #[test]
    fn h1_changes_are_reset_in_reverse_order() {
        let vim = "\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[1;30r\x1b[?1000;1006h\x1b[?25l\x1b[7m";
        let expected = "\x1b[m\x1b7\x1b[r\x1b8\x1b>\x1b[?25h\x1b[?1006l\x1b[?1000l\x1b[?2004l\
                        \x1b[?1l\x1b[?1049l";
        assert_eq!(undo(&[vim]), expected);
        // Independent of how the output is split.
        let pieces: Vec<String> = vim.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(undo(&pieces), expected);
    }

    #[test]
    fn h2_another_terminal_gets_the_same_modes() {
        let mut modes = Modes::default();
        modes.shown(b"\x1b[?1049h\x1b[?25l\x1b[?1006h\x1b=\x1b[31mtext\x1b[?1006l");
        assert_eq!(modes.redo(), b"\x1b[?1049h\x1b[?25l\x1b=");
        let mut again = Modes::default();
        again.shown(&modes.redo());
        assert_eq!(again.undo(), b"\x1b>\x1b[?25h\x1b[?1049l");
        assert!(Modes::default().redo().is_empty());
    }

    #[test]
    fn h1_invalid_sequences_have_no_effect_and_are_not_kept() {
        let mut modes = Modes::default();
        modes.shown(b"\x1b[?");
        modes.shown(&[b'1'; 100_000]);
        modes.shown(b"h\x1b\x1b[?25l");
        assert_eq!(modes.undo(), b"\x1b[?25h");
        assert!(modes.changed.len() == 1);
        modes.shown(&"\x1b[?25l\x1b[?1049h".repeat(1000).into_bytes());
        assert_eq!(modes.changed.len(), 2);
    }
}
