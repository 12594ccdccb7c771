//! Messages on the pipe: a line with the lengths of the fields, then the fields.

use crate::bytes::show;
use crate::format::Kind;
use std::fmt;
use std::io::{BufRead, Error, Result, Write};
use std::str::FromStr;

/// Writes a message.
pub(crate) fn write(to: &mut impl Write, fields: &[Vec<u8>]) -> Result<()> {
    let lengths: Vec<String> = fields.iter().map(|field| field.len().to_string()).collect();
    writeln!(to, "{}", lengths.join(" "))?;
    fields.iter().try_for_each(|field| to.write_all(field))
}

/// Reads a message; `None` at the end.
pub(crate) fn read(from: &mut impl BufRead) -> Result<Option<Vec<Vec<u8>>>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let field = |length: &str| {
        let no_length = |_| Error::other(format!("no lengths: {}", show(line.as_bytes())));
        let mut field = vec![0; length.parse().map_err(no_length)?];
        from.read_exact(&mut field)?;
        Ok(field)
    };
    line.trim_end().split(' ').map(field).collect::<Result<_>>().map(Some)
}

/// One action for the testee: its name, and then names and values.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<Vec<u8>>);

impl Request {
    pub(crate) fn new(action: &str) -> Self {
        Request(vec![action.into()])
    }

    /// Creates a request about a sandbox or an exec, identified by the request that created it.
    pub(crate) fn of(action: &str, what: &str, id: u64) -> Self {
        Request::new(action).with(what, id)
    }

    /// Adds a value. One of several values of a name is one of a list.
    pub(crate) fn with(self, name: &str, value: impl ToString) -> Self {
        self.bytes(name, value.to_string().into_bytes())
    }

    pub(crate) fn bytes(mut self, name: &str, value: Vec<u8>) -> Self {
        self.0.extend([name.into(), value]);
        self
    }

    /// Returns the message.
    pub(crate) fn encode(mut self, id: u64) -> Vec<Vec<u8>> {
        self.0.insert(0, id.to_string().into_bytes());
        self.0
    }
}

/// Bytes of a reply, of which messages show the beginning.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Data(pub(crate) Vec<u8>);

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.0))
    }
}

/// An event, or the result of a request.
#[derive(Debug)]
pub(crate) enum Said {
    /// An event, with its output.
    Event(Kind, Data),
    Done(Done),
}

/// One message of the testee: which request it answers, and what it says.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) said: Said,
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Done {
    Ok,
    /// Of `hello`: properties of the language.
    Hello(Vec<String>),
    /// Of `start` and `reattach`: the session.
    Started(String),
    /// Of `take_stdin`, whether there was a sink; of `give_up`, whether the call completed.
    Yes(bool),
    /// Of `listed`.
    State(String),
    /// The call failed.
    Error {
        kind: String,
        message: String,
    },
    /// Of `wait`.
    Exited(Exited),
    /// Of `run` and `collect`.
    Collected(Exited, Output),
    Failed(Failed),
}

/// Why a language cannot express what a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cannot {
    /// A NUL ends its strings.
    Nul,
    /// `=` ends a variable's name.
    Equals,
    /// Zero is the default of an option.
    Zero,
    /// Programs and scripts are Unicode.
    Utf8,
}

impl Cannot {
    pub(crate) const ALL: [Self; 4] = [Cannot::Nul, Cannot::Equals, Cannot::Zero, Cannot::Utf8];

    /// Returns the word of `hello`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cannot::Nul => "nul",
            Cannot::Equals => "equals",
            Cannot::Zero => "zero",
            Cannot::Utf8 => "utf8",
        }
    }

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    /// 0 if none.
    pub(crate) signal: i32,
    pub(crate) core: bool,
    pub(crate) timed_out: bool,
    /// `None` if the language has no such field.
    pub(crate) success: Option<bool>,
    /// User and system together.
    pub(crate) cpu_us: u64,
    pub(crate) wall_us: u64,
    pub(crate) max_rss: u64,
}

