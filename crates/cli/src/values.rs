//! Parsers of option values: times, sizes, limits, variables, labels.

use microsandbox::{PullPolicy, Rlimit, RlimitResource};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, SystemTime};

/// An environment variable; without a value if it is to be passed on and is not set here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) key: OsString,
    pub(crate) value: Option<OsString>,
}

/// The key and value of a label.
pub(crate) type Label = (String, String);

/// A program and its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// The largest size accepted, 16 TiB: a larger number is most likely a number of bytes.
const MAX_SIZE_MIB: u64 = 16 << 20;

/// Parses a time: a whole number and one of ms, s, m, h.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "expected a whole number and a unit, such as 500ms, 30s, 5m or 1h".to_owned();
    let (number, unit) = split_number(text).ok_or_else(bad)?;
    let factor = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(bad()),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

/// Parses a point in time: how long ago, or a date and time in UTC.
pub(crate) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(|| "too long".to_owned());
    }
    humantime::parse_rfc3339_weak(text).map_err(|_| {
        "expected an age such as 30s, 5m or 1h, or a time such as 2026-01-31T12:00:00Z".to_owned()
    })
}

/// Parses a memory size in MiB, as [`size`] does.
pub(crate) fn memory(text: &str) -> Result<u32, String> {
    u32::try_from(size(text)?).map_err(|_| "more than 16T".to_owned())
}

/// Parses a size in MiB: a whole number and M or nothing for MiB, G for GiB, T for TiB, K for KiB
/// or B for bytes. Parts of a MiB are rounded up.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || "expected a whole number of MiB, such as 512 or 512M, or of GiB, such as 1G";
    let (number, unit) = split_number(text).ok_or_else(bad)?;
    let mib = match unit.to_ascii_lowercase().as_str() {
        "b" => Some(number.div_ceil(1 << 20)),
        "k" | "kb" | "kib" => Some(number.div_ceil(1 << 10)),
        "" | "m" | "mb" | "mib" => Some(number),
        "g" | "gb" | "gib" => number.checked_mul(1 << 10),
        "t" | "tb" | "tib" => number.checked_mul(1 << 20),
        _ => return Err(bad().to_owned()),
    };
    match (mib.filter(|mib| *mib <= MAX_SIZE_MIB), unit) {
        (Some(mib), _) => Ok(mib),
        (None, "") => Err(format!(
            "{number} is a number of MiB, more than 16T; add a unit, such as {number}B, 512M or 1G"
        )),
        (None, _) => Err("more than 16T".to_owned()),
    }
}

/// Parses a limit: `NAME=SOFT` or `NAME=SOFT:HARD`, where each may be `unlimited`.
pub(crate) fn rlimit(text: &str) -> Result<Rlimit, String> {
    let bad = || "expected NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:2048".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    let resource: RlimitResource = name.parse().map_err(|_| {
        let names: Vec<_> = RlimitResource::ALL.into_iter().map(RlimitResource::name).collect();
        format!("unknown limit {name:?}; known limits: {}", names.join(", "))
    })?;
    let value = |text: &str| match text {
        "unlimited" => Ok(u64::MAX),
        number => plain_number(number).ok_or_else(bad),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (value(soft)?, value(hard)?),
        None => (value(limits)?, value(limits)?),
    };
    if soft > hard {
        return Err("the soft limit is above the hard limit".to_owned());
    }
    Ok(Rlimit { resource, soft, hard })
}

/// Parses a variable: `KEY=VALUE`, or `KEY` for the value in this process. Values are bytes.
pub(crate) fn variable(text: OsString) -> Result<Variable, String> {
    let bytes = text.as_bytes();
    let (key, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (key, value) = bytes.split_at(at);
            let value = value.get(1..).unwrap_or_default().to_vec();
            (OsStr::from_bytes(key).to_owned(), Some(OsString::from_vec(value)))
        }
        None => (text.clone(), std::env::var_os(&text)),
    };
    if key.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok(Variable { key, value })
}

/// Parses an env file: one variable per line, as [`variable`] takes them. Empty lines and lines
/// that begin with `#` are skipped; there is no quoting and no substitution.
pub(crate) fn env_file(text: &[u8]) -> Result<Vec<Variable>, String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut variables = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let about = |message: &str| format!("line {}: {message}", at + 1);
        let found = variable(OsString::from_vec(line.to_vec())).map_err(|error| about(&error))?;
        if found.key.as_bytes().iter().any(u8::is_ascii_whitespace) {
            return Err(about("the name of the variable contains a space"));
        }
        variables.push(found);
    }
    Ok(variables)
}

/// Parses when to pull an image.
pub(crate) fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    let all = [PullPolicy::Always, PullPolicy::Missing, PullPolicy::Never];
    let found = all.into_iter().find(|policy| policy.name() == text);
    found.ok_or_else(|| "expected always, missing or never".to_owned())
}

/// Parses a program, or a JSON list of a program and its arguments.
pub(crate) fn words(text: &str) -> Result<Words, String> {
    if !text.starts_with('[') {
        return Ok(Words(vec![text.to_owned()]));
    }
    let bad = |_| r#"expected a program, or a JSON list such as ["sh","-c","date"]"#.to_owned();
    serde_json::from_str(text).map(Words).map_err(bad)
}

