//! The format of the cases, as in `conformance/README.md`. Anything else is rejected.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::num::{NonZeroI32, NonZeroU32};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    #[serde(rename = "$schema")]
    pub(crate) _schema: Option<String>,
    #[serde(rename = "title")]
    pub(crate) _title: String,
    pub(crate) cases: Vec<Case>,
}

/// Sandboxes by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    #[serde(default)]
    pub(crate) env: Vec<(Bytes, Bytes)>,
    pub(crate) workdir: Option<String>,
    pub(crate) shell: Option<String>,
    pub(crate) user: Option<String>,
}

pub(crate) type Profiles = BTreeMap<String, Profile>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) promises: Vec<String>,
    #[serde(default)]
    pub(crate) refs: Vec<String>,
    #[serde(default)]
    pub(crate) requires: Vec<Requirement>,
    /// Drivers on which it does not hold, each with the reason.
    #[serde(default)]
    pub(crate) not_on: BTreeMap<String, String>,
    #[serde(default = "default_profile")]
    pub(crate) sandbox: String,
    #[serde(default)]
    pub(crate) mode: Mode,
    pub(crate) cmd: Option<Bytes>,
    pub(crate) script: Option<Bytes>,
    #[serde(default)]
    pub(crate) args: Vec<Bytes>,
    #[serde(default)]
    pub(crate) env: Vec<(Bytes, Bytes)>,
    pub(crate) cwd: Option<Bytes>,
    pub(crate) user: Option<String>,
    pub(crate) tty: Option<Tty>,
    #[serde(default)]
    pub(crate) also_tty: bool,
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub(crate) stdin: Stdin,
    pub(crate) drain_ms: Option<u64>,
    #[serde(default)]
    pub(crate) wait_for_eof: bool,
    pub(crate) max_output: Option<u64>,
    pub(crate) times: Option<NonZeroU32>,
    pub(crate) at_once: Option<NonZeroU32>,
    #[serde(default)]
    pub(crate) before: Vec<Step>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    #[serde(default)]
    pub(crate) expect: Expect,
    #[serde(default)]
    pub(crate) after: Vec<Step>,
}

fn default_profile() -> String {
    "default".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Requirement {
    Root,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    #[default]
    Collect,
    Stream,
    Wait,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tty {
    pub(crate) rows: Option<u16>,
    pub(crate) cols: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rlimit {
    pub(crate) resource: String,
    pub(crate) soft: Limit,
    pub(crate) hard: Limit,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum Limit {
    Number(u64),
    Word(Infinity),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Infinity {
    Infinity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stdin {
    #[default]
    Null,
    Pipe,
    Bytes(Bytes),
}

/// Bytes: a text, or one of the forms.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Bytes {
    Plain(String),
    Form(Form),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Form {
    Text(String),
    Hex(Hex),
    Repeat { of: Box<Bytes>, count: usize },
    Cycle(usize),
    Concat(Vec<Bytes>),
}

/// Bytes as pairs of hexadecimal digits.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits: String = text.split(' ').collect();
        let known = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if !digits.bytes().all(known) || !digits.len().is_multiple_of(2) {
            return Err(format!("no pairs of hexadecimal digits: {text}"));
        }
        let pairs = digits.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()
            .map(Hex)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    Wait(Kind),
    WaitStdout(Bytes),
    WaitStderr(Bytes),
    WaitExit,
    Write(Bytes),
    WriteFails { data: Bytes, error: String },
    Feed(Bytes),
    CloseStdin,
    NoSink,
    Signal(i32),
    SignalFails { signal: i32, error: String },
    Kill,
    KillFails(String),
    Resize(u16, u16),
    ResizeFails { rows: u16, cols: u16, error: String },
    GiveUp { on: Call, times: NonZeroU32 },
    Close,
    Run(Run),
    Until(String),
    Listed(Listed),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) script: String,
    pub(crate) stdout: Option<Match>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Listed {
    Running,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Call {
    Recv,
    Wait,
    Collect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Started,
    Stdout,
    Stderr,
    StdinError,
    Exited,
    Failed,
    Lost,
    End,
}

impl Kind {
    /// Returns its name in cases and on the pipe.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Stdout => "stdout",
            Kind::Stderr => "stderr",
            Kind::StdinError => "stdin_error",
            Kind::Exited => "exited",
            Kind::Failed => "failed",
            Kind::Lost => "lost",
            Kind::End => "end",
        }
    }
}

/// The expected outcome. An absent field has the strict default that the README gives.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<NonZeroI32>,
    pub(crate) core: Option<bool>,
    #[serde(default)]
    pub(crate) timed_out: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) closed: bool,
    pub(crate) stdout: Option<Match>,
    pub(crate) stderr: Option<Match>,
    pub(crate) stdout_total: Option<u64>,
    pub(crate) stderr_total: Option<u64>,
    #[serde(default)]
    pub(crate) truncated: bool,
    #[serde(default)]
    pub(crate) writer_left: bool,
    #[serde(default)]
    pub(crate) stdin_errors: StdinErrors,
    pub(crate) events: Option<Vec<Kind>>,
    pub(crate) usage: Option<Usage>,
    pub(crate) within_ms: Option<u64>,
    pub(crate) at_least_ms: Option<u64>,
}

/// How many errors of the input are reported.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum StdinErrors {
    Number(u32),
    Word(AtMostOne),
}

/// The program may end before or after the failing write is noticed.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AtMostOne {
    AtMostOne,
}

