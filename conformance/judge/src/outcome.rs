//! The outcome of a case, and its comparison with what the case expects.

use crate::format::{Bytes, Case, Expect, Failure, Kind, Match, Mode, Usage};
use crate::protocol::{Exited, Failed};
use crate::time::scaled;
use std::time::{Duration, Instant};

/// How a command, or the call that ran it, ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(Exited),
    Failed(Failed),
    Error {
        kind: String,
        message: String,
    },
    /// The handle was closed before the end.
    Closed,
}

/// Everything that a case can have expectations about.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// Standard output and error; `None` if the mode does not collect them.
    pub(crate) output: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) totals: Option<(u64, u64)>,
    pub(crate) truncated: bool,
    pub(crate) writer_left: Option<bool>,
    /// The kinds in order, with repeated output kinds merged; `None` if events were not recorded.
    pub(crate) events: Option<Vec<Kind>>,
    pub(crate) stdin_errors: u32,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Creates an outcome with only an end.
    pub(crate) fn new(end: End, begun: Instant) -> Self {
        Outcome {
            end,
            output: None,
            totals: None,
            truncated: false,
            writer_left: None,
            events: None,
            stdin_errors: 0,
            took: begun.elapsed(),
        }
    }
}

/// Returns every difference from the expectations, one sentence each.
///
/// With `lossy`, a path has U+FFFD in place of bytes that are not UTF-8.
pub(crate) fn problems(case: &Case, outcome: &Outcome, own_path: &str, lossy: bool) -> Vec<String> {
    let expect = &case.expect;
    let mut problems = Vec::new();
    problems.extend(end_problem(expect, &outcome.end, own_path, lossy));
    if let (Some((stdout, stderr)), false) = (&outcome.output, expect.closed) {
        let silent = Match::Exact(Bytes::Plain(String::new()));
        for (name, wanted, got) in
            [("stdout", &expect.stdout, stdout), ("stderr", &expect.stderr, stderr)]
        {
            let wanted = wanted.as_ref().unwrap_or(&silent);
            problems.extend(wanted.problem(got, own_path).map(|why| format!("{name}: {why}")));
        }
    }
    let mut compare = |name: &str, wanted: String, got: String| {
        if wanted != got {
            problems.push(format!("{name}: expected {wanted}, got {got}"));
        }
    };
    if let Some((stdout, stderr)) = outcome.totals {
        let wanted = (expect.stdout_total.unwrap_or(stdout), expect.stderr_total.unwrap_or(stderr));
        compare("totals", format!("{wanted:?}"), format!("{:?}", (stdout, stderr)));
        compare("truncated", expect.truncated.to_string(), outcome.truncated.to_string());
    }
    if let Some(writer_left) = outcome.writer_left {
        compare("writer_left", expect.writer_left.to_string(), writer_left.to_string());
    }
    if let Some(events) = &outcome.events {
        if !expect.stdin_errors.allow(outcome.stdin_errors) {
            let (wanted, got) = (expect.stdin_errors, outcome.stdin_errors);
            compare("stdin errors", format!("{wanted:?}"), got.to_string());
        }
        let wanted = expect.events.as_ref().unwrap_or(events);
        compare("events", format!("{wanted:?}"), format!("{events:?}"));
        if let Err(why) = grammar(events) {
            problems.push(format!("{why}: {events:?}"));
        }
    }
    problems.extend(time_problem(expect, outcome.took));
    problems
}

fn end_problem(expect: &Expect, end: &End, own_path: &str, lossy: bool) -> Option<String> {
    match (expect, end) {
        (Expect { closed: true, .. }, End::Closed) => None,
        (Expect { failure: Some(wanted), .. }, End::Failed(failed)) => {
            let named = |bytes: &Bytes| {
                let named = bytes.value(own_path);
                if lossy { String::from_utf8_lossy(&named).into_owned().into() } else { named }
            };
            failure_problem(wanted, failed, wanted.path.as_ref().map(named))
        }
        (Expect { error: Some(wanted), .. }, End::Error { kind, message }) => {
            (kind != wanted).then(|| format!("expected the error {wanted}, got {kind}: {message}"))
        }
        (Expect { closed: false, failure: None, error: None, .. }, End::Exited(status)) => {
            status_problem(expect, status)
        }
        _ => {
            let wanted = match expect {
                Expect { closed: true, .. } => "nobody to wait".to_owned(),
                Expect { failure: Some(failure), .. } => format!("{failure:?}"),
                Expect { error: Some(error), .. } => format!("the error {error}"),
                _ => "an exit".to_owned(),
            };
            Some(format!("expected {wanted}, got {end:?}"))
        }
    }
}

