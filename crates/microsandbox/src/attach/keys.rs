//! The keys that detach a terminal from its session.
//!
//! ```text
//!                 the next key               the last key
//!  Holding(n) ------------------> ... ------------------------> Detached
//!     ^   | any other byte
//!     +---+  a byte that cannot belong to the keys is delivered; a prefix of them is held
//! ```

use crate::error::{Error, MicrosandboxResult};
use std::str::FromStr;

/// The byte that `ctrl-]` sends.
const DEFAULT: u8 = 0x1d;

/// The bytes that the keys send; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// How many of the keys were typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    /// This many bytes, fewer than all; they are held back.
    Holding(usize),
    /// All of them.
    Detached,
}

impl Default for DetachKeys {
    fn default() -> Self {
        DetachKeys(vec![DEFAULT])
    }
}

impl Default for Typed {
    fn default() -> Self {
        Typed::Holding(0)
    }
}

impl DetachKeys {
    /// Processes one typed byte. Appends the bytes for the session to `deliver`.
    pub(crate) fn on(&self, typed: Typed, byte: u8, deliver: &mut Vec<u8>) -> Typed {
        let Typed::Holding(held) = typed else { return Typed::Detached };
        let mut text = self.0.get(..held).unwrap_or_default().to_vec();
        text.push(byte);
        // The longest suffix of the typed bytes that is a prefix of the keys.
        let kept = (0..=text.len()).find_map(|start| {
            let end = text.get(start..)?;
            self.0.starts_with(end).then_some(end.len())
        });
        let kept = kept.unwrap_or_default();
        deliver.extend_from_slice(text.get(..text.len() - kept).unwrap_or_default());
        if kept == self.0.len() { Typed::Detached } else { Typed::Holding(kept) }
    }

    /// Returns how many bytes can be read without reading beyond the keys.
    pub(crate) fn at_most(&self, typed: Typed) -> usize {
        match typed {
            Typed::Holding(held) => self.0.len().saturating_sub(held),
            Typed::Detached => 0,
        }
    }
}

impl FromStr for DetachKeys {
    type Err = Error;

    /// Parses keys separated by commas: `ctrl-` and a letter or one of `@[\]^_`, or a character.
    fn from_str(text: &str) -> MicrosandboxResult<Self> {
        let mut bytes = Vec::new();
        for key in text.split(',') {
            let mut characters = key.chars();
            match (characters.next(), characters.next()) {
                (Some(character), None) => {
                    bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => bytes.push(control(key).ok_or_else(|| {
                    let known = "ctrl-a to ctrl-z, ctrl-@, ctrl-[, ctrl-\\, ctrl-], ctrl-^, ctrl-_";
                    Error::invalid(format!(
                        "the detach keys {text:?} contain {key:?}, which is neither a character \
                         nor one of {known}"
                    ))
                })?),
            }
        }
        Ok(DetachKeys(bytes))
    }
}

/// Returns the byte that a key sends with the control key.
fn control(key: &str) -> Option<u8> {
    let (name, key) = key.split_at_checked(5)?;
    let [key] = key.as_bytes() else { return None };
    let key = key.to_ascii_uppercase();
    let known = name.eq_ignore_ascii_case("ctrl-") && (b'@'..=b'_').contains(&key);
    known.then_some(key & 0x1f)
}

/// Arbitrary keys and arbitrary input; see `make fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing {
    use super::{DetachKeys, Typed};

    /// Returns the delivered bytes, and the number of bytes up to the detach, if it happens.
    pub(crate) fn type_in(keys: &DetachKeys, bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
        let (mut typed, mut delivered) = (Typed::default(), Vec::new());
        for (at, byte) in bytes.iter().enumerate() {
            assert!(keys.at_most(typed) > 0, "nothing may be read and nothing was detached");
            typed = keys.on(typed, *byte, &mut delivered);
            if typed == Typed::Detached {
                assert_eq!(keys.at_most(typed), 0, "read past the keys");
                return (delivered, Some(at + 1));
            }
        }
        (delivered, None)
    }