impl Default for StdinErrors {
    fn default() -> Self {
        StdinErrors::Number(0)
    }
}

impl StdinErrors {
    pub(crate) fn allow(self, got: u32) -> bool {
        match self {
            StdinErrors::Number(number) => got == number,
            StdinErrors::Word(AtMostOne::AtMostOne) => got <= 1,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) stage: String,
    pub(crate) errno_name: String,
    pub(crate) path: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage {
    pub(crate) cpu_ms_min: Option<u64>,
    pub(crate) rss_min: Option<u64>,
    pub(crate) wall_ms_min: Option<u64>,
}

/// Expected bytes: exactly these, or all of several conditions.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Match {
    Exact(Bytes),
    All(Matches),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matches {
    pub(crate) exact: Option<Bytes>,
    pub(crate) len: Option<usize>,
    pub(crate) sha256: Option<String>,
    #[serde(default)]
    pub(crate) contains: Vec<Bytes>,
    #[serde(default)]
    pub(crate) absent: Vec<Bytes>,
    pub(crate) matches: Option<String>,
    pub(crate) lines: Option<Vec<String>>,
}

/// Cases that have to fail, and cases that have to be rejected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrongCases {
    #[serde(rename = "title")]
    pub(crate) _title: String,
    pub(crate) wrong: Vec<Value>,
    pub(crate) out_of_form: Vec<Value>,
}

/// The names of limits, in the order of Linux's numbers.
pub(crate) const RESOURCES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

const FAILURES: [&str; 10] = [
    "not_found",
    "permission_denied",
    "not_executable",
    "bad_cwd",
    "bad_args",
    "resource_limit",
    "user_setup_failed",
    "out_of_memory",
    "pty_setup_failed",
    "other",
];

const STAGES: [&str; 12] = [
    "admit",
    "resolve_user",
    "open_pty",
    "pipe",
    "fork",
    "setsid",
    "chdir",
    "rlimit",
    "setgroups",
    "setgid",
    "setuid",
    "execve",
];

impl Case {
    /// Reads one case of `wrong-cases.json`, whose name is its JSON.
    pub(crate) fn unnamed(case: &Value) -> Result<Case, String> {
        let mut whole = json!({ "name": case.to_string(), "promises": ["A1"] });
        if let (Value::Object(whole), Value::Object(case)) = (&mut whole, case) {
            whole.extend(case.clone());
        }
        let case: Case = serde_json::from_value(whole).map_err(|error| error.to_string())?;
        case.check()?;
        Ok(case)
    }

    /// Rejects errors that serde does not detect.
    pub(crate) fn check(&self) -> Result<(), String> {
        let expect = &self.expect;
        let outcomes = [
            expect.failure.is_some(),
            expect.error.is_some(),
            expect.closed,
            expect.code.is_some() || expect.signal.is_some() || expect.timed_out,
        ];
        let failure = expect.failure.as_ref();
        let half = |tty: Tty| tty.rows.is_some() != tty.cols.is_some();
        let rules = [
            (self.cmd.is_some() == self.script.is_some(), "needs either cmd or script"),
            (self.promises.is_empty(), "names no promise"),
            (!self.promises.iter().all(|name| is_promise(name)), "names what is no promise"),
            (outcomes.iter().filter(|is| **is).count() > 1, "expects two outcomes"),
            (self.tty.is_some_and(half), "has half a size of a terminal"),
            (self.also_tty && self.tty.is_some(), "has tty and also_tty"),
            (self.also_tty && expect.stderr.is_some(), "has also_tty and expects stderr"),
            (expect.events.is_some() && self.mode != Mode::Stream, "sees no events"),
            (self.at_once.is_some() && !self.steps.is_empty(), "has steps and at_once"),
            (self.at_once.is_some() && self.mode != Mode::Collect, "at_once but not collect"),
            (
                self.rlimits.iter().any(|l| !RESOURCES.contains(&&*l.resource)),
                "limits what is none",
            ),
            (failure.is_some_and(|f| !FAILURES.contains(&&*f.kind)), "expects no kind of failure"),
            (failure.is_some_and(|f| !STAGES.contains(&&*f.stage)), "expects no stage of a start"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(format!("case {:?} {rule}", self.name)),
            None => Ok(()),
        }
    }
}

/// Returns whether this is a letter, optionally with a number.
fn is_promise(name: &str) -> bool {
    let number = name.strip_prefix(|letter| matches!(letter, 'A'..='O'));
    number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
}
