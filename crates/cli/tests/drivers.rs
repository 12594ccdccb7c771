//! Drivers that cannot start: the error, and that nothing is left.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in shared code")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
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

#[test]
fn i_runtime_that_takes_no_descriptors_is_unusable() {
    // As runsc: it runs containers, but knows no --preserve-fds.
    let msb = Msb::new();
    let runtime = msb.home.path().join("runtime");
    let script = "#!/bin/sh\ncase \"$*\" in *--preserve-fds*)\n\
        echo 'flag provided but not defined: -preserve-fds' >&2; echo usage >&2; exit 128;;\n\
        esac\nexec runc \"$@\"\n";
    fs::write(&runtime, script).unwrap();
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = runtime.to_str().unwrap();
    let error = error_of(&msb, "container", "MSB_OCI_RUNTIME", runtime);
    assert!(error.contains("cannot be used") && !error.contains("usage"), "{error}");
    assert!(error.contains("flag provided but not defined: -preserve-fds"), "{error}");

    let report = msb.command(&["doctor"]).env("MSB_OCI_RUNTIME", runtime).output().unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    let row = report.lines().find(|line| line.starts_with("container ")).unwrap();
    assert!(row.contains("-preserve-fds") && row.contains(" no "), "{row}");
    // A trial of what works here does not fail for its exit.
    let report = msb.ok(&["doctor"]);
    let row = report.lines().find(|line| line.starts_with("container ")).unwrap();
    assert!(row.contains(" yes "), "{row}");
}
