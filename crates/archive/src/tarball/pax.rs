//! The extension headers of pax: records that replace fields of the next header.

use crate::error::{Error, Result};

/// A key and its value.
pub(super) type Record = (Vec<u8>, Vec<u8>);

/// Maximum length of a global value. Only numbers are taken from global headers.
const MAX_GLOBAL: usize = 64;

/// Parses `LENGTH KEY=VALUE\n` records. A value holds any bytes.
pub(super) fn parse(mut content: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while !content.is_empty() {
        let (record, rest) = split_record(content).ok_or_else(|| {
            Error::bad("cannot read an archive: an extension header has a malformed record")
        })?;
        records.push(record);
        content = rest;
    }
    Ok(records)
}

fn split_record(content: &[u8]) -> Option<(Record, &[u8])> {
    let space = content.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(content.get(..space)?)?).ok()?;
    let (record, rest) = content.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let (key, value) = record.split_at_checked(equals)?;
    if key.contains(&0) {
        return None;
    }
    Some(((key.to_vec(), value.get(1..)?.to_vec()), rest))
}

/// Takes the records of a global header that apply to all further members.
///
/// Those that name one member or its content would make all members the same.
pub(super) fn add_globals(globals: &mut Vec<Record>, records: Vec<Record>) -> Result<()> {
    for (key, value) in records {
        let refused = |why: &str| {
            let key = String::from_utf8_lossy(&key).into_owned();
            Err(Error::bad(format!("cannot read an archive: a global header sets {key:?}{why}")))
        };
        match key.as_slice() {
            b"uid" | b"gid" | b"mtime" if value.len() > MAX_GLOBAL => return refused(" too long"),
            b"uid" | b"gid" | b"mtime" => {
                globals.retain(|(other, _)| *other != key);
                globals.push((key, value));
            }
            b"path" | b"linkpath" | b"size" => return refused(""),
            b"GNU.volume.filename" => return refused(": it continues another volume"),
            key if key.starts_with(b"GNU.sparse.") || key.starts_with(b"SCHILY.xattr.") => {
                return refused("");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Parses a decimal number of digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = Some(text).filter(|text| text.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub(super) fn number(key: &[u8], value: &[u8]) -> Result<u64> {
    let found = decimal(value).filter(|number| i64::try_from(*number).is_ok());
    found.ok_or_else(|| invalid(key, value))
}

/// Checks a name, which the system ends at a NUL.
pub(super) fn name(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    if value.contains(&0) { Err(invalid(key, value)) } else { Ok(value.to_vec()) }
}

pub(super) fn invalid(key: &[u8], value: &[u8]) -> Error {
    let key = String::from_utf8_lossy(key).into_owned();
    let value = String::from_utf8_lossy(value.get(..40).unwrap_or(value)).into_owned();
    Error::bad(format!("cannot read an archive: {key} is {value:?}"))
}

pub(super) fn time(key: &[u8], value: &[u8]) -> Result<(i64, u32)> {
    parse_time(value).ok_or_else(|| invalid(key, value))
}

/// Parses a time such as `-1234.56789`, and rounds it down to whole nanoseconds.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let (is_negative, text) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at_checked(point)?;
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = u32::try_from(decimal(&digits.collect::<Vec<u8>>())?).ok()?;
    let rest = fraction.get(9..).unwrap_or_default();
    let has_rest =
        !rest.is_empty() && decimal(&rest.iter().copied().take(18).collect::<Vec<u8>>())? > 0;
    if !is_negative {
        return Some((seconds, nanos));
    }
    match nanos + u32::from(has_rest) {
        0 => Some((-seconds, 0)),
        1_000_000_000 => Some((-seconds - 1, 0)),
        nanos => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_rounded_down() {
        let right: [(&str, (i64, u32)); 9] = [
            ("0", (0, 0)),
            ("12.5", (12, 500_000_000)),
            ("12.0000000019", (12, 1)),
            ("12.", (12, 0)),
            ("-1", (-1, 0)),
            ("-86400.5", (-86401, 500_000_000)),
            ("-0.25", (-1, 750_000_000)),
            ("-1.0000000001", (-2, 999_999_999)),
            ("-1.9999999999", (-2, 0)),
        ];
        for (text, time) in right {
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
        }
        for text in
            ["", "-", "+1", "1e9", ".5", "1.5.5", "1.-5", "99999999999999999999", "1.00000000x0"]
        {
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn records_hold_newlines_and_are_whole() {
        let found = parse(b"9 a=b\n\nc\n8 a==\n=\n").unwrap();
        let right = [("a", "b\n\nc"), ("a", "=\n=")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(found, right);
        let wrong =
            ["6 a=b", "7 a=b\n", "5 a=b\n", "x a=b\n", "5 =b\n", "4 a\n", "-6 a=b\n", "0 a=b\n"];
        for text in wrong {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