/// The collected output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// The call failed because of its timeout, and the error contained this.
    pub(crate) raised: bool,
    pub(crate) stdout: Data,
    pub(crate) stderr: Data,
    pub(crate) stdout_total: u64,
    pub(crate) stderr_total: u64,
    pub(crate) truncated: bool,
    pub(crate) writer_left: bool,
}

/// Why a command failed to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: String,
    pub(crate) stage: String,
    pub(crate) errno: i32,
    pub(crate) errno_name: String,
    pub(crate) message: Data,
    pub(crate) path: Data,
}

impl Reply {
    /// Understands a message.
    pub(crate) fn new(fields: Vec<Vec<u8>>) -> Result<Reply> {
        let text = format!("{:?}", fields.iter().map(|field| show(field)).collect::<Vec<_>>());
        let mut fields = Fields(fields.into_iter());
        let reply = fields.reply().filter(|_| fields.0.next().is_none());
        reply.ok_or_else(|| Error::other(format!("no reply: {text}")))
    }
}

/// The fields of a reply that were not taken yet.
struct Fields(std::vec::IntoIter<Vec<u8>>);

impl Fields {
    fn data(&mut self) -> Option<Data> {
        self.0.next().map(Data)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.0.next()?).ok()
    }

    fn value<T: FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn reply(&mut self) -> Option<Reply> {
        let (id, word) = (self.value()?, self.text()?);
        let done = match word.as_str() {
            "event" => {
                let kind = serde_json::from_value(self.text()?.into()).ok()?;
                let has_data = matches!(kind, Kind::Stdout | Kind::Stderr);
                let data = if has_data { self.data()? } else { Data(Vec::new()) };
                return Some(Reply { id, said: Said::Event(kind, data) });
            }
            "ok" => Done::Ok,
            "hello" => Done::Hello(std::iter::from_fn(|| self.text()).collect()),
            "started" => Done::Started(self.text()?),
            "yes" => Done::Yes(self.value()?),
            "state" => Done::State(self.text()?),
            "error" => Done::Error {
                kind: kind_of(self.text()?),
                message: String::from_utf8_lossy(&self.data()?.0).into_owned(),
            },
            "exited" => Done::Exited(self.exited()?),
            "collected" => Done::Collected(self.exited()?, self.output()?),
            "failed" => Done::Failed(Failed {
                kind: self.text()?,
                stage: self.text()?,
                errno: self.value()?,
                errno_name: self.text()?,
                message: self.data()?,
                path: self.data()?,
            }),
            _ => return None,
        };
        Some(Reply { id, said: Said::Done(done) })
    }

    fn exited(&mut self) -> Option<Exited> {
        Some(Exited {
            code: self.value()?,
            signal: self.value()?,
            core: self.value()?,
            timed_out: self.value()?,
            success: match self.text()?.as_str() {
                "" => None,
                text => Some(text.parse().ok()?),
            },
            cpu_us: self.value()?,
            wall_us: self.value()?,
            max_rss: self.value()?,
        })
    }

    fn output(&mut self) -> Option<Output> {
        Some(Output {
            raised: self.value()?,
            stdout: self.data()?,
            stderr: self.data()?,
            stdout_total: self.value()?,
            stderr_total: self.value()?,
            truncated: self.value()?,
            writer_left: self.value()?,
        })
    }
}

/// Returns the kind of a status of C, which has one status for several kinds.
fn kind_of(name: String) -> String {
    match name.as_str() {
        "MSB_E_INVALID" => "invalid_argument".to_owned(),
        "MSB_E_PIPE" => "broken_pipe".to_owned(),
        // A closed handle is no longer valid.
        "MSB_E_CLOSED" | "MSB_E_HANDLE" => "closed".to_owned(),
        "MSB_E_NO_PROCESS" => "no_such_process".to_owned(),
        "MSB_E_NO_SESSION" => "no_such_session".to_owned(),
        "MSB_E_NOT_A_TERMINAL" => "not_a_terminal".to_owned(),
        _ => name,
    }
}
