//! Untrusted text: from a guest, an image, a registry, a log.
//!
//! Owns: how such text is escaped for an error message or a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns whether a character controls a terminal or the layout of the text around it: controls,
/// line and paragraph separators, and marks of text direction.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Escapes every character that controls a terminal, so that the text is one visible line:
/// `\u{1b}[2J`. Newlines and tabs become spaces. A backslash stays as it is: the result is for
/// users.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut out, c));
    Cow::Owned(out)
}

fn push(out: &mut String, c: char) {
    match c {
        '\n' | '\t' => out.push(' '),
        c if is_hostile(c) => out.extend(c.escape_default()),
        c => out.push(c),
    }
}

/// Escapes bytes like [`escape`], and invalid UTF-8 byte by byte.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Truncates text to `max` characters, then escapes it like [`escape`]. `...` marks the truncation.
pub fn one_line(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => escape(text),
        Some((end, _)) => {
            let kept = text.get(..end).unwrap_or_default();
            Cow::Owned(format!("{}...", escape(kept)))
        }
    }
}

/// Escapes what controls a terminal in a JSON document without changing its value: apart from
/// newlines, such characters occur in strings only.
pub fn escape_json(document: &str) -> Cow<'_, str> {
    let is_hostile = |c| c > '\u{7e}' && is_hostile(c);
    if !document.chars().any(is_hostile) {
        return Cow::Borrowed(document);
    }
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        match c {
            // Each of them is one UTF-16 unit. Writing to a string cannot fail.
            c if is_hostile(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j8_terminal_controls_are_escaped() {
        let table = [
            ("plain \u{e9} \u{4e2d} \\ \"", "plain \u{e9} \u{4e2d} \\ \""),
            ("a\nb\r\tc\0", "a b\\r c\\u{0}"),
            ("\x1b[2J\x7f\u{9b}31m", "\\u{1b}[2J\\u{7f}\\u{9b}31m"),
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
        assert_eq!(
            escape_bytes(b"a\xff\xc3(\x1b\xed\xa0\x80"),
            "a\\xff\\xc3(\\u{1b}\\xed\\xa0\\x80"
        );
    }

    #[test]
    fn j8_json_without_terminal_controls_stays_json() {
        let document = "{\n\"a\": \"\u{9b}2J\u{202e}\\u001b\u{e9}\u{7f}\"}";
        let expected = "{\n\"a\": \"\\u009b2J\\u202e\\u001b\u{e9}\\u007f\"}";
        assert_eq!(escape_json(document), expected);
        assert!(matches!(escape_json("{}"), Cow::Borrowed(_)));
    }

    #[test]
    fn j8_long_text_is_truncated_visibly() {
        assert_eq!(one_line("\u{e9}\u{e9}\u{e9}", 3), "\u{e9}\u{e9}\u{e9}");
        assert_eq!(one_line("\u{e9}\n\u{e9}\u{e9}", 2), "\u{e9} ...");
    }
}
