//! The request for a command, and the limitations of languages.

use crate::format::{Bytes, Case, Infinity, Limit, RESOURCES, Stdin};
use crate::protocol::{Cannot, Request};
use crate::time::scaled_ms;
use serde_json::json;

/// Returns the request that runs or starts the command of a case.
pub(crate) fn command(action: &str, sandbox: u64, case: &Case, own_path: &str) -> Request {
    let value = |bytes: &Bytes| bytes.value(own_path);
    let mut request = Request::of(action, "sandbox", sandbox);
    for (field, bytes) in [("cmd", &case.cmd), ("script", &case.script), ("cwd", &case.cwd)] {
        if let Some(bytes) = bytes {
            request = request.bytes(field, value(bytes));
        }
    }
    let args: Vec<usize> = case.args.iter().map(|arg| request.part(value(arg))).collect();
    request = env(request.with("args", args), &case.env, own_path);
    if let Some(user) = &case.user {
        request = request.bytes("user", user.clone().into_bytes());
    }
    if let Some(tty) = case.tty {
        request = request.with("tty", true);
        if let (Some(rows), Some(cols)) = (tty.rows, tty.cols) {
            request = request.with("rows", rows).with("cols", cols);
        }
    }
    // As text, since not every language reads 64-bit numbers from JSON.
    let number = |limit| match limit {
        Limit::Number(number) => number.to_string(),
        Limit::Word(Infinity::Infinity) => "-1".to_owned(),
    };
    let limits = case.rlimits.iter().map(|limit| {
        let resource = RESOURCES.iter().position(|name| *name == limit.resource);
        json!([limit.resource, resource, number(limit.soft), number(limit.hard)])
    });
    request = request.with("rlimits", limits.collect::<Vec<_>>());
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

/// Adds variables to a request: pairs of parts, in order.
pub(crate) fn env(mut request: Request, env: &[(Bytes, Bytes)], own_path: &str) -> Request {
    let mut part = |bytes: &Bytes| request.part(bytes.value(own_path));
    let pairs: Vec<_> = env.iter().map(|(name, value)| json!([part(name), part(value)])).collect();
    request.with("env", pairs)
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
        Cannot::Utf8 => texts.any(|text| std::str::from_utf8(&text).is_err()),
    }
}
