//! That the runner notices what is wrong: expectations that do not hold, and cases out of form.

use crate::format::{Bytes, Case, Match};
use crate::{guest, run_case};

fn case(text: &str) -> Case {
    let text = format!(r#"{{ "name": "x", "promises": ["A1"], {text} }}"#);
    let case: Case = serde_json::from_str(&text).unwrap();
    case.check().unwrap();
    case
}

/// What the runner says of a command that exits with 3 after writing to both outputs.
fn verdict(mode: &str, expect: &str) -> Vec<String> {
    let script = "echo out; echo err >&2; exit 3";
    let text = format!(r#""mode": "{mode}", "script": "{script}", "expect": {expect}"#);
    run_case(&case(&text), &guest::sandbox("default"))
}

#[test]
fn a1_every_wrong_expectation_of_an_exit_is_noticed() {
    let right = r#""code": 3, "stdout": "out\n", "stderr": "err\n""#;
    for mode in ["collect", "stream"] {
        assert_eq!(verdict(mode, &format!("{{ {right} }}")), [""; 0]);
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
        let right = right.to_owned();
        let also = [
            format!(r#"{{ {right}, "core": true }}"#),
            format!(r#"{{ {right}, "writer_left": true }}"#),
            format!(r#"{{ {right}, "within_ms": 0 }}"#),
            format!(r#"{{ {right}, "at_least_ms": 60000 }}"#),
            format!(r#"{{ {right}, "usage": {{ "rss_min": 999999999999 }} }}"#),
        ];
        for expect in wrong.into_iter().map(str::to_owned).chain(also) {
            assert_eq!(verdict(mode, &expect).len(), 1, "{mode}: {expect}");
        }
    }
    for expect in [r#""truncated": true"#, r#""stdout_total": 5"#, r#""stderr_total": 0"#] {
        assert_eq!(verdict("collect", &format!("{{ {right}, {expect} }}")).len(), 1, "{expect}");
    }
}

#[test]
fn b1_wrong_expectations_of_events_are_noticed() {
    let run = |rest: &str| run_case(&case(rest), &guest::sandbox("default"));
    let echo = r#""mode": "stream", "cmd": "echo", "args": ["x"]"#;
    let expect = |text: &str| run(&format!(r#"{echo}, "expect": {{ "stdout": "x\n", {text} }}"#));
    assert_eq!(expect(r#""events": ["started", "stdout", "exited", "end"]"#), [""; 0]);
    assert_eq!(expect(r#""events": ["started", "exited", "stdout", "end"]"#).len(), 1);
    assert_eq!(expect(r#""stdin_errors": 1"#).len(), 1);
    let steps =
        |text: &str| run(&format!(r#"{echo}, "steps": [{text}], "expect": {{ "stdout": "x\n" }}"#));
    assert_eq!(steps(r#"{ "wait_stdout": "x" }"#), [""; 0]);
    let wrong = [
        r#"{ "wait_stdout": "y" }"#,
        r#"{ "wait_stderr": "x" }"#,
        r#"{ "wait_stdout": "x" }, { "wait_stdout": "x" }"#,
        r#"{ "wait": "stdin_error" }"#,
        r#"{ "write": "x" }"#,
        r#"{ "wait": "end" }, "kill""#,
        r#"{ "wait": "end" }, { "listed": "running" }"#,
        r#"{ "wait": "end" }, { "kill_fails": "closed" }"#,
        r#"{ "run": { "script": "exit 1" } }"#,
        r#"{ "run": { "script": "echo 1", "stdout": "2\n" } }"#,
    ];
    for step in wrong {
        assert_eq!(steps(step).len(), 1, "{step}");
    }
}

#[test]
fn e_wrong_expectations_of_failures_are_noticed() {
    let failure = |kind: &str, stage: &str, name: &str, path: &str| {
        let text = format!(
            r#""cmd": "nonexistent", "expect": {{ "failure": {{ "kind": "{kind}",
               "stage": "{stage}", "errno_name": "{name}", "path": "{path}" }} }}"#
        );
        run_case(&case(&text), &guest::sandbox("default")).len()
    };
    assert_eq!(failure("not_found", "execve", "ENOENT", "nonexistent"), 0);
    assert_eq!(failure("other", "execve", "ENOENT", "nonexistent"), 1);
    assert_eq!(failure("not_found", "fork", "ENOENT", "nonexistent"), 1);
    assert_eq!(failure("not_found", "execve", "", "nonexistent"), 1);
    assert_eq!(failure("not_found", "execve", "ENOENT", "other"), 1);
    let text = r#""cmd": "nonexistent", "expect": { "code": 127 }"#;
    assert_eq!(run_case(&case(text), &guest::sandbox("default")).len(), 1);
}

#[test]
fn cases_out_of_form_are_refused() {
    let wrong = [
        r#""cmd": "x", "unknown": 1"#,
        r#""cmd": "x", "expect": { "exit": 0 }"#,
        r#""cmd": "x", "steps": ["stop"]"#,
        r#""cmd": "x", "steps": [{ "kill": 1, "write": "x" }]"#,
        r#""cmd": { "texts": "x" }"#,
        r#""cmd": "x", "expect": { "stdout": { "begins": "x" } }"#,
        r#""cmd": "x", "mode": "watch""#,
    ];
    for text in wrong {
        let text = format!(r#"{{ "name": "x", "promises": ["A1"], {text} }}"#);
        assert!(serde_json::from_str::<Case>(&text).is_err(), "{text}");
    }
    let odd = [
        r#""cmd": "x", "script": "y""#,
        r#""mode": "wait""#,
        r#""cmd": "x", "expect": { "code": 1, "error": "closed" }"#,
        r#""cmd": "x", "expect": { "events": ["end"] }"#,
        r#""cmd": "x", "expect": { "closed": true }"#,
    ];
    for text in odd {
        let text = format!(r#"{{ "name": "x", "promises": ["A1"], {text} }}"#);
        assert!(serde_json::from_str::<Case>(&text).unwrap().check().is_err(), "{text}");
    }
}

#[test]
fn what_is_said_of_bytes_holds_or_does_not() {
    let problem = |said: &str, got: &[u8]| {
        let said: Match = serde_json::from_str(said).unwrap();
        said.problem(got, "/own").is_some()
    };
    let table: [(&str, &[u8], &[u8]); 12] = [
        (r#""a@T@""#, b"a/own", b"a"),
        (r#"{ "hex": "61 ff" }"#, b"a\xff", b"a"),
        (r#"{ "cycle": 3 }"#, b"\0\x01\x02", b"\0\x01\x03"),
        (r#"{ "repeat": { "of": "ab", "count": 2 } }"#, b"abab", b"ab"),
        (r#"{ "concat": ["a", { "text": "b" }] }"#, b"ab", b"ba"),
        (r#"{ "exact": "a" }"#, b"a", b"aa"),
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
    for (said, right, wrong) in table {
        assert!(!problem(said, right), "{said}");
        assert!(problem(said, wrong), "{said}");
    }
    assert!(!problem("{}", b"anything"));
    let bytes: Bytes = serde_json::from_str(r#"{ "cycle": 252 }"#).unwrap();
    assert_eq!(bytes.value("").last(), Some(&0));
}
