//! Drivers that cannot start: the error, and that nothing is left.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in shared code")]

mod support;

use std::fs;
use support::{Msb, image};

/// Returns the one error line of a start that must fail.
fn error_of(msb: &Msb, driver: &str, variable: &str, value: &str) -> String {
    let mut command = msb.command(&["run", "--driver", driver, image(), "--", "true"]);
    for known in ["MSB_KERNEL", "MSB_LIBKRUNFW"] {
        command.env_remove(known);
    }
    let output = command.env(variable, value).env("MSB_KRUN_UNCHECKED", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(msb.ok(&["ls", "--quiet"]), "", "{error}");
    error
}

#[test]
fn g_invalid_kernel_is_named_and_leaves_nothing() {
    let msb = Msb::new();
    let garbage = msb.home.path().join("garbage");
    fs::write(&garbage, "no kernel").unwrap();
    let garbage = garbage.to_str().unwrap();
    let error = error_of(&msb, "qemu", "MSB_LIBKRUNFW", garbage);
    assert!(error.contains(garbage), "{error}");
    // QEMU itself detects this.
    let error = error_of(&msb, "qemu", "MSB_KERNEL", garbage);
    assert!(error.contains("qemu") || error.contains("QEMU"), "{error}");
    let error = error_of(&msb, "krun", "MSB_LIBKRUNFW", garbage);
    if std::path::Path::new("/dev/kvm").exists() {
        assert!(error.contains(garbage), "{error}");
    } else {
        assert!(error.contains("/dev/kvm"), "{error}");
    }
}

#[test]
fn g_missing_kernel_is_named() {
    let msb = Msb::new();
    for (driver, variable) in [("qemu", "MSB_KERNEL"), ("qemu", "MSB_LIBKRUNFW")] {
        let error = error_of(&msb, driver, variable, "/nonexistent/kernel");
        assert!(error.contains("/nonexistent/kernel"), "{driver} {variable}: {error}");
    }
}
