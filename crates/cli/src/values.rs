//! Parsers of option values: times, sizes, limits, variables, labels.

use microsandbox::{PullPolicy, Rlimit, RlimitResource};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, SystemTime};

/// An environment variable; without a value if it should be passed on and is not set here.
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
const NANOS_PER_MILLI: u128 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Parses a time: a number and one of ms, s, m, h; without a unit, seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        "expected a number of seconds, or a number with a unit, such as 1.5s, 500ms, 5m or 1h"
            .to_owned()
    };
    let (number, unit) = decimal(text).ok_or_else(bad)?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let long = || "too long".to_owned();
    let nanos = number.times(millis * NANOS_PER_MILLI).ok_or_else(long)?;
    let seconds = u64::try_from(nanos / NANOS_PER_SECOND).map_err(|_| long())?;
    // Less than a second.
    let rest = u32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0);
    Ok(Duration::new(seconds, rest))
}

/// Parses a point in time: how long ago, or a date and time in UTC.
pub(crate) fn since(text: &str) -> Result<SystemTime, String> {
    // Without a unit it would be an age here and a date in docker.
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    if let Some(ago) = has_unit.then(|| duration(text)).and_then(Result::ok) {
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

/// Parses a size in MiB: a number and M or nothing for MiB, G for GiB, T for TiB, K for KiB or B for
/// bytes. Parts of a MiB are rounded up.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes_of(text, "m").ok_or_else(|| {
        "expected a number of MiB, or a number with a unit, such as 512m or 1.5g".to_owned()
    })?;
    let mib = bytes.and_then(|bytes| u64::try_from(bytes.div_ceil(1 << 20)).ok());
    mib.filter(|mib| *mib <= MAX_SIZE_MIB).ok_or_else(|| match decimal(text) {
        Some((_, "")) => format!(
            "{text} is a number of MiB, more than 16T; add a unit, such as {text}B, 512M or 1G"
        ),
        _ => "more than 16T".to_owned(),
    })
}

/// Parses a size in bytes as [`size`] does; without a unit it is a number of bytes, as in docker.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes_of(text, "b").ok_or_else(|| {
        "expected a number of bytes, or a number with a unit, such as 64m or 1.5g".to_owned()
    })?;
    let most = u128::from(MAX_SIZE_MIB) << 20;
    let fits = bytes.filter(|bytes| *bytes <= most).and_then(|bytes| u64::try_from(bytes).ok());
    fits.ok_or_else(|| "more than 16T".to_owned())
}

/// Parses a number with a unit of bytes; `unit` if it has none. Returns the bytes, rounded up, or
/// `None` in their place if they do not fit.
fn bytes_of(text: &str, unit: &str) -> Option<Option<u128>> {
    let (number, own) = decimal(text)?;
    let factor =
        match if own.is_empty() { unit.to_owned() } else { own.to_ascii_lowercase() }.as_str() {
            "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return None,
        };
    Some(number.times(factor))
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

/// A number that was written in digits with at most one point.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    digits: u128,
    /// The power of ten that divides the digits.
    scale: u128,
}

impl Decimal {
    /// Returns the product, rounded up; `None` if it is too large.
    fn times(self, factor: u128) -> Option<u128> {
        self.digits.checked_mul(factor).map(|product| product.div_ceil(self.scale))
    }
}

/// Splits a number from what follows it: `1.5s` and `.5s`, but not `1.s`, `1e9` or `-1`.
fn decimal(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = match number.split_once('.') {
        Some((_, "")) => return None,
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    let digits = format!("{whole}{fraction}");
    // More digits are no time and no size.
    if digits.is_empty() || whole.len() > 20 || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some((Decimal { digits: digits.parse().ok()?, scale }, unit))
}

/// Parses digits only: `parse` alone would accept a sign.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is no number in any option.
    const NO_NUMBERS: [&str; 16] = [
        "",
        ".",
        "1.",
        "1.5.2",
        "-1",
        "+1",
        "1e9",
        "1e9s",
        "0x10",
        "1,5",
        " 1",
        "1 ",
        "inf",
        "nan",
        "\u{661}",
        "123456789012345678901",
    ];

    #[test]
    fn g_duration_has_a_unit_or_is_in_seconds() {
        for (text, nanos) in [
            ("500ms", 500_000_000),
            ("30s", 30_000_000_000),
            ("5m", 300_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0", 0),
            ("0s", 0),
            ("2", 2_000_000_000),
            ("1.5", 1_500_000_000),
            ("1.5s", 1_500_000_000),
            (".5", 500_000_000),
            ("0.25m", 15_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("0.5ms", 500_000),
            ("007", 7_000_000_000),
            ("0.000000001", 1),
            // Rounded up, so that no time becomes none.
            ("0.0000001ms", 1),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        let others = ["s", "-1s", "+1s", "1 s", "1d", "1S", "1m30s", "5sec", "0.0000000001"];
        for bad in NO_NUMBERS.into_iter().chain(others) {
            let error = duration(bad).unwrap_err();
            assert!(error.contains("500ms"), "{bad}: {error}");
        }
        for long in ["18446744073709551615h", "99999999999999999999", "99999999999999999999.9h"] {
            assert_eq!(duration(long).unwrap_err(), "too long", "{long}");
        }
        assert_eq!(duration("18446744073709551615"), Ok(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn g_memory_without_a_unit_is_mib() {
        for (text, mib) in [
            ("512", 512),
            ("512M", 512),
            ("512m", 512),
            ("512MiB", 512),
            ("1G", 1024),
            ("1gib", 1024),
            ("2g", 2048),
            ("1.5G", 1536),
            ("0.5g", 512),
            (".5g", 512),
            ("100.1", 101),
            ("1T", 1 << 20),
            ("65536k", 64),
            ("104857600b", 100),
            ("104857601B", 101),
            ("16777216", 16 << 20),
        ] {
            assert_eq!(memory(text), Ok(mib), "{text}");
            assert_eq!(size(text), Ok(mib.into()), "{text}");
        }
        for bad in NO_NUMBERS.into_iter().chain(["M", "1P", "1 G", "1Gi", "1g5"]) {
            let error = memory(bad).unwrap_err();
            assert!(error.contains("MiB") && error.contains("1.5g"), "{bad}: {error}");
            assert_eq!(size(bad).unwrap_err(), error);
        }
        for large in ["4194304G", "17T", "16.1T", "99999999999999999999T"] {
            assert_eq!(memory(large).unwrap_err(), "more than 16T", "{large}");
        }
    }

    #[test]
    fn g_bytes_without_a_unit_are_bytes() {
        for (text, expected) in [
            ("67108864", 64 << 20),
            ("65536b", 65_536),
            ("100k", 102_400),
            ("64m", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("0.0001k", 1),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in NO_NUMBERS.into_iter().chain(["M", "1P", "1 G"]) {
            assert!(bytes(bad).unwrap_err().contains("64m"), "{bad}");
        }
        assert_eq!(bytes("17T").unwrap_err(), "more than 16T");
    }

    #[test]
    fn g9_number_of_bytes_is_not_taken_for_mib() {
        for absurd in ["104857600", "16777217", "99999999999999999999"] {
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
        for bad in ["yesterday", "10", "1700000000", "-10s", "1e9s"] {
            assert!(since(bad).unwrap_err().contains("30s"), "{bad}");
        }
        let then = since("1.5h").unwrap();
        let ago = SystemTime::now().duration_since(then).unwrap();
        assert!((5400..5500).contains(&ago.as_secs()));
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
