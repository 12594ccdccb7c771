//! Promise D6 at the prompt: `msb logs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::{Scene, image, said, shell_code, wait_for_line};

#[test]
fn d6_logs_prints_what_was_put_out_byte_for_byte_on_its_stream() {
    let scene = Scene::new();
    scene.ok(&["create", "--log", "--name", "w", image()]);
    let script = "printf 'a\\377\\n'; printf 'b\\376\\n' >&2; printf 'c\\000'";
    scene.output(&["exec", "w", "--", "sh", "-c", script]);
    let id = scene.ok(&["sessions", "-q", "w"]).trim().to_owned();
    scene.ok(&["exec", "w", "--", "echo", "other"]);
    scene.ok(&["stop", "w"]);
    let all = scene.output(&["logs", "w"]);
    assert_eq!(all.stdout, b"a\xff\nc\0other\n");
    assert_eq!((all.stderr, all.status.code()), (b"b\xfe\n".to_vec(), Some(0)));
    let one = scene.output(&["logs", "--session", &id, "w"]);
    assert_eq!(one.stdout, b"a\xff\nc\0");
    let records: Vec<serde_json::Value> = scene
        .ok(&["logs", "w", "--json", "--follow", "--session", &id.to_uppercase()])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(records.iter().all(|record| record["session"] == id.as_str()));
    assert_eq!(records[0]["event"]["kind"], "started");
    assert_eq!(records.last().unwrap()["event"]["code"], 0);
    assert!(records.iter().any(|record| record["base64"].is_string()));
    let plain = scene.ok(&["logs", "w", "--json"]);
    assert!(plain.contains("\"text\":\"other\\n\""), "{plain}");
    assert_eq!(scene.ok(&["logs", "w", "--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(scene.output(&["logs", "w", "--since", "1h"]).stdout, all.stdout);
}

#[test]
fn d6_logs_follows_until_the_sandbox_ends_and_says_what_is_wrong() {
    let scene = Scene::with_sandbox();
    scene.ok(&["create", "--log", "--name", "l", image()]);
    let mut following = scene.spawn(&["logs", "-f", "l"]);
    scene.ok(&["exec", "l", "--", "echo", "first"]);
    wait_for_line(&mut following, "first");
    scene.ok(&["exec", "l", "--", "echo", "second"]);
    wait_for_line(&mut following, "second");
    scene.ok(&["kill", "l"]);
    assert_eq!(said(following.wait_with_output().unwrap()).code, 0);
    assert!(scene.fails(125, &["logs", "w"]).contains("keeps no log"));
    assert!(scene.fails(125, &["logs", "none"]).contains("msb ls"));
    assert!(scene.fails(125, &["logs", "l", "--session", "x"]).contains("32"));
    assert!(scene.fails(125, &["logs", "l", "--since", "noon"]).contains("30s"));
}

#[test]
fn d6_a_log_is_asked_for_a_session_and_who_follows_it_learns_that_nobody_reads() {
    let scene = Scene::new();
    scene.ok(&["create", "--log", "--name", "l", image()]);
    scene.ok(&["exec", "l", "echo", "line"]);
    scene.ok(&["exec", "l", "echo", "other"]);
    let ids = scene.ok(&["sessions", "-q", "l"]);
    let id = &ids.lines().next().unwrap()[..12];
    assert_eq!(scene.ok(&["logs", "l", "--session", id]), "line\n");
    assert!(scene.fails(125, &["logs", "l", "--session", "012345678"]).contains("--json"));
    let mut child = scene.spawn(&["logs", "-f", "l"]);
    wait_for_line(&mut child, "line");
    drop(child.stdout.take());
    assert_eq!(shell_code(child.wait().unwrap()), 141);
}
