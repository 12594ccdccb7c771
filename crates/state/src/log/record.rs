//! One line of the log.
//!
//! ```text
//! {"t":"2026-01-31T12:00:00.000000001Z","session":"0f…","stream":"stdout","text":"hello\n"}
//! {"t":"2026-01-31T12:00:00.000000002Z","session":"0f…","stream":"stderr","base64":"//4="}
//! {"t":"2026-01-31T12:00:00.000000003Z","session":"0f…","stream":"event","event":{"kind":…}}
//! ```
//!
//! `text` has bytes that are valid UTF-8; `base64` has other bytes, and those of which most would
//! be escaped. Either way no byte is lost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::SystemTime;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecord {
    /// When it reached the log, by the host's clock.
    pub time: SystemTime,
    /// The session.
    pub session: String,
    /// The source of the bytes.
    pub stream: LogSource,
    /// The bytes; empty for an event.
    pub data: Vec<u8>,
    /// The event, if it is one.
    pub event: Option<LogEvent>,
}

/// The source of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogSource {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
    /// The session itself.
    Event,
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogEvent {
    /// It started.
    Started {
        /// Its pid in the sandbox.
        pid: u32,
        /// Program and arguments; invalid UTF-8 is replaced.
        argv: Vec<String>,
        /// Whether it has a terminal.
        tty: bool,
    },
    /// It exited; its own output comes before this.
    Exited {
        /// Its exit code; -1 if a signal killed it.
        code: i32,
        /// The signal that killed it.
        signal: Option<u8>,
        /// Whether it dumped core.
        core_dumped: bool,
        /// Whether it timed out.
        timed_out: bool,
    },
    /// It failed to start.
    Failed {
        /// Program and arguments; invalid UTF-8 is replaced.
        argv: Vec<String>,
        /// The kind of the failure, such as `not_found`.
        failure: String,
        /// The stage of the start that failed.
        stage: String,
        /// The errno in the sandbox, or 0.
        errno: i32,
        /// Why, in one line.
        message: String,
    },
    /// Its end is unknown: the connection to the sandbox was lost.
    Lost,
    /// An event of a later version of this library.
    #[serde(other)]
    Unknown,
}

/// The JSON form of a record.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    t: Cow<'a, str>,
    session: Cow<'a, str>,
    stream: LogSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Cow<'a, LogEvent>>,
}

impl LogRecord {
    /// Returns the record as one JSON object, without a newline.
    pub fn to_json(&self) -> String {
        let mut line = Vec::new();
        match &self.event {
            Some(event) => put_event(&mut line, self.time, &self.session, event),
            None => put(&mut line, self.time, &self.session, self.stream, &self.data),
        }
        line.pop();
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Parses a line; `None` if it is not a complete record.
    pub(super) fn parse(line: &[u8]) -> Option<LogRecord> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        let data = match (line.text, line.base64, &line.event) {
            (Some(text), None, None) => text.into_owned().into_bytes(),
            (None, Some(base64), None) => STANDARD.decode(base64).ok()?,
            (None, None, Some(_)) => Vec::new(),
            _ => return None,
        };
        Some(LogRecord {
            time: humantime::parse_rfc3339(&line.t).ok()?,
            session: line.session.into_owned(),
            stream: line.stream,
            data,
            event: line.event.map(Cow::into_owned),
        })
    }
}

/// Appends the records of a stream's bytes: up to three if a character is split.
pub(super) fn put_data(
    out: &mut Vec<u8>,
    time: SystemTime,
    session: &str,
    stream: LogSource,
    data: &[u8],
) {
    for piece in readable_pieces(data) {
        if !piece.is_empty() {
            put(out, time, session, stream, piece);
        }
    }
}

fn put(out: &mut Vec<u8>, time: SystemTime, session: &str, stream: LogSource, data: &[u8]) {
    let (text, base64) = match std::str::from_utf8(data) {
        Ok(text) if !is_mostly_escapes(data) => (Some(Cow::Borrowed(text)), None),
        _ => (None, Some(STANDARD.encode(data))),
    };
    put_line(
        out,
        &Line { t: stamp(time), session: session.into(), stream, text, base64, event: None },
    );
}

/// Returns whether bytes are longer as text: JSON needs six bytes for most control characters.
fn is_mostly_escapes(data: &[u8]) -> bool {
    const FEW: usize = 64;
    let is_long = |byte: &&u8| **byte < 0x20 && !matches!(**byte, b'\t' | b'\n' | b'\r');
    data.iter().filter(is_long).count() * 5 > data.len() / 3 + FEW
}

