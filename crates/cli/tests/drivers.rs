//! Drivers that cannot start anything: what they say, and that nothing is left.

#![allow(clippy::unwrap_used, reason = "a test may panic, also in what it shares with others")]

mod support;

use std::fs;
use support::{Scene, image};

/// The only line of an error, of a start that failed.
fn refused(scene: &Scene, driver: &str, variable: &str, value: &str) -> String {
    let mut command = scene.command(&["run", "--driver", driver, image(), "--", "true"]);
    for known in ["MSB_KERNEL", "MSB_LIBKRUNFW"] {
        command.env_remove(known);
    }
    let output = command.env(variable, value).env("MSB_KRUN_UNCHECKED", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(scene.ok(&["ls", "--quiet"]), "", "{said}");
    said
}

#[test]
fn g_a_kernel_that_is_none_is_an_error_that_names_it_and_leaves_nothing() {
    let scene = Scene::new();
    let garbage = scene.home.path().join("garbage");
    fs::write(&garbage, "no kernel").unwrap();
    let garbage = garbage.to_str().unwrap();
    let said = refused(&scene, "qemu", "MSB_LIBKRUNFW", garbage);
    assert!(said.contains(garbage), "{said}");
    // QEMU itself finds this out.
    let said = refused(&scene, "qemu", "MSB_KERNEL", garbage);
    assert!(said.contains("qemu") || said.contains("QEMU"), "{said}");
    let said = refused(&scene, "krun", "MSB_LIBKRUNFW", garbage);
    if std::path::Path::new("/dev/kvm").exists() {
        assert!(said.contains(garbage), "{said}");
    } else {
        assert!(said.contains("/dev/kvm"), "{said}");
    }
}

#[test]
fn g_a_kernel_that_is_not_there_is_an_error_that_names_it() {
    let scene = Scene::new();
    for (driver, variable) in [("qemu", "MSB_KERNEL"), ("qemu", "MSB_LIBKRUNFW")] {
        let said = refused(&scene, driver, variable, "/nonexistent/kernel");
        assert!(said.contains("/nonexistent/kernel"), "{driver} {variable}: {said}");
    }
}
