//! Ranges that several families check.

use crate::limits::{ERRNO_MAX, TEXT};

/// The name of a number that is out of range, and its value.
pub(crate) type Checked = Result<(), (&'static str, i128)>;

/// Checks the number of an error.
pub(crate) fn error_number(errno: i32) -> Checked {
    match (0..=ERRNO_MAX).contains(&errno) {
        true => Ok(()),
        false => Err(("error number", errno.into())),
    }
}

/// Truncates a text to [`TEXT`] bytes, at a character.
pub(crate) fn truncate(text: &mut String) {
    let end = (0..=TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
}