/// Parses a session id or a prefix of one.
pub(crate) fn session_prefix(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(
            "expected 32 hexadecimal digits or a unique prefix; see: msb sessions".to_owned()
        );
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses a label: `KEY=VALUE`, or `KEY` for an empty value.
pub(crate) fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((plain_number(number)?, unit))
}

/// Parses digits only: `parse` alone would accept a sign.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_needs_a_whole_number_and_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "5", "s", "-1s", "+1s", "1.5s", "1 s", "1d", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("18446744073709551615h").unwrap_err().contains("too long"));
    }

    #[test]
    fn memory_without_a_unit_is_mib() {
        for (text, mib) in [
            ("512", 512),
            ("512M", 512),
            ("512m", 512),
            ("512MiB", 512),
            ("1G", 1024),
            ("1gib", 1024),
            ("2g", 2048),
            ("1T", 1 << 20),
            ("65536k", 64),
            ("104857600b", 100),
            ("16777216", 16 << 20),
        ] {
            assert_eq!(memory(text), Ok(mib), "{text}");
            assert_eq!(size(text), Ok(mib.into()), "{text}");
        }
        for bad in ["", "M", "-1", "1P", "1.5G", "5000000000", "4194304G", "17T"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn g9_number_of_bytes_is_not_taken_for_mib() {
        for absurd in ["104857600", "16777217"] {
            let refusal = memory(absurd).unwrap_err();
            assert!(refusal.contains(absurd) && refusal.contains("MiB"), "{refusal}");
            assert!(refusal.contains("unit"), "{refusal}");
        }
    }

    #[test]
    fn a9_rlimit_has_one_or_two_values() {
        let resource = RlimitResource::Nofile;
        assert_eq!(rlimit("nofile=1024"), Ok(Rlimit { resource, soft: 1024, hard: 1024 }));
        assert_eq!(rlimit("nofile=1:2"), Ok(Rlimit { resource, soft: 1, hard: 2 }));
        let hard = u64::MAX;
        assert_eq!(rlimit("nofile=1:unlimited"), Ok(Rlimit { resource, soft: 1, hard }));
        for bad in ["nofile", "nofile=", "nofile=x", "nofile=1:", "nofile=-1", "nofile=2:1"] {
            assert!(rlimit(bad).is_err(), "{bad}");
        }
        assert!(rlimit("files=1").unwrap_err().contains("nofile"));
    }

    #[test]
    fn a7_variable_without_value_takes_the_local_one() {
        let of = |text: &str| variable(text.into()).unwrap();
        assert_eq!(of("A=b=c"), Variable { key: "A".into(), value: Some("b=c".into()) });
        assert_eq!(of("A="), Variable { key: "A".into(), value: Some("".into()) });
        assert_eq!(of("PATH").value, std::env::var_os("PATH"));
        assert_eq!(of("MSB_TEST_NOT_SET").value, None);
        assert!(variable("=x".into()).is_err() && variable("".into()).is_err());
        let bytes = variable(OsString::from_vec(b"A=\xff".to_vec())).unwrap();
        assert_eq!(bytes.value, Some(OsString::from_vec(vec![0xff])));
    }

    #[test]
    fn a7_env_file_has_one_variable_per_line_without_quoting() {
        let text =
            b"\xef\xbb\xbf# note\r\nA=one two \r\n\n  B=\"x\" # y\nMSB_TEST_NOT_SET\nC=\nD=\xff";
        let found = env_file(text).unwrap();
        let pairs: Vec<(&[u8], Option<&[u8]>)> = found
            .iter()
            .map(|v| (v.key.as_bytes(), v.value.as_ref().map(|value| value.as_bytes())))
            .collect();
        let expected: [(&[u8], Option<&[u8]>); 5] = [
            (b"A", Some(b"one two ")),
            (b"B", Some(b"\"x\" # y")),
            (b"MSB_TEST_NOT_SET", None),
            (b"C", Some(b"")),
            (b"D", Some(b"\xff")),
        ];
        assert_eq!(pairs, expected);
        assert!(env_file(b"A=1\nB C=2").unwrap_err().starts_with("line 2"));
        assert!(env_file(b"=1").unwrap_err().starts_with("line 1"));
    }

    #[test]
    fn d6_since_is_an_age_or_a_date() {
        let date = since("1970-01-02T00:00:00Z").unwrap();
        assert_eq!(date, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
        assert_eq!(since("1970-01-02 00:00:00").unwrap(), date);
        let then = since("1h").unwrap();
        let ago = SystemTime::now().duration_since(then).unwrap();
        assert!((3600..3700).contains(&ago.as_secs()));
        assert!(since("yesterday").unwrap_err().contains("30s"));
    }

    #[test]
    fn label_may_have_no_value() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        assert!(label("=x").is_err());
    }

    #[test]
    fn command_is_a_program_or_a_json_list() {
        assert_eq!(words("sh").unwrap().0, ["sh"]);
        assert_eq!(words(r#"["sh","-c","a b"]"#).unwrap().0, ["sh", "-c", "a b"]);
        assert!(words("[1]").is_err());
        assert_eq!(pull_policy("never"), Ok(PullPolicy::Never));
        assert!(pull_policy("Always").is_err());
    }
}
