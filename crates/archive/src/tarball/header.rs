//! The fields of a tar header.
//!
//! Parsed here and not by the `tar` crate, which takes times before 1970 for 1970, refuses blank
//! fields and the sums of old writers, and ends a pax value at a newline.

use crate::error::{Error, Result};
use std::ops::Range;

pub(super) const BLOCK: usize = 512;

/// A numeric field: its name for errors, and its place.
type Field = (&'static str, Range<usize>);
const MODE: Field = ("mode", 100..108);
const UID: Field = ("user id", 108..116);
const GID: Field = ("group id", 116..124);
const SIZE: Field = ("size", 124..136);
const MTIME: Field = ("time", 136..148);
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const MAJOR: Field = ("device number", 329..337);
const MINOR: Field = ("device number", 337..345);

/// A header block.
#[derive(Debug)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    /// Returns bytes of the block.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }

    /// Whether the checksum is right. Old writers summed signed bytes.
    pub(super) fn is_intact(&self) -> bool {
        let sum = |value: fn(u8) -> i64| -> i64 {
            let summed = |(at, byte): (usize, &u8)| match CHECKSUM.contains(&at) {
                true => i64::from(b' '),
                false => value(*byte),
            };
            self.0.iter().enumerate().map(summed).sum()
        };
        let found = parse_number(self.bytes(CHECKSUM));
        found.is_some_and(|found| {
            found == sum(i64::from) || found == sum(|byte| byte.cast_signed().into())
        })
    }

    /// Returns the letter of the member's type.
    pub(super) fn kind(&self) -> u8 {
        self.bytes(KIND..KIND + 1).first().copied().unwrap_or_default()
    }

    /// Returns the name. Only POSIX headers have a prefix; GNU's have other fields there.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(self.bytes(0..100));
        let prefix = until_nul(self.bytes(345..500));
        if self.bytes(257..263) != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// Returns the target of a link.
    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(self.bytes(157..257)).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32> {
        self.number(&MODE).map(|mode| u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub(super) fn uid(&self) -> Result<u32> {
        self.number(&UID).and_then(check_id)
    }

    pub(super) fn gid(&self) -> Result<u32> {
        self.number(&GID).and_then(check_id)
    }

    pub(super) fn size(&self) -> Result<u64> {
        self.unsigned(&SIZE)
    }

    pub(super) fn mtime(&self) -> Result<i64> {
        self.number(&MTIME)
    }

    /// Returns the major and minor number.
    pub(super) fn device(&self) -> Result<(u32, u32)> {
        let number = |field| {
            let found = u32::try_from(self.unsigned(field)?);
            found.map_err(|_| self.invalid(field))
        };
        Ok((number(&MAJOR)?, number(&MINOR)?))
    }

    fn unsigned(&self, field: &Field) -> Result<u64> {
        u64::try_from(self.number(field)?).map_err(|_| self.invalid(field))
    }

    fn number(&self, field: &Field) -> Result<i64> {
        parse_number(self.bytes(field.1.clone())).ok_or_else(|| self.invalid(field))
    }

    fn invalid(&self, (field, _): &Field) -> Error {
        let name = String::from_utf8_lossy(&self.name()).into_owned();
        Error::bad(format!("cannot unpack {name:?}: its header has an invalid {field}"))
    }
}

/// Parses a numeric field: octal digits between blanks, or binary after a byte 0x80 or 0xff.
/// Blank fields are 0.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    if let [sign @ (0x80 | 0xff), rest @ ..] = field {
        let first = if *sign == 0xff { -1 } else { 0 };
        let add = |sum: i64, byte: &u8| sum.checked_mul(256)?.checked_add((*byte).into());
        return rest.iter().try_fold(first, add);
    }
    // Some tools write a NUL before the digits.
    let text = field.strip_prefix(b"\0").unwrap_or(field).trim_ascii_start();
    let end = text.iter().position(|byte| *byte == 0 || byte.is_ascii_whitespace());
    text.get(..end.unwrap_or(text.len()))?.iter().try_fold(0_i64, |sum, byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add((byte - b'0').into()),
        _ => None,
    })
}

/// Checks a user or group id.
pub(super) fn check_id(found: i64) -> Result<u32> {
    u32::try_from(found).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
        Error::bad(format!("cannot read an archive: {found} is no user or group id"))
    })
}

/// Returns the bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_fields_are_octal_or_binary() {
        let right: [(&[u8], i64); 9] = [
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"\x00644\0\0\0\0", 0o644),
            (b"77777777", 0o77_777_777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
        ];
        for (field, number) in right {
            assert_eq!(parse_number(field), Some(number), "{field:?}");
        }
        let large = b"\x80\x01\0\0\0\0\0\0\0\0\0\0";
        for field in [&b"-0000001"[..], b"+1", b"0x1", b"1a", b"\xc0\0", b"89", large] {
            assert_eq!(parse_number(field), None, "{field:?}");
        }
    }
}