/// Appends the record of an event.
pub(super) fn put_event(out: &mut Vec<u8>, time: SystemTime, session: &str, event: &LogEvent) {
    put_line(
        out,
        &Line {
            t: stamp(time),
            session: session.into(),
            stream: LogSource::Event,
            text: None,
            base64: None,
            event: Some(Cow::Borrowed(event)),
        },
    );
}

fn stamp(time: SystemTime) -> Cow<'static, str> {
    humantime::format_rfc3339_nanos(time).to_string().into()
}

fn put_line(out: &mut Vec<u8>, line: &Line<'_>) {
    // Cannot fail; an incomplete line would not be read as a record.
    let _ = serde_json::to_writer(&mut *out, line);
    out.push(b'\n');
}

/// Splits off partial characters at both ends, so that a character split between two chunks does
/// not turn a whole chunk into base64.
fn readable_pieces(data: &[u8]) -> [&[u8]; 3] {
    const REST: usize = 3;
    let is_rest = |byte: &&u8| **byte & 0xc0 == 0x80;
    let head = data.iter().take(REST).take_while(is_rest).count();
    let (head, rest) = data.split_at(head);
    match std::str::from_utf8(rest) {
        Ok(_) => [head, rest, &[]],
        Err(error) if error.error_len().is_none() => {
            let (text, tail) = rest.split_at(error.valid_up_to());
            [head, text, tail]
        }
        Err(_) => [data, &[], &[]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn read_back(data: &[u8]) -> (usize, Vec<u8>) {
        let mut out = Vec::new();
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 1);
        put_data(&mut out, time, "ab", LogSource::Stderr, data);
        let mut records = Vec::new();
        for line in out.split_inclusive(|byte| *byte == b'\n') {
            let record = LogRecord::parse(line).unwrap();
            assert_eq!((record.time, record.session.as_str()), (time, "ab"));
            assert_eq!(record.stream, LogSource::Stderr);
            assert_eq!(format!("{}\n", record.to_json()).as_bytes(), line);
            records.push(record.data);
        }
        (records.len(), records.concat())
    }

    #[test]
    fn d6_any_bytes_survive() {
        let all: Vec<u8> = (0..=255).collect();
        for data in [&all[..], b"", b"plain\n", b"\0\x1b[2J\"\\\r\n", "grün €".as_bytes()] {
            assert_eq!(read_back(data).1, data);
        }
    }

    #[test]
    fn d6_zeros_are_not_escaped() {
        let mut out = Vec::new();
        put_data(&mut out, UNIX_EPOCH, "s", LogSource::Stdout, &[0; 65_536]);
        assert!(out.len() < 90_000, "{}", out.len());
        assert_eq!(read_back(&[0; 65_536]).1, [0; 65_536]);
        out.clear();
        put_data(&mut out, UNIX_EPOCH, "s", LogSource::Stdout, b"\x1b[1mbold\x1b[0m");
        assert!(String::from_utf8_lossy(&out).contains("\"text\""));
    }

    #[test]
    fn d6_split_character_keeps_both_chunks_readable() {
        let text = "ä€😀ä€😀".as_bytes();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let ((n, a), (m, b)) = (read_back(first), read_back(second));
            assert_eq!([a, b].concat(), text);
            assert!(n <= 2 && m <= 2);
        }
        let mut out = Vec::new();
        put_data(&mut out, UNIX_EPOCH, "s", LogSource::Stdout, &"x€y€".as_bytes()[..7]);
        assert!(String::from_utf8(out).unwrap().contains("\"text\":\"x€y\""));
    }

    #[test]
    fn d6_line_prefix_is_no_record_unknown_event_is_one() {
        let mut out = Vec::new();
        let event =
            LogEvent::Exited { code: -1, signal: Some(9), core_dumped: false, timed_out: true };
        put_event(&mut out, UNIX_EPOCH, "s", &event);
        out.pop();
        assert_eq!(LogRecord::parse(&out).unwrap().event, Some(event));
        for end in 0..out.len() {
            assert_eq!(LogRecord::parse(&out[..end]), None);
        }
        let later = br#"{"t":"2026-01-01T00:00:00Z","session":"s","stream":"event","event":{"kind":"x","y":1}}"#;
        assert_eq!(LogRecord::parse(later).unwrap().event, Some(LogEvent::Unknown));
    }
}
