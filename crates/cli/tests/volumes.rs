//! Mounts and volumes of `msb`, with container sandboxes.

mod support;

use std::fs;
use support::{Msb, image};

#[test]
fn l1_run_binds_a_directory_of_the_host() {
    let msb = Msb::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "host\n").unwrap();
    let path = host.path().to_str().unwrap();
    let bind = format!("{path}:/data");
    let out = msb.ok(&["run", "-v", &bind, image(), "sh", "-c", "cat /data/f; echo x > /data/g"]);
    assert_eq!(out, "host\n");
    assert_eq!(fs::read_to_string(host.path().join("g")).unwrap(), "x\n");
    let read_only = format!("type=bind,src={path},dst=/data,readonly");
    let error = msb.run(&["run", "--mount", &read_only, image(), "touch", "/data/h"]).err;
    assert!(error.contains("Read-only file system"), "{error}");
    let script = "df -k /t | tail -1 | awk '{print $2}'";
    assert_eq!(msb.ok(&["run", "--tmpfs", "/t:size=8m", image(), "sh", "-c", script]), "8192\n");
    // A relative path begins with a dot, and is that of the caller.
    let mut call = msb.command(&["run", "-v", "./:/data:ro", image(), "cat", "/data/f"]);
    assert_eq!(call.current_dir(host.path()).output().unwrap().stdout, b"host\n");
    let error = msb.fails(125, &["run", "-v", "/nowhere:/data", image(), "true"]);
    assert!(error.contains("cannot mount /data: /nowhere: No such file"), "{error}");
}

#[test]
fn l1_info_shows_mounts() {
    let msb = Msb::new();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().canonicalize().unwrap();
    let bind = format!("{}:/data:ro", path.display());
    msb.ok(&["create", "--name", "w", "-v", &bind, "-v", "cache:/cache", image()]);
    let text = msb.ok(&["info", "w"]);
    let shown = format!("{} at /data, read-only", path.display());
    assert!(text.contains(&shown) && text.contains("volume cache at /cache"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&msb.ok(&["inspect", "w", "--json"])).unwrap();
    let mounts = json["mounts"].as_array().unwrap();
    assert_eq!((&mounts[0]["target"], &mounts[0]["kind"]), (&"/cache".into(), &"named".into()));
    assert_eq!(
        (&mounts[1]["source"], &mounts[1]["readonly"]),
        (&path.to_str().unwrap().into(), &true.into())
    );
}

#[test]
fn l2_volume_commands_create_list_inspect_and_remove() {
    let msb = Msb::new();
    assert_eq!(msb.ok(&["volume", "create", "a", "--label", "team=x", "--quota", "1g"]), "a\n");
    let random = msb.ok(&["volume", "create"]);
    assert!(random.starts_with("volume-"), "{random}");
    assert_eq!(msb.ok(&["volume", "ls", "-q"]), format!("a\n{random}"));
    assert_eq!(
        msb.ok(&["volume", "ls", "--format", "{{.Name}}={{.Labels}}"]).lines().next(),
        Some("a=team=x")
    );
    let error = msb.fails(125, &["volume", "ls", "--format", "{{.Nothing}}"]);
    assert!(error.contains("unknown field"), "{error}");
    let json: serde_json::Value =
        serde_json::from_str(&msb.ok(&["volume", "inspect", "a"])).unwrap();
    assert_eq!((&json[0]["kind"], &json[0]["quota_mib"]), (&"directory".into(), &1024.into()));

    msb.ok(&["run", "-v", "a:/data", image(), "sh", "-c", "echo kept > /data/f"]);
    assert_eq!(msb.ok(&["run", "-v", "a:/data:ro", image(), "cat", "/data/f"]), "kept\n");
    msb.ok(&["create", "--name", "w", "-v", "a:/data", image()]);
    let error = msb.fails(125, &["volume", "rm", "a"]);
    assert!(error.contains("volume a is in use by sandbox w; remove it first"), "{error}");
    msb.ok(&["stop", "w"]);
    msb.fails(125, &["volume", "rm", "a"]);
    // A prune keeps it, and asks before it removes the other.
    let asked = msb.run(&["volume", "prune"]);
    assert_eq!(asked.code, 125);
    assert!(asked.err.contains("files: ") && asked.err.contains("not confirmed"), "{}", asked.err);
    assert_eq!(msb.ok(&["volume", "prune", "-f"]), random);
    msb.ok(&["rm", "w"]);
    assert_eq!(msb.ok(&["volume", "rm", "a"]), "a\n");
    let error = msb.fails(125, &["volume", "rm", "a"]);
    assert!(error.contains("volume a does not exist"), "{error}");
    msb.ok(&["volume", "rm", "-f", "a"]);
}
