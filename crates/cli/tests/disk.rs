//! Promise J4: the files that a sandbox writes are limited, and reaching the limit affects no other
//! sandbox.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use support::Msb;

/// Whether upper layers can be limited on this host.
#[allow(clippy::print_stderr, reason = "says why the test was skipped")]
fn can_limit() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let can = root && Path::new("/dev/loop-control").exists();
    if !can {
        eprintln!("SKIPPED: only root with loop devices can limit the upper layer");
    }
    can
}

#[test]
fn j4_full_upper_layer_harms_nobody_else() {
    if !can_limit() {
        return;
    }
    let msb = Msb::with_sandbox();
    msb.ok(&["create", "--name", "other", support::image()]);
    let shell = |name: &str, script: &str| msb.run(&["exec", name, "--", "sh", "-c", script]);
    let full = shell("w", "fallocate -l 31G /a; fallocate -l 2G /b; echo x > /c");
    assert!(full.err.contains("No space left on device"), "{full:?}");
    let image = msb.home.path().join("sandboxes/w/layers.img");
    assert!(fs::metadata(&image).unwrap().blocks() * 512 < 1 << 30, "it is sparse");
    assert_eq!(shell("w", "echo alive").out, "alive\n");
    assert_eq!(shell("other", "echo y > /c && cat /c").out, "y\n");
    // The layer survives a restart.
    assert_eq!(shell("w", "rm /b && echo kept > /d && cat /d").out, "kept\n");
    msb.ok(&["stop", "w"]);
    msb.ok(&["start", "w"]);
    assert_eq!(shell("w", "cat /d; ls /a").out, "kept\n/a\n");
    msb.ok(&["rm", "-f", "w"]);
    assert!(!image.exists());
}

#[test]
fn j4_layer_is_not_mounted_twice_over_quick_restarts() {
    if !can_limit() {
        return;
    }
    let msb = Msb::with_sandbox();
    let image = msb.home.path().join("sandboxes/w/layers.img");
    for round in 0..5 {
        let append = format!("echo {round} >> /rounds");
        msb.ok(&["exec", "w", "--", "sh", "-c", &append]);
        msb.ok(&["stop", "w"]);
        msb.ok(&["start", "w"]);
    }
    assert_eq!(msb.ok(&["exec", "w", "--", "cat", "/rounds"]), "0\n1\n2\n3\n4\n");
    msb.ok(&["stop", "w"]);
    // Each mount followed the last, so the filesystem is intact.
    let check = std::process::Command::new("e2fsck").args(["-f", "-n"]).arg(&image).output();
    let check = check.expect("e2fsck is needed for this test");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
