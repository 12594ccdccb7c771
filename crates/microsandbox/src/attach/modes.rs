//! What a program has changed on the terminal that shows it.
//!
//! A full-screen program switches to another screen, asks for the mouse, hides the cursor, and
//! takes all of it back when it ends. One that is killed, lost or left running does not, so that is
//! done here. Only what was seen to be changed is changed back: a terminal on which nothing
//! happened is sent nothing.
//!
//! The sequences are those of ECMA-48 and of DEC's terminals, as xterm documents them ("XTerm
//! Control Sequences").

/// Modes that are off on a terminal that nobody changed.
const OFF: [u16; 18] =
    [1, 5, 6, 9, 66, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 47, 1047, 1049];
/// Modes that are on there: lines wrap, the cursor is shown.
const ON: [u16; 2] = [7, 25];
/// Longest sequence that is followed, in bytes; no program's is near it.
const LONGEST: usize = 64;
const ESCAPE: u8 = 0x1b;

/// The state of a terminal's modes, as far as a program changed them.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    /// Those of `OFF` that are on and those of `ON` that are off, in the order of their change.
    changed: Vec<u16>,
    /// Text is not plain.
    coloured: bool,
    /// Only a part of the screen scrolls.
    region: bool,
    /// The number keys send sequences.
    keypad: bool,
    sequence: Sequence,
}

/// Where in a sequence the output stands.
#[derive(Debug, Default)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// Behind `ESC [`.
    Control(Vec<u8>),
}

impl Modes {
    /// Notes what was shown.
    pub(crate) fn shown(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((byte, behind)) = rest.split_first() {
            if let Sequence::None = self.sequence {
                // Most output has no sequences at all.
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
            // The terminal's own reset.
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

    /// What brings another terminal, which nobody changed, into this state: for a program that takes
    /// it for granted. Colours and the part that scrolls are left to the program, which draws anew.
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

    /// What takes all of it back; empty when nothing was changed.
    pub(crate) fn undo(&self) -> Vec<u8> {
        let mut undo = String::new();
        if self.coloured {
            undo.push_str("\x1b[m");
        }
        if self.region {
            // Which moves the cursor; it is put back.
            undo.push_str("\x1b7\x1b[r\x1b8");
        }
        if self.keypad {
            undo.push_str("\x1b>");
        }
        // The last first: the screen that was there before the rest is the last to come back.
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
    fn h1_a_terminal_on_which_nothing_was_changed_is_left_alone() {
        assert_eq!(
            undo(&["plain\r\n", "\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1H \x1b]0;title\x07"]),
            ""
        );
        assert_eq!(undo(&["\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"]), "");
        assert_eq!(undo(&["\x1b[?1049h\x1b[31m\x1b=\x1bc"]), "");
        // Modes that are nothing to us.
        assert_eq!(undo(&["\x1b[?12h\x1b[4h\x1b[?9999999h"]), "");
    }

    #[test]
    fn h1_what_a_program_changed_is_taken_back_the_last_first() {
        let vim = "\x1b[?1049h\x1b[?1h\x1b=\x1b[?2004h\x1b[1;30r\x1b[?1000;1006h\x1b[?25l\x1b[7m";
        let expected = "\x1b[m\x1b7\x1b[r\x1b8\x1b>\x1b[?25h\x1b[?1006l\x1b[?1000l\x1b[?2004l\
                        \x1b[?1l\x1b[?1049l";
        assert_eq!(undo(&[vim]), expected);
        // However it was cut on its way.
        let pieces: Vec<String> = vim.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(undo(&pieces), expected);
    }

    #[test]
    fn h2_another_terminal_is_brought_into_the_same_state() {
        let mut modes = Modes::default();
        modes.shown(b"\x1b[?1049h\x1b[?25l\x1b[?1006h\x1b=\x1b[31mtext\x1b[?1006l");
        assert_eq!(modes.redo(), b"\x1b[?1049h\x1b[?25l\x1b=");
        let mut again = Modes::default();
        again.shown(&modes.redo());
        assert_eq!(again.undo(), b"\x1b>\x1b[?25h\x1b[?1049l");
        assert!(Modes::default().redo().is_empty());
    }

    #[test]
    fn h1_sequences_that_are_none_change_nothing_and_take_no_room() {
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
