//! Texts and arrays that callers lend.

use super::failure::{Failure, wrong};
use super::status::MSB_E_INVALID;
use std::ffi::{CStr, c_char};

/// More than any kernel accepts as arguments; a larger length is an uninitialised one.
const MOST: usize = 1 << 24;

/// Copies a NUL-terminated text; `None` for NULL.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated string.
pub(super) unsafe fn bytes(text: *const c_char) -> Option<Vec<u8>> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, so NUL-terminated by the contract.
    Some(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}

/// Copies a text as [`bytes`] does, which must be UTF-8.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn text(text: *const c_char, what: &str) -> Result<Option<String>, Failure> {
    // SAFETY: the same contract.
    match unsafe { bytes(text) } {
        Some(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| wrong(MSB_E_INVALID, format!("{what} is not valid UTF-8"))),
        None => Ok(None),
    }
}

/// Copies a text as [`text`] does, which must not be NULL.
///
/// # Safety
/// As [`bytes`].
pub(super) unsafe fn name_in(name: *const c_char) -> Result<String, Failure> {
    // SAFETY: the same contract.
    let name = unsafe { text(name, "the name") }?;
    name.ok_or_else(|| wrong(MSB_E_INVALID, "NULL instead of a name"))
}

/// Copies the elements of an array.
///
/// # Safety
/// `first` points to `len` elements, or `len` is 0.
pub(super) unsafe fn array<T: Copy>(
    first: *const T,
    len: usize,
    what: &str,
) -> Result<Vec<T>, Failure> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if first.is_null() || len > MOST {
        return Err(wrong(MSB_E_INVALID, format!("{len} {what} at {first:p}")));
    }
    // SAFETY: not NULL, so `len` elements by the contract.
    Ok(unsafe { std::slice::from_raw_parts(first, len) }.to_vec())
}

/// Copies an array of texts.
///
/// # Safety
/// As [`array`], each element being NULL or a NUL-terminated string.
pub(super) unsafe fn texts(
    first: *const *const c_char,
    len: usize,
    what: &str,
) -> Result<Vec<Vec<u8>>, Failure> {
    // SAFETY: the same contract.
    let pointers = unsafe { array(first, len, what) }?;
    pointers
        .into_iter()
        .map(|pointer| {
            // SAFETY: by the contract, each is NULL or a NUL-terminated string.
            let text = unsafe { bytes(pointer) };
            text.ok_or_else(|| wrong(MSB_E_INVALID, format!("NULL among the {what}")))
        })
        .collect()
}

/// Returns the bytes that a caller lends for a call.
///
/// # Safety
/// `data` points to `len` bytes that do not change while the result is used, or `len` is 0.
pub(super) unsafe fn lent<'a>(
    data: *const u8,
    len: usize,
    what: &str,
) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() || isize::try_from(len).is_err() {
        return Err(wrong(MSB_E_INVALID, format!("{len} bytes of {what} at {data:p}")));
    }
    // SAFETY: not NULL and no longer than an object can be, so `len` bytes by the contract.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// Splits `NAME=value`.
pub(super) fn pair(entry: &[u8], what: &str) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let at = entry.iter().position(|byte| *byte == b'=').ok_or_else(|| {
        let entry = String::from_utf8_lossy(entry);
        wrong(MSB_E_INVALID, format!("{what} {entry:?} without '='"))
    })?;
    let (name, value) = entry.split_at(at);
    Ok((name.to_vec(), value.iter().skip(1).copied().collect()))
}
