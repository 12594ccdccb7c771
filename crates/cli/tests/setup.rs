//! `msb setup gvisor`: what it builds, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in shared code")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use support::Msb;

/// Calls `msb setup gvisor` with the programs of one directory.
fn setup(msb: &Msb, programs: &str) -> Output {
    let mut command = msb.command(&["setup", "gvisor"]);
    command.env_remove("MSB_RUNSC").env("PATH", programs).output().unwrap()
}

/// Makes a `go` that is of a version and builds by a script.
fn fake_go(folder: &Path, version: &str, build: &str) -> String {
    let go = folder.join("go");
    let script = format!("#!/bin/sh\ncase $1 in env) echo '{version}';; *) {build};; esac\n");
    fs::write(&go, script).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// Returns the names in the home that belong to gVisor.
fn left(msb: &Msb) -> Vec<String> {
    let names = fs::read_dir(msb.home.path()).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("gvisor")).collect()
}

#[test]
fn i_setup_without_a_new_enough_go_says_what_to_install() {
    let (msb, folder) = (Msb::new(), tempfile::tempdir().unwrap());
    let missing = setup(&msb, folder.path().to_str().unwrap());
    let old = setup(&msb, &fake_go(folder.path(), "go1.19.8", "exit 9"));
    for (output, reason) in [(missing, "cannot run go"), (old, "go1.19.8 is too old")] {
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(reason) && error.contains("install Go 1.24 or newer"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(left(&msb).is_empty(), "{:?}", left(&msb));
}

#[test]
fn g_failed_build_of_gvisor_leaves_nothing() {
    let (msb, folder) = (Msb::new(), tempfile::tempdir().unwrap());
    let build = "echo half >$3; echo 'verifying x: checksum mismatch' >&2; exit 1";
    let output = setup(&msb, &fake_go(folder.path(), "go1.24", build));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("verifying x: checksum mismatch"), "{error}");
    assert!(left(&msb).is_empty(), "{:?}", left(&msb));
}

#[test]
fn gvisor_is_built_once_and_again_for_another_pin() {
    let (msb, folder) = (Msb::new(), tempfile::tempdir().unwrap());
    let programs = fake_go(folder.path(), "go1.24", "echo $PWD >$3; echo $GOFLAGS >>$3");
    let built = msb.home.path().canonicalize().unwrap().join("gvisor/runsc");
    let expected = format!("{}\n", built.display());
    let first = setup(&msb, &programs);
    assert_eq!(String::from_utf8_lossy(&first.stdout), expected, "{first:?}");
    assert!(first.stderr.is_empty(), "{first:?}");
    assert!(fs::read_to_string(&built).unwrap().ends_with("-mod=readonly\n"));
    assert_eq!(fs::metadata(&built).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(left(&msb), ["gvisor"]);

    fs::write(&built, "kept").unwrap();
    let second = setup(&msb, &programs);
    assert_eq!(String::from_utf8_lossy(&second.stdout), expected, "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("there already"), "{second:?}");
    assert_eq!(fs::read_to_string(&built).unwrap(), "kept");

    fs::write(built.with_file_name("go.sum"), "of an older version").unwrap();
    assert!(setup(&msb, &programs).status.success());
    assert_ne!(fs::read_to_string(&built).unwrap(), "kept");
}

#[test]
fn gvisor_is_built_from_its_module_and_runs_a_sandbox() {
    // `scripts/runsc` has built the same, so that Go has everything in its caches.
    if !support::root().join("target/gvisor/runsc").exists() {
        println!("skipped: scripts/runsc has built no runsc");
        return;
    }
    let msb = Msb::new();
    let go = Command::new("sh").args(["-c", "command -v go"]).output().unwrap();
    let go = String::from_utf8(go.stdout).unwrap();
    let folder = Path::new(go.trim()).parent().unwrap().to_str().unwrap();
    let output = setup(&msb, folder);
    assert!(output.status.success(), "{output:?}");
    let run = ["run", "--driver", "gvisor", support::image(), "--", "dmesg"];
    let run = msb.command(&run).env_remove("MSB_RUNSC").output().unwrap();
    assert!(String::from_utf8_lossy(&run.stdout).contains("Starting gVisor"), "{run:?}");
}
