//! Limits and isolation of a sandbox: options, and what `info`, `ls` and `doctor` show.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use support::{Msb, driver, image};

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the configuration that a command passes to the runner, and the command's errors. The
/// runner saves the configuration and fails.
fn configured(
    msb: &Msb,
    arguments: &[&str],
    require_jail: Option<&str>,
) -> (Option<Value>, String) {
    let seen = msb.home.path().join("seen.json");
    let script = format!(
        "[ \"$1\" = run ] || exec '{}' \"$@\"\ncp \"$3/config.json\" '{}'\nexit 1",
        support::binary().with_file_name("msb-runner").display(),
        seen.display()
    );
    let mut command = msb.command(arguments);
    command.env("MSB_RUNNER", msb.script("fake-runner", &script));
    if let Some(value) = require_jail {
        command.env("MSB_REQUIRE_JAIL", value);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let found = seen.exists().then(|| read_json(&seen)["config"].take());
    let _ = std::fs::remove_file(&seen);
    (found, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn j4_options_reach_the_stored_configuration() {
    let msb = Msb::new();
    let line = "create --name x --cpus 0.5 -m 256m --pids-limit 512 --disk 1g --security restricted \
                --stop-signal 2 --shm-size 1.5m --init";
    let arguments: Vec<&str> = line.split(' ').chain([image()]).collect();
    let config = configured(&msb, &arguments, None).0.unwrap();
    for (key, value) in [
        ("cpus", json!(0.5)),
        ("memory_mib", json!(256)),
        ("pids_limit", json!(512)),
        ("disk_mib", json!(1024)),
        ("shm_size", json!(3 << 19)),
        ("security", json!("restricted")),
        ("require_jail", json!(false)),
        ("stop_signal", json!("SIGINT")),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
}

#[test]
fn j2_info_and_ls_show_walls_and_bounds() {
    let msb = Msb::with_sandbox();
    let info = msb.json(&["info", "w", "--json"]);
    assert!(info["jailed"].is_boolean() && info["bounds"].is_object(), "{info}");
    msb.ok(&["stop", "w"]);
    // As the runner writes it, with known values.
    let path = msb.home.path().join("sandboxes/w/started.json");
    let mut started = read_json(&path);
    started["protection"] = json!({
        "jailed": false,
        "missing": ["quota: \u{1b}[31mnone here"],
        "bounds": {
            "pids": 512, "memory_bytes": 1_u64 << 31, "disk_bytes": null, "cpu_millis": 500,
        },
    });
    std::fs::write(&path, started.to_string()).unwrap();
    let info = msb.json(&["inspect", "w", "--json"]);
    assert_eq!(info["jailed"], json!(false));
    assert_eq!(info["missing_walls"], json!(["quota: \u{1b}[31mnone here"]));
    assert_eq!(
        info["bounds"],
        json!({ "pids": 512, "memory_bytes": 1_u64 << 31, "disk_bytes": null, "cpus": 0.5 })
    );
    assert_eq!(msb.json(&["ls", "--json"])[0], info);
    let text = msb.ok(&["info", "w"]);
    let own = driver();
    for line in [
        &*format!("Isolation:     {own}"),
        "Jailed:        no",
        "Missing wall:  quota: \\u{1b}[31mnone here",
        "Processes:     512",
        "Memory:        2 GiB",
        "Disk:          unlimited",
        "Cpus:          0.5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let listed = msb.ok(&["ls"]);
    let words: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..5], ["w", "stopped", &own, &own, "no"]);
}

#[test]
fn j2_doctor_shows_walls_and_missing_limits() {
    let msb = Msb::new();
    let report = json!({
        "drivers": [{
            "name": "container",
            "isolation": "container",
            "probe": { "Usable": "/usr/bin/runc" },
            "unbounded": ["memory: no control group is delegated"],
        }],
        "walls": [
            { "name": "seccomp", "missing": null, "remedy": null },
            { "name": "quota", "missing": "not ext4", "remedy": "mount it with prjquota" },
        ],
    });
    let runner = msb.script("fake-runner", &format!("echo '{report}'"));
    let run = |arguments: &[&str]| {
        let output = msb.command(arguments).env("MSB_RUNNER", &runner).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["doctor"]);
    for line in [
        "WALL     AVAILABLE  DETAILS",
        "seccomp  yes",
        "quota    no         not ext4; mount it with prjquota",
        "container  memory: no control group is delegated",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let found: Value = serde_json::from_str(&run(&["doctor", "--json"])).unwrap();
    assert_eq!(found["walls"][0], json!({ "wall": "seccomp", "missing": null, "hint": null }));
    assert_eq!(found["walls"][1]["hint"], json!("mount it with prjquota"));
    assert_eq!(found["drivers"][0]["unbounded"], json!(["memory: no control group is delegated"]));
}

#[test]
fn j2_required_jail_applies_to_create_and_start() {
    let msb = Msb::with_sandbox();
    msb.ok(&["stop", "w"]);
    let required = |arguments: &[&str], variable: Option<&str>| {
        configured(&msb, arguments, variable).0.map(|mut config| config["require_jail"].take())
    };
    let create = ["create", "--name", "x", image()];
    assert_eq!(required(&create, None), Some(json!(false)));
    assert_eq!(required(&create, Some("0")), Some(json!(false)));
    assert_eq!(required(&create, Some("1")), Some(json!(true)));
    let option = ["create", "--require-jail", "--name", "x", image()];
    assert_eq!(required(&option, None), Some(json!(true)));
    assert_eq!(required(&["start", "w"], None), Some(json!(false)));
    for arguments in [&create[..], &["start", "w"]] {
        let (found, error) = configured(&msb, arguments, Some("yes"));
        assert_eq!(found, None);
        assert!(error.contains("MSB_REQUIRE_JAIL is \"yes\""), "{error}");
    }
    assert_eq!(required(&["start", "w"], Some("1")), Some(json!(true)));
}
