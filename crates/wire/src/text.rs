//! Text that comes from a stranger: a guest, an image, a registry, a log.
//!
//! Owns: the one way in which such text is made fit for an error message or a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character acts on a terminal, or on how the text around it is shown, rather than being
/// shown: controls, line and paragraph separators, and those that turn the direction of text.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Escapes every character that acts on a terminal, so that the text is one line that says what is
/// in it: `\n`, `\x1b`, `\u{202e}`. A backslash stays as it is; the result is for people.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| push(&mut out, c));
    Cow::Owned(out)
}

fn push(out: &mut String, c: char) {
    // Writing to a string cannot fail.
    let _ = match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if !is_hostile(c) => out.write_char(c),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

/// As [`escape`], for bytes: what is not UTF-8 is escaped byte by byte.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// As [`escape`], cut to `max` characters before the escape, with `...` for what is cut off.
pub fn one_line(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => escape(text),
        Some((end, _)) => {
            let kept = text.get(..end).unwrap_or_default();
            Cow::Owned(format!("{}...", escape(kept)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j8_what_acts_on_a_terminal_is_escaped() {
        let table = [
            ("plain \u{e9} \u{4e2d} \\ \"", "plain \u{e9} \u{4e2d} \\ \""),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
            ("\x1b[2J\x7f\u{9b}31m", "\\x1b[2J\\x7f\\x9b31m"),
            ("x\u{2028}\u{2029}\u{202e}\u{2066}", "x\\u{2028}\\u{2029}\\u{202e}\\u{2066}"),
        ];
        for (text, expected) in table {
            assert_eq!(escape(text), expected);
            assert_eq!(escape_bytes(text.as_bytes()), expected);
            assert_eq!(escape(&escape(text)), expected, "a second time changes nothing");
        }
        assert!(matches!(escape("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn j8_invalid_utf8_is_escaped_byte_by_byte() {
        assert_eq!(escape_bytes(b"a\xff\xc3(\x1b\xed\xa0\x80"), "a\\xff\\xc3(\\x1b\\xed\\xa0\\x80");
    }

    #[test]
    fn j8_a_long_text_is_cut_and_says_so() {
        assert_eq!(one_line("\u{e9}\u{e9}\u{e9}", 3), "\u{e9}\u{e9}\u{e9}");
        assert_eq!(one_line("\u{e9}\n\u{e9}\u{e9}", 2), "\u{e9}\\n...");
    }
}
