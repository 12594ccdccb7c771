//! Messages on the pipe: one line of JSON, then the bytes that it refers to.

use crate::bytes::show;
use crate::format::Kind;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::{BufRead, Error, Result};

/// One action for the testee, with the bytes that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    line: Map<String, Value>,
    parts: Vec<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(action: &str) -> Self {
        Request { line: Map::from_iter([("do".to_owned(), action.into())]), parts: Vec::new() }
    }

    /// Creates a request about a sandbox or an exec, identified by the request that created it.
    pub(crate) fn of(action: &str, what: &str, id: u64) -> Self {
        Request::new(action).with(what, id)
    }

    /// Sets a field that is a number, a flag or a word that needs no escape in JSON.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.line.insert(field.to_owned(), value.into());
        self
    }

    /// Sets a field of bytes: the number of a part.
    pub(crate) fn bytes(mut self, field: &str, bytes: Vec<u8>) -> Self {
        let part = self.part(bytes);
        self.with(field, part)
    }

    /// Adds a part and returns its number.
    pub(crate) fn part(&mut self, bytes: Vec<u8>) -> usize {
        self.parts.push(bytes);
        self.parts.len() - 1
    }

    /// Returns the line and the parts that follow it.
    pub(crate) fn encode(mut self, id: u64) -> (String, Vec<Vec<u8>>) {
        let lengths: Vec<usize> = self.parts.iter().map(Vec::len).collect();
        self.line.insert("id".to_owned(), id.into());
        self.line.insert("parts".to_owned(), lengths.into());
        (Value::Object(self.line).to_string(), self.parts)
    }
}

/// One line of the testee: an event, or the result of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) event: Option<Kind>,
    /// The part with an event's bytes.
    pub(crate) data: Option<usize>,
    pub(crate) done: Option<Done>,
    #[serde(default, rename = "parts")]
    lengths: Vec<usize>,
    #[serde(skip)]
    pub(crate) parts: Vec<Vec<u8>>,
}

/// The result of a request. A `usize` is the number of the part with the bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Done {
    Ok,
    /// Of `hello`: properties of the language.
    Hello {
        #[serde(default)]
        bare: bool,
        #[serde(default)]
        lossy: bool,
    },
    /// Of `start` and `reattach`.
    Started {
        session: String,
    },
    /// Of `take_stdin`: whether there was a sink.
    Sink(bool),
    /// Of `give_up`: whether the call completed.
    Ended(bool),
    /// Of `listed`.
    State(String),
    /// The call failed.
    Error {
        kind: String,
        message: usize,
    },
    /// The language cannot express this.
    Cannot(Cannot),
    /// Of `run`, `collect` and `wait`.
    Exited(Exited),
    Failed(Failed),
}

/// Why a language cannot express what a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cannot {
    /// A NUL ends its strings.
    Nul,
    /// `=` ends a variable's name.
    Equals,
    /// Zero is the default of an option.
    Zero,
    /// Its strings are Unicode.
    Utf8,
}

impl Cannot {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Cannot::Nul => "a NUL in a text that a NUL ends",
            Cannot::Equals => "'=' in a variable's name, which '=' ends",
            Cannot::Zero => "a zero that means the default",
            Cannot::Utf8 => "bytes that are not UTF-8 in a text",
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    /// 0 if none.
    pub(crate) signal: i32,
    pub(crate) core: bool,
    pub(crate) timed_out: bool,
    /// Absent if the language has no such field.
    pub(crate) success: Option<bool>,
    /// User and system together.
    pub(crate) cpu_us: u64,
    pub(crate) wall_us: u64,
    pub(crate) max_rss: u64,
    /// The call failed because of its timeout, and the error contained this.
    #[serde(default)]
    pub(crate) raised: bool,
    pub(crate) output: Option<Output>,
}

/// The collected output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Output {
    pub(crate) stdout: usize,
    pub(crate) stderr: usize,
    pub(crate) stdout_total: u64,
    pub(crate) stderr_total: u64,
    pub(crate) truncated: bool,
    pub(crate) writer_left: bool,
}

/// Why a command failed to start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    pub(crate) kind: String,
    pub(crate) stage: String,
    pub(crate) errno: i32,
    pub(crate) errno_name: String,
    pub(crate) message: usize,
    pub(crate) path: usize,
}

impl Reply {
    /// Reads a reply; `None` at the end.
    pub(crate) fn read(from: &mut impl BufRead) -> Result<Option<Reply>> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let mut reply: Reply = serde_json::from_slice(&line)
            .map_err(|error| Error::other(format!("{error} in {}", show(&line))))?;
        for length in std::mem::take(&mut reply.lengths) {
            let mut part = vec![0; length];
            from.read_exact(&mut part)?;
            reply.parts.push(part);
        }
        if reply.event.is_some() == reply.done.is_some() {
            return Err(Error::other(format!("neither event nor end: {}", show(&line))));
        }
        Ok(Some(reply))
    }
}