    /// Compares the parser with a search through the whole input.
    pub(crate) fn check(keys: &DetachKeys, bytes: &[u8]) {
        let wanted = keys.0.as_slice();
        let first = bytes.windows(wanted.len()).position(|window| window == wanted);
        let (delivered, detached) = type_in(keys, bytes);
        assert_eq!(detached, first.map(|at| at + wanted.len()), "{keys:?} {bytes:?}");
        assert!(bytes.starts_with(&delivered), "{keys:?} {bytes:?}");
        let rest = bytes.get(delivered.len()..).unwrap_or_default();
        match first {
            Some(at) => assert_eq!(delivered.len(), at, "{keys:?} {bytes:?}"),
            // Bytes that are held back can still become the keys.
            None => assert!(rest.len() < wanted.len() && wanted.starts_with(rest)),
        }
    }

    /// The first line of `data` gives the keys, the rest is typed.
    pub(crate) fn run(data: &[u8]) {
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let (text, typed) = data.split_at(end);
        let Ok(text) = std::str::from_utf8(text) else { return };
        match text.parse::<DetachKeys>() {
            Ok(keys) => {
                assert!(keys.0.len() > text.matches(',').count(), "{text:?}: a key sends nothing");
                check(&keys, typed.get(1..).unwrap_or_default());
            }
            Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fuzzing::{check, type_in};
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<u8> {
        text.parse::<DetachKeys>().unwrap().0
    }

    #[test]
    fn h1_keys_are_written_as_in_the_documentation() {
        assert_eq!(DetachKeys::default().0, parsed("ctrl-]"));
        let table: [(&str, &[u8]); 9] = [
            ("ctrl-]", b"\x1d"),
            ("ctrl-p,ctrl-q", b"\x10\x11"),
            ("q", b"q"),
            ("ctrl-@", b"\0"),
            ("ctrl-_,a", b"\x1fa"),
            ("Ctrl-A,CTRL-z", b"\x01\x1a"),
            ("ctrl-\\,ctrl-[,ctrl-^", b"\x1c\x1b\x1e"),
            ("\u{e9},-", "\u{e9}-".as_bytes()),
            ("a,a,b", b"aab"),
        ];
        for (text, bytes) in table {
            assert_eq!(parsed(text), bytes, "{text}");
        }
    }

    #[test]
    fn h1_keys_that_do_not_exist_are_refused() {
        for text in [
            "",
            ",",
            "a,",
            ",a",
            "ctrl-",
            "ctrl-1",
            "ctrl-aa",
            "ctrl-{",
            "ab",
            "alt-a",
            "ctrl-\u{e9}",
        ] {
            let error = text.parse::<DetachKeys>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn h1_partial_keys_are_delivered() {
        let table: [(&str, &str, &str, Option<usize>); 8] = [
            ("ctrl-]", "ls\n", "ls\n", None),
            ("ctrl-]", "ls\x1dx", "ls", Some(3)),
            ("ctrl-p,ctrl-q", "a\x10", "a", None),
            ("ctrl-p,ctrl-q", "a\x10b", "a\x10b", None),
            ("ctrl-p,ctrl-q", "\x10\x10\x11x", "\x10", Some(3)),
            ("a,a,b", "aaab", "a", Some(4)),
            ("a,b,a,c", "ababac", "ab", Some(6)),
            ("q", "q", "", Some(1)),
        ];
        for (keys, bytes, delivered, detached) in table {
            let result = type_in(&keys.parse().unwrap(), bytes.as_bytes());
            assert_eq!(result, (delivered.into(), detached), "{keys} {bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn h1_input_before_the_detach_keys_is_delivered(
            keys in proptest::collection::vec(0u8..3, 1..6),
            bytes in proptest::collection::vec(0u8..3, 0..60),
        ) {
            check(&DetachKeys(keys), &bytes);
        }
    }
}
