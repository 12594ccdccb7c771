//! Promise D6: `msb logs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::{Msb, image, shell_code, wait, wait_for_line};

#[test]
fn d6_logs_prints_output_exactly_per_stream() {
    let msb = Msb::new();
    msb.ok(&["create", "--log", "--name", "w", image()]);
    let script = "printf 'a\\377\\n'; printf 'b\\376\\n' >&2; printf 'c\\000'";
    msb.output(&["exec", "w", "--", "sh", "-c", script]);
    let id = msb.ok(&["sessions", "-q", "w"]).trim().to_owned();
    msb.ok(&["exec", "w", "--", "echo", "other"]);
    msb.ok(&["stop", "w"]);
    let all = msb.output(&["logs", "w"]);
    assert_eq!(all.stdout, b"a\xff\nc\0other\n");
    assert_eq!((all.stderr, all.status.code()), (b"b\xfe\n".to_vec(), Some(0)));
    let one = msb.output(&["logs", "--session", &id, "w"]);
    assert_eq!(one.stdout, b"a\xff\nc\0");
    let records: Vec<serde_json::Value> = msb
        .ok(&["logs", "w", "--json", "--follow", "--session", &id.to_uppercase()])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(records.iter().all(|record| record["session"] == id.as_str()));
    assert_eq!(records[0]["event"]["kind"], "started");
    assert_eq!(records.last().unwrap()["event"]["code"], 0);
    assert!(records.iter().any(|record| record["base64"].is_string()));
    let plain = msb.ok(&["logs", "w", "--json"]);
    assert!(plain.contains("\"text\":\"other\\n\""), "{plain}");
    assert_eq!(msb.ok(&["logs", "w", "--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(msb.output(&["logs", "w", "--since", "1h"]).stdout, all.stdout);
}

#[test]
fn d6_logs_follows_until_the_sandbox_ends() {
    let msb = Msb::with_sandbox();
    msb.ok(&["create", "--log", "--name", "l", image()]);
    let mut following = msb.spawn(&["logs", "-f", "l"]);
    msb.ok(&["exec", "l", "--", "echo", "first"]);
    wait_for_line(&mut following, "first");
    msb.ok(&["exec", "l", "--", "echo", "second"]);
    wait_for_line(&mut following, "second");
    msb.ok(&["kill", "l"]);
    assert_eq!(wait(following).code, 0);
    assert!(msb.fails(125, &["logs", "w"]).contains("keeps no log"));
    assert!(msb.fails(125, &["logs", "none"]).contains("msb ls"));
    assert!(msb.fails(125, &["logs", "l", "--session", "x"]).contains("32"));
    assert!(msb.fails(125, &["logs", "l", "--since", "noon"]).contains("30s"));
}

#[test]
fn d6_logs_selects_a_session_and_ends_on_closed_output() {
    let msb = Msb::new();
    msb.ok(&["create", "--log", "--name", "l", image()]);
    msb.ok(&["exec", "l", "echo", "line"]);
    msb.ok(&["exec", "l", "echo", "other"]);
    let ids = msb.ok(&["sessions", "-q", "l"]);
    let id = &ids.lines().next().unwrap()[..12];
    assert_eq!(msb.ok(&["logs", "l", "--session", id]), "line\n");
    assert!(msb.fails(125, &["logs", "l", "--session", "012345678"]).contains("--json"));
    let mut child = msb.spawn(&["logs", "-f", "l"]);
    wait_for_line(&mut child, "line");
    drop(child.stdout.take());
    assert_eq!(shell_code(child.wait().unwrap()), 141);
}
