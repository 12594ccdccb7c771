//! Details of a failure.

use super::failure::Failure;
use super::sized::{copy_out, sized};
use super::status::msb_status;
use microsandbox::escape;
use std::ffi::c_char;
use std::ptr::NonNull;

/// Length of the text in an `msb_error`, its NUL included.
pub const MSB_ERROR_MESSAGE_LEN: usize = 496;

/// Why a call failed. The caller provides the storage; the library writes it only on failure. It
/// owns nothing: there is nothing to free, and reuse is safe.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_error {
    /// `sizeof(msb_error)`.
    pub struct_size: u32,
    /// The status that the call returned.
    pub status: msb_status,
    /// The `errno` of the failed system call, of the host or guest according to `origin`, else 0.
    pub os_error: i32,
    /// Which part failed: one of `MSB_ORIGIN_*`.
    pub origin: u32,
    /// One line of UTF-8, cut at a character if too long.
    pub message: [c_char; MSB_ERROR_MESSAGE_LEN],
}

sized!(msb_error, message);

impl msb_error {
    pub(super) fn new(status: msb_status, os_error: i32, origin: u32, message: &str) -> msb_error {
        // One line, without a NUL inside.
        let message = escape(message);
        let mut text = [0; MSB_ERROR_MESSAGE_LEN];
        let mut end = message.len().min(MSB_ERROR_MESSAGE_LEN - 1);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        for (place, byte) in text.iter_mut().zip(message.bytes().take(end)) {
            *place = c_char::from_ne_bytes([byte]);
        }
        msb_error { struct_size: 0, status, os_error, origin, message: text }
    }
}

/// Where an export writes the details of a failure; may be NULL.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorOut(Option<NonNull<msb_error>>);

impl ErrorOut {
    /// # Safety
    /// `err` is NULL or valid for writing as many bytes as its `struct_size` says, for as long as
    /// this value is used.
    pub(super) unsafe fn new(err: *mut msb_error) -> ErrorOut {
        ErrorOut(NonNull::new(err))
    }

    pub(super) fn write(self, failure: &Failure) -> msb_status {
        let Failure { status, os_error, origin, ref message } = *failure;
        if let Some(place) = self.0 {
            let value = msb_error::new(status, os_error, origin, message);
            // SAFETY: valid by the contract of `new`. A size that is too small for anything but
            // itself writes nothing, so a failure here is harmless.
            let _ = unsafe { copy_out(place.as_ptr(), &value) };
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &msb_error) -> String {
        let bytes = error.message.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0);
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_stays_one_line() {
        let error = msb_error::new(-1, 0, 1, &"ä".repeat(400));
        assert_eq!(text(&error), "ä".repeat(247));
        assert_eq!(text(&msb_error::new(-1, 0, 1, "a\nb\0c")), "a b\\u{0}c");
    }
}
