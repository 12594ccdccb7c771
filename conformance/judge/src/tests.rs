//! The judge detects wrong expectations, invalid cases, and testees that violate the protocol.

use crate::command::asks_for;
use crate::format::{Bytes, Case, CaseFile, Kind, Match, WrongCases};
use crate::outcome::{End, Outcome, problems};
use crate::protocol::{
    Cannot, Data, Done, Exited, Failed, Reply, Request, Said, read as read_message,
    write as write_message,
};
use crate::received::Received;
use crate::testee::Testee;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

fn case(text: &str) -> Case {
    Case::unnamed(&serde_json::from_str(&format!("{{ {text} }}")).unwrap()).unwrap()
}

fn exited(code: i32) -> Exited {
    Exited {
        code,
        signal: 0,
        core: false,
        timed_out: false,
        success: Some(code == 0),
        cpu_us: 1000,
        wall_us: 1000,
        max_rss: 1,
    }
}

fn failed(kind: &str, stage: &str, message: &[u8], path: &[u8]) -> Failed {
    Failed {
        kind: kind.to_owned(),
        stage: stage.to_owned(),
        errno: 2,
        errno_name: "ENOENT".to_owned(),
        message: Data(message.to_vec()),
        path: Data(path.to_vec()),
    }
}

/// The outcome of a command that exits with 3 after writing to both outputs.
fn exit_3() -> Outcome {
    Outcome {
        output: Some((b"out\n".to_vec(), b"err\n".to_vec())),
        totals: Some((4, 4)),
        writer_left: Some(false),
        took: Duration::from_millis(5),
        ..Outcome::new(End::Exited(exited(3)), Instant::now())
    }
}

