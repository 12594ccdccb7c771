//! The form of the cases, as `conformance/README.md` has it. What is not in it is refused.

use serde::Deserialize;
use std::collections::BTreeMap;

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
    pub(crate) times: Option<u32>,
    pub(crate) at_once: Option<u32>,
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

#[derive(Debug, Clone, Copy, Deserialize)]
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

/// Bytes: a text as such, or one of the forms.
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
    Hex(String),
    Repeat { of: Box<Bytes>, count: usize },
    Cycle(usize),
    Concat(Vec<Bytes>),
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
    GiveUp { on: Call, times: u32 },
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

/// What is to come of it. What is left out has the strict default that the README names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
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

/// How many errors of the input are told.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum StdinErrors {
    Number(u32),
    Word(AtMostOne),
}

/// The program may end before or after the failing write is seen.
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

/// What bytes are to be: exactly these, or all that is said of them.
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

impl Case {
    /// What serde cannot see.
    pub(crate) fn check(&self) -> Result<(), String> {
        let expect = &self.expect;
        let outcomes = [
            expect.failure.is_some(),
            expect.error.is_some(),
            expect.closed,
            expect.code.is_some() || expect.signal.is_some() || expect.timed_out,
        ];
        let rules = [
            (self.cmd.is_some() == self.script.is_some(), "needs either cmd or script"),
            (self.promises.is_empty(), "names no promise"),
            (outcomes.iter().filter(|is| **is).count() > 1, "expects two outcomes"),
            (self.also_tty && self.tty.is_some(), "has tty and also_tty"),
            (self.also_tty && expect.stderr.is_some(), "has also_tty and expects stderr"),
            (expect.events.is_some() && self.mode != Mode::Stream, "sees no events"),
            (self.at_once.is_some() && !self.steps.is_empty(), "has steps and at_once"),
            (self.at_once.is_some() && self.mode != Mode::Collect, "at_once but not collect"),
            (expect.closed && !self.steps.iter().any(|s| matches!(s, Step::Close)), "never closes"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, rule)) => Err(format!("case {:?} {rule}", self.name)),
            None => Ok(()),
        }
    }
}