fn failure_problem(wanted: &Failure, got: &Failed, wanted_path: Option<Vec<u8>>) -> Option<String> {
    let same = wanted.kind == got.kind
        && wanted.stage == got.stage
        && wanted.errno_name == got.errno_name
        && (got.errno == 0) == wanted.errno_name.is_empty()
        && wanted_path.is_none_or(|wanted| wanted == got.path.0);
    if !same {
        return Some(format!("expected {wanted:?}, got {got:?}"));
    }
    let message = &got.message;
    let bad = message.0.is_empty() || message.0.contains(&b'\n');
    bad.then(|| format!("the message is not one line: {message:?}"))
}

fn status_problem(expect: &Expect, got: &Exited) -> Option<String> {
    let killed = if expect.timed_out && expect.code.is_none() { 9 } else { 0 };
    let signal = expect.signal.map_or(killed, Into::into);
    let code = expect.code.unwrap_or(if signal == 0 { 0 } else { -1 });
    let wanted = (code, signal, expect.timed_out, expect.core.unwrap_or(got.core));
    if wanted != (got.code, got.signal, got.timed_out, got.core) {
        let names = "(code, signal, timed out, core)";
        return Some(format!("expected {names} {wanted:?}, got {got:?}"));
    }
    let success = code == 0 && signal == 0;
    if got.success.unwrap_or(success) != success {
        return Some(format!("success is {:?} with {got:?}", got.success));
    }
    let usage = expect.usage?;
    let Usage { cpu_ms_min, rss_min, wall_ms_min } = usage;
    let enough = got.cpu_us >= cpu_ms_min.unwrap_or(0) * 1000
        && got.wall_us >= wall_ms_min.unwrap_or(0) * 1000
        && got.max_rss >= rss_min.unwrap_or(0);
    (!enough).then(|| format!("expected {usage:?}, got {got:?}"))
}

/// B1: `Started` once and first, unless the start failed; one ending; then the end, and nothing
/// after it.
fn grammar(events: &[Kind]) -> Result<(), &'static str> {
    use Kind::{End, Exited, Failed, Lost, Started, StdinError};
    let count = |kinds: &[Kind]| events.iter().filter(|kind| kinds.contains(kind)).count();
    if count(&[Exited, Failed, Lost]) != 1 {
        return Err("there is not one ending");
    }
    if events.last() != Some(&End) || count(&[End]) != 1 {
        return Err("there is not one end");
    }
    let before_end = events.len().checked_sub(2).and_then(|at| events.get(at));
    if count(&[Failed, Lost]) == 1 && !matches!(before_end, Some(Failed | Lost)) {
        return Err("a failure or loss is not the last event");
    }
    if count(&[Failed]) == 1 && events.len() != 2 {
        return Err("something came before the failure");
    }
    if count(&[Exited]) == 1 && (events.first() != Some(&Started) || count(&[Started]) != 1) {
        return Err("started is not the first event, once");
    }
    let exited = events.iter().position(|kind| *kind == Exited);
    let late = events.iter().rposition(|kind| *kind == StdinError);
    if exited.is_some() && late > exited {
        return Err("an error of the input after the exit");
    }
    Ok(())
}

fn time_problem(expect: &Expect, took: Duration) -> Option<String> {
    let least = Duration::from_millis(expect.at_least_ms.unwrap_or(0));
    if took < least {
        return Some(format!("expected at least {least:?}, took {took:?}"));
    }
    let most = scaled(Duration::from_millis(expect.within_ms?));
    (took > most).then(|| format!("expected at most {most:?}, took {took:?}"))
}

/// Removes the carriage returns that a terminal adds.
pub(crate) fn as_if_piped(outcome: &mut Outcome, mode: Mode) {
    if let (Some((stdout, _)), true) = (&mut outcome.output, mode != Mode::Wait) {
        let mut rest = std::mem::take(stdout).into_iter().peekable();
        while let Some(byte) = rest.next() {
            if byte != b'\r' || rest.peek() != Some(&b'\n') {
                stdout.push(byte);
            }
        }
    }
}