#[test]
fn a1_every_wrong_expectation_of_an_exit_is_detected() {
    let verdict = |expect: &str| {
        let text = format!(r#""cmd": "x", "expect": {expect}"#);
        problems(&case(&text), &exit_3(), "", false)
    };
    let right = r#""code": 3, "stdout": "out\n", "stderr": "err\n""#;
    assert_eq!(verdict(&format!("{{ {right} }}")), [""; 0]);
    let wrong = [
        r#"{ "code": 4, "stdout": "out\n", "stderr": "err\n" }"#,
        r#"{ "stdout": "out\n", "stderr": "err\n" }"#,
        r#"{ "signal": 3, "stdout": "out\n", "stderr": "err\n" }"#,
        r#"{ "timed_out": true, "stdout": "out\n", "stderr": "err\n" }"#,
        r#"{ "code": 3, "stdout": "out", "stderr": "err\n" }"#,
        r#"{ "code": 3, "stderr": "err\n" }"#,
        r#"{ "code": 3, "stdout": "out\n" }"#,
        r#"{ "code": 3, "stdout": { "len": 3 }, "stderr": {} }"#,
        r#"{ "code": 3, "stdout": { "absent": ["ut"] }, "stderr": {} }"#,
        r#"{ "error": "closed", "stdout": {}, "stderr": {} }"#,
        r#"{ "failure": { "kind": "other", "stage": "fork", "errno_name": "" },
             "stdout": {}, "stderr": {} }"#,
    ];
    let also = [
        r#""core": true"#,
        r#""writer_left": true"#,
        r#""within_ms": 0"#,
        r#""at_least_ms": 60000"#,
        r#""usage": { "rss_min": 999999999999 }"#,
        r#""usage": { "cpu_ms_min": 2 }"#,
        r#""usage": { "wall_ms_min": 2 }"#,
        r#""truncated": true"#,
        r#""stdout_total": 5"#,
        r#""stderr_total": 0"#,
    ];
    let also = also.iter().map(|expect| format!("{{ {right}, {expect} }}"));
    for expect in wrong.into_iter().map(str::to_owned).chain(also) {
        assert_eq!(verdict(&expect).len(), 1, "{expect}");
    }
    let mut odd = exit_3();
    odd.end = End::Exited(Exited { success: Some(true), ..exited(3) });
    let text = format!(r#""cmd": "x", "expect": {{ {right} }}"#);
    assert_eq!(problems(&case(&text), &odd, "", false).len(), 1, "a success with code 3");
}

#[test]
fn b1_wrong_expectations_of_events_are_detected() {
    use Kind::{End as Over, Exited as Exit, Failed, Lost, Started, StdinError, Stdout};
    let verdict = |events: &[Kind], expect: &str| {
        let outcome = Outcome {
            events: Some(events.to_vec()),
            stdin_errors: u32::from(events.contains(&StdinError)),
            ..Outcome::new(End::Exited(exited(0)), Instant::now())
        };
        let text = format!(r#""mode": "stream", "cmd": "x", "expect": {{ {expect} }}"#);
        problems(&case(&text), &outcome, "", false).len()
    };
    let usual = [Started, Stdout, Exit, Over];
    assert_eq!(verdict(&usual, r#""events": ["started", "stdout", "exited", "end"]"#), 0);
    assert_eq!(verdict(&usual, r#""events": ["started", "exited", "stdout", "end"]"#), 1);
    assert_eq!(verdict(&usual, r#""stdin_errors": 1"#), 1);
    assert_eq!(verdict(&usual, r#""stdin_errors": "at_most_one""#), 0);
    assert_eq!(verdict(&[Started, Exit, Stdout, Over], ""), 0, "another writer");
    let ill: [&[Kind]; 11] = [
        &[],
        &[Started, Exit],
        &[Started, Over],
        &[Exit, Over],
        &[Stdout, Started, Exit, Over],
        &[Started, Started, Exit, Over],
        &[Started, Exit, Exit, Over],
        &[Started, Exit, Over, Stdout],
        &[Started, Failed, Over],
        &[Lost, Stdout, Over],
        &[Started, Exit, StdinError, Over],
    ];
    for events in ill {
        assert_eq!(verdict(events, r#""stdin_errors": "at_most_one""#), 1, "{events:?}");
    }
}

#[test]
fn e_wrong_expectations_of_failures_are_detected() {
    let failed = |message: &[u8]| failed("not_found", "execve", message, b"nonexistent");
    let problems_of = |expect: &str, failed: Failed| {
        let text = format!(r#""cmd": "nonexistent", "expect": {{ {expect} }}"#);
        problems(&case(&text), &Outcome::new(End::Failed(failed), Instant::now()), "", false).len()
    };
    let wanted = |kind: &str, stage: &str, name: &str, path: &str| {
        format!(
            r#""failure": {{ "kind": "{kind}", "stage": "{stage}", "errno_name": "{name}",
               "path": "{path}" }}"#
        )
    };
    let count = |expect: String| problems_of(&expect, failed(b"no such file"));
    assert_eq!(count(wanted("not_found", "execve", "ENOENT", "nonexistent")), 0);
    assert_eq!(count(wanted("other", "execve", "ENOENT", "nonexistent")), 1);
    assert_eq!(count(wanted("not_found", "fork", "ENOENT", "nonexistent")), 1);
    assert_eq!(count(wanted("not_found", "execve", "", "nonexistent")), 1);
    assert_eq!(count(wanted("not_found", "execve", "ENOENT", "other")), 1);
    assert_eq!(count(r#""code": 127"#.to_owned()), 1);
    let right = wanted("not_found", "execve", "ENOENT", "nonexistent");
    assert_eq!(problems_of(&right, failed(b"")), 1);
    assert_eq!(problems_of(&right, failed(b"two\nlines")), 1);
    assert_eq!(problems_of(&right, Failed { errno: 0, ..failed(b"no such file") }), 1);
}

#[test]
fn path_that_is_not_utf8_is_compared_per_language() {
    let problems_of = |path: &[u8], lossy: bool| {
        let end = End::Failed(failed("bad_cwd", "chdir", b"no", path));
        let text = r#""cmd": "x", "expect": { "failure": { "kind": "bad_cwd", "stage": "chdir",
            "errno_name": "ENOENT", "path": { "hex": "2f ff" } } }"#;
        problems(&case(text), &Outcome::new(end, Instant::now()), "", lossy).len()
    };
    assert_eq!((problems_of(b"/\xff", false), problems_of(b"/\xff", true)), (0, 1));
    let replaced = "/\u{fffd}".as_bytes();
    assert_eq!((problems_of(replaced, false), problems_of(replaced, true)), (1, 0));
}

#[test]
fn invalid_cases_are_rejected() {
    let odd = [
        r#"{ "cmd": "x", "expect": { "code": 1, "error": "closed" } }"#,
        r#"{ "cmd": "x", "expect": { "events": ["end"] } }"#,
        r#"{ "cmd": "x", "at_once": 2, "steps": ["kill"] }"#,
        r#"{ "cmd": "x", "at_once": 2, "mode": "stream" }"#,
        r#"{ "cmd": "x", "tty": {}, "also_tty": true }"#,
        r#"{ "cmd": "x", "promises": [] }"#,
        r#"{ "cmd": "x", "promises": ["x"] }"#,
        r#"{ "cmd": { "hex": "0" } }"#,
        r#"{ "cmd": "x", "rlimits": [{ "resource": "time", "soft": 1, "hard": 1 }] }"#,
        r#"{ "cmd": "x", "steps": [{ "give_up": { "on": "recv", "times": 0 } }] }"#,
        r#"{ "cmd": "x", "expect": { "signal": 0 } }"#,
        r#"{ "cmd": "x", "expect": { "failure": { "kind": "odd", "stage": "fork", "errno_name": "" } } }"#,
    ];
    for text in odd {
        assert!(Case::unnamed(&serde_json::from_str(text).unwrap()).is_err(), "{text}");
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn schema_accepts_and_rejects_the_same_cases_as_the_judge() {
    let schema: Value = read("schema.json");
    let form = &schema["$defs"]["case"];
    for file in ["a-running", "b-streaming", "c-stdin", "d-ending", "e-failures"] {
        let file = format!("cases/{file}.json");
        assert!(fits(&read(&file), &schema, &schema), "{file}");
        read::<CaseFile>(&file).cases.iter().for_each(|case| case.check().unwrap());
    }
    let wrong: WrongCases = read("wrong-cases.json");
    assert!(wrong.wrong.len() > 60 && wrong.out_of_form.len() > 15);
    let named = |case: &Value| {
        let mut case = case.clone();
        case["name"] = "x".into();
        case["promises"] = json!(["A1"]);
        case
    };
    for case in &wrong.wrong {
        assert!(fits(&named(case), form, &schema), "{case}");
    }
    for case in &wrong.out_of_form {
        assert!(!fits(&named(case), form, &schema), "{case}");
        assert!(Case::unnamed(case).is_err(), "{case}");
    }
}

/// Returns whether a value matches a schema; supports only what our schema uses.
fn fits(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str() {
        return fits(value, root.pointer(&name[1..]).unwrap(), root);
    }
    let among =
        |list: &Value| list.as_array().unwrap().iter().filter(|s| fits(value, s, root)).count();
    let kind = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some(other) => panic!("a type {other}"),
    };
    let limit =
        |name: &str, holds: fn(i64, i64) -> bool| match (value.as_i64(), schema[name].as_i64()) {
            (Some(value), Some(limit)) => holds(value, limit),
            _ => true,
        };
    let names = |list: &Value| {
        list.as_array()
            .into_iter()
            .flatten()
            .all(|name| value.get(name.as_str().unwrap()).is_some())
    };
    kind && (schema["const"].is_null() || schema["const"] == *value)
        && schema["enum"].as_array().is_none_or(|list| list.contains(value))
        && (schema["anyOf"].is_null() || among(&schema["anyOf"]) > 0)
        && (schema["oneOf"].is_null() || among(&schema["oneOf"]) == 1)
        && limit("minimum", |value, limit| value >= limit)
        && limit("maximum", |value, limit| value <= limit)
        && value.as_str().is_none_or(|text| {
            schema["pattern"].as_str().is_none_or(|p| regex::Regex::new(p).unwrap().is_match(text))
        })
        && value.as_array().is_none_or(|items| {
            let count = |name: &str| schema[name].as_u64().map(|n| usize::try_from(n).unwrap());
            let form = |at: usize| schema["prefixItems"].get(at).unwrap_or(&schema["items"]);
            count("minItems").is_none_or(|least| items.len() >= least)
                && count("maxItems").is_none_or(|most| items.len() <= most)
                && items.iter().enumerate().all(|(at, item)| fits(item, form(at), root))
        })
        && value.as_object().is_none_or(|fields| {
            let closed = schema["additionalProperties"] == false;
            names(&schema["required"])
                && schema["dependentRequired"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .all(|(field, list)| !fields.contains_key(field) || names(list))
                && fields.iter().all(|(name, value)| match schema["properties"].get(name) {
                    Some(form) => fits(value, form, root),
                    None => !closed,
                })
        })
}

#[test]
fn byte_expectations_match_or_differ() {
    let problem = |expected: &str, got: &[u8]| {
        let expected: Match = serde_json::from_str(expected).unwrap();
        expected.problem(got, "/own").is_some()
    };
    let table: [(&str, &[u8], &[u8]); 13] = [
        (r#""a@T@""#, b"a/own", b"a"),
        (r#"{ "hex": "61 ff" }"#, b"a\xff", b"a"),
        (r#"{ "cycle": 3 }"#, b"\0\x01\x02", b"\0\x01\x03"),
        (r#"{ "repeat": { "of": "ab", "count": 2 } }"#, b"abab", b"ab"),
        (r#"{ "concat": ["a", { "text": "b" }] }"#, b"ab", b"ba"),
        (r#"{ "exact": "a" }"#, b"a", b"aa"),
        (r#"{ "len": 2 }"#, b"ab", b"a"),
        (r#"{ "contains": ["b", "c"] }"#, b"abc", b"ab"),
        (r#"{ "absent": ["b", "c"] }"#, b"a", b"ac"),
        (r#"{ "matches": "a[0-9]+\n" }"#, b"a12\n", b"xa12\n"),
        (r#"{ "lines": ["b", "a"] }"#, b"a\nb\n", b"a\nb\nb\n"),
        (r#"{ "lines": ["a"] }"#, b"a\n", b"a"),
        (
            r#"{ "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }"#,
            b"abc",
            b"abd",
        ),
    ];
    for (expected, right, wrong) in table {
        assert!(!problem(expected, right), "{expected}");
        assert!(problem(expected, wrong), "{expected}");
    }
    assert!(!problem("{}", b"anything"));
    let bytes: Bytes = serde_json::from_str(r#"{ "cycle": 252 }"#).unwrap();
    assert_eq!(bytes.value("").get(249..), Some(&[249, 250, 0][..]));
    let lines: Match = serde_json::from_str(r#"{ "lines": ["@T@"] }"#).unwrap();
    assert_eq!(lines.problem(b"/own\n", "/own"), None);
}

#[test]
fn a_skip_needs_its_reason_in_the_case() {
    let table = [
        (
            Cannot::Nul,
            r#""cmd": "x", "args": ["a\u0000b"]"#,
            r#""cmd": "x", "stdin": { "bytes": "\u0000" }"#,
        ),
        (
            Cannot::Equals,
            r#""cmd": "x", "env": [["a=b", "c"]]"#,
            r#""cmd": "x", "env": [["a", "b=c"]]"#,
        ),
        (Cannot::Zero, r#""cmd": "x", "timeout_ms": 0"#, r#""cmd": "x", "timeout_ms": 1"#),
        (
            Cannot::Zero,
            r#""cmd": "x", "tty": { "rows": 0, "cols": 1 }"#,
            r#""cmd": "x", "tty": {}"#,
        ),
        (Cannot::Utf8, r#""cmd": { "hex": "ff" }"#, r#""cmd": "ü""#),
    ];
    for (cannot, with, without) in table {
        assert!(asks_for(&case(with), cannot), "{with}");
        assert!(!asks_for(&case(without), cannot), "{without}");
    }
}

#[test]
fn received_events_are_kept_in_order_with_one_end() {
    let mut received = Received::default();
    let bytes = b"1 5 6 2\n1eventstdoutab1 5 6 1\n1eventstdoutc1 5 11\n1eventstdin_error\
        1 5 3\n1eventend1 5 3\n1eventend";
    let mut from = &bytes[..];
    while let Some(fields) = read_message(&mut from).unwrap() {
        match Reply::new(fields).unwrap().said {
            Said::Event(kind, data) => received.take(kind, &data.0),
            done => panic!("{done:?}"),
        }
    }
    assert_eq!(received.events, [Kind::Stdout, Kind::StdinError, Kind::End]);
    assert_eq!((received.output(0), received.output(1)), (&b"abc"[..], &b""[..]));
    assert_eq!(received.stdin_errors, 1);
}

#[test]
fn invalid_replies_are_rejected() {
    for line in ["hello\n", "\n", "1 -1\n1", "1 2", "1 5\n1even"] {
        assert!(read_message(&mut line.as_bytes()).is_err(), "{line}");
    }
    assert!(read_message(&mut &b""[..]).unwrap().is_none());
    let said = |text: &str| text.split(' ').map(|field| field.as_bytes().to_vec()).collect();
    let reply = |text: &str| Reply::new(said(text));
    for wrong in [
        "1",
        "x ok",
        "1 nothing",
        "1 event began",
        "1 event stdout",
        "1 event end more",
        "1 ok more",
        "1 yes no",
        "1 exited 0",
        "1 exited x 0 false false true 1 1 1",
        "1 exited 0 0 false false true 1 1 1 1",
        "1 collected 0 0 false false true 1 1 1",
    ] {
        assert!(reply(wrong).is_err(), "{wrong}");
    }
    for right in ["1 event end", "1 event stdout x", "1 ok", "1 exited 0 0 false false true 1 1 1"]
    {
        reply(right).unwrap();
    }
    let of_c = reply("1 error MSB_E_HANDLE why").unwrap().said;
    assert!(matches!(of_c, Said::Done(Done::Error { kind, .. }) if kind == "closed"));
}

/// Runs a script as testee; returns its reply to one request, and how it ended.
fn answer(script: &str, patience: Duration) -> (Result<Done, String>, Result<(), String>) {
    let command = ["sh", "-c", script].map(Into::into);
    let testee = Testee::start(&command, Path::new("/nonexistent"), false).unwrap();
    let request = Request::new("x").bytes("y", b"abc".to_vec());
    let done = testee.ask(request, Instant::now() + patience, |_, _| Ok(()));
    (done.map(|answer| answer.done), testee.end(patience))
}

#[test]
fn testee_that_violates_the_protocol_fails() {
    const LONG: Duration = Duration::from_secs(60);
    let (ok, rest) = ("printf '1 2\\n1ok'", "cat >/dev/null");
    let (done, end) = answer(&format!("{ok}; {rest}"), LONG);
    assert!(matches!(done, Ok(Done::Ok)) && end.is_ok(), "{done:?} {end:?}");

    let (done, end) = answer(&format!("{ok}; {rest}; exit 3"), LONG);
    assert!(done.is_ok() && end.is_err_and(|why| why.contains("ended badly")));
    for (script, why) in [("hello", "protocol"), ("1 2\\n2ok", "no open request")] {
        let (done, end) = answer(&format!("printf '{script}\\n'; {rest}"), LONG);
        assert_eq!(done.unwrap_err(), "the testee is gone");
        assert!(end.as_ref().is_err_and(|end| end.contains(why)), "{end:?}");
    }
    assert!(answer("exit 0", LONG).0.is_err());
    let (done, end) = answer("exec sleep 600", Duration::from_millis(50));
    assert_eq!(done.unwrap_err(), "hung");
    assert_eq!(end.unwrap_err(), "the testee did not end with its input");
}

#[test]
fn a_message_is_a_line_of_lengths_and_its_fields() {
    let request = Request::of("write", "exec", 3).bytes("data", b"a\0\n".to_vec());
    let (fields, mut written) = (request.encode(7), Vec::new());
    write_message(&mut written, &fields).unwrap();
    assert_eq!(written, b"1 5 4 1 4 3\n7writeexec3dataa\0\n");
    assert_eq!(read_message(&mut &written[..]).unwrap(), Some(fields));
}
