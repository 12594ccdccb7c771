//! The request for a command, and the limitations of languages.

use crate::format::{Bytes, Case, Infinity, Limit, RESOURCES, Stdin};
use crate::protocol::{Cannot, Request};
use crate::time::scaled_ms;

/// Returns the request that runs or starts the command of a case.
pub(crate) fn command(action: &str, sandbox: u64, case: &Case, own_path: &str) -> Request {
    let value = |bytes: &Bytes| bytes.value(own_path);
    let mut request = Request::of(action, "sandbox", sandbox);
    for (field, bytes) in [("cmd", &case.cmd), ("script", &case.script), ("cwd", &case.cwd)] {
        if let Some(bytes) = bytes {
            request = request.bytes(field, value(bytes));
        }
    }
    request = case.args.iter().fold(request, |request, arg| request.bytes("arg", value(arg)));
    request = env(request, &case.env, own_path);
    if let Some(user) = &case.user {
        request = request.bytes("user", user.clone().into_bytes());
    }
    if let Some(tty) = case.tty {
        request = request.with("tty", true);
        if let (Some(rows), Some(cols)) = (tty.rows, tty.cols) {
            request = request.with("rows", rows).with("cols", cols);
        }
    }
    let number = |limit| match limit {
        Limit::Number(number) => number.to_string(),
        Limit::Word(Infinity::Infinity) => "-1".to_owned(),
    };
    for limit in &case.rlimits {
        let resource = RESOURCES.iter().position(|name| *name == limit.resource);
        request = request.with("rlimit", &limit.resource);
        request = request.with("rlimit", resource.unwrap_or_default());
        request = request.with("rlimit", number(limit.soft)).with("rlimit", number(limit.hard));
    }
    request = match &case.stdin {
        Stdin::Null => request,
        Stdin::Pipe => request.with("stdin_pipe", true),
        Stdin::Bytes(bytes) => request.bytes("stdin", value(bytes)),
    };
    // A slow machine has more to do before a time limit as well.
    let stretched = |ms: Option<u64>| ms.map(scaled_ms);
    let numbers = [
        ("timeout_ms", stretched(case.timeout_ms)),
        ("drain_ms", stretched(case.drain_ms)),
        ("max_output", case.max_output),
    ];
    for (field, number) in numbers {
        if let Some(number) = number {
            request = request.with(field, number);
        }
    }
    if case.wait_for_eof { request.with("wait_for_eof", true) } else { request }
}

/// Adds variables to a request, in order: each name, and then its value.
pub(crate) fn env(request: Request, env: &[(Bytes, Bytes)], own_path: &str) -> Request {
    env.iter()
        .flat_map(|(name, value)| [name, value])
        .fold(request, |request, text| request.bytes("env", text.value(own_path)))
}

/// Returns whether a case needs what a language cannot express.
pub(crate) fn asks_for(case: &Case, cannot: Cannot) -> bool {
    let value = |bytes: &Bytes| bytes.value("");
    let names = || case.env.iter().map(|(name, _)| value(name));
    let mut texts = [&case.cmd, &case.script, &case.cwd]
        .into_iter()
        .flatten()
        .chain(&case.args)
        .chain(case.env.iter().flat_map(|(name, text)| [name, text]))
        .map(value);
    let tty = case.tty.unwrap_or_default();
    match cannot {
        Cannot::Nul => texts.any(|text| text.contains(&0)),
        Cannot::Equals => names().any(|name| name.contains(&b'=')),
        Cannot::Zero => {
            [case.timeout_ms, case.max_output].contains(&Some(0))
                || [tty.rows, tty.cols].contains(&Some(0))
        }
        Cannot::Utf8 => {
            let programs = [&case.cmd, &case.script].into_iter().flatten().map(value);
            programs.map(String::from_utf8).any(|text| text.is_err())
        }
    }
}
