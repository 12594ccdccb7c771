//! Promise J6: a sandbox can always be removed, whatever files it has.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use msb_state::{Companions, ErrorKind, Home, Request, list, remove};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{Scene, is_root, run_tests_as_ordinary_user};

/// A fixture in memory: on a disk mounted with `discard`, the removal of each directory waits for
/// the device.
fn scene() -> (Scene, tempfile::TempDir) {
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    (Scene::with_home(home.path().join("home").to_str().unwrap()), home)
}

/// Creates a stopped sandbox with a tree in its upper layer.
fn stopped_with(scene: &Scene, name: &str, fill: impl FnOnce(&Path)) {
    let mut config = scene.config(name);
    config.detached = true;
    scene.create(config).unwrap();
    scene.end(name, &Request::Kill);
    let upper = scene.dir(name).upper();
    fs::create_dir_all(&upper).unwrap();
    fill(&upper);
}

fn nest(top: &Path, depth: usize, name: &str) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = openat(&at, name, flags, Mode::empty()).unwrap();
    }
}

/// Removes sandboxes with a small stack and few descriptors, which the runner inherits: the body of
/// a host program.
#[test]
#[ignore = "started by other tests"]
fn helper_remover() {
    let home = Home::at(std::env::var_os("TEST_HOME").unwrap().as_ref()).unwrap();
    let companions = support::companions();
    for (resource, most) in [(Resource::Nofile, 64), (Resource::Stack, 128 * 1024)] {
        let mut limit = getrlimit(resource);
        (limit.current, limit.maximum) = (Some(most), Some(most));
        setrlimit(resource, limit).unwrap();
    }
    let work = || {
        for name in std::env::var("TEST_NAMES").unwrap().split(' ') {
            remove(&home, &name.parse().unwrap(), false, &companions).unwrap();
        }
        assert!(list(&home, Some(&companions)).unwrap().is_empty());
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(128 * 1024);
        thread.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
    assert_eq!(fs::read_dir(home.sandboxes()).unwrap().count(), 0);
}

fn remove_all(home: &Home, names: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "helper_remover", "--ignored", "--nocapture"]);
    let output = command.env("TEST_HOME", home.path()).env("TEST_NAMES", names).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
}

#[test]
fn j6_deep_trees_are_removed_by_a_small_host() {
    let (scene, _home) = scene();
    stopped_with(&scene, "deep", |upper| nest(upper, 100_000, "d"));
    stopped_with(&scene, "long", |upper| nest(upper, 10_000, &"n".repeat(255)));
    stopped_with(&scene, "closed", |upper| {
        fs::create_dir_all(upper.join("a/b/c")).unwrap();
        for closed in ["a/b/c", "a/b", "a", ""] {
            fs::set_permissions(upper.join(closed), Permissions::from_mode(0o0)).unwrap();
        }
    });
    remove_all(&scene.home, "deep long closed");
}

#[test]
fn j6_removal_without_a_runner_is_a_typed_error() {
    let (scene, _home) = scene();
    stopped_with(&scene, "a", |upper| fs::create_dir(upper.join("left")).unwrap());
    let none = Companions { runner: "/nonexistent/msb-runner".into(), agent: "/".into() };
    let error = remove(&scene.home, &"a".parse().unwrap(), false, &none).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().starts_with("cannot run /nonexistent/msb-runner: "), "{error}");
    // The name is free, and the next call with a runner removes the files.
    assert_eq!(scene.info("a").unwrap_err().kind(), ErrorKind::SandboxNotFound);
    assert!(list(&scene.home, None).unwrap().is_empty());
    assert_eq!(fs::read_dir(scene.home.sandboxes()).unwrap().count(), 1);
    assert!(list(&scene.home, Some(&scene.companions)).unwrap().is_empty());
    assert_eq!(fs::read_dir(scene.home.sandboxes()).unwrap().count(), 0);
}

#[test]
fn j6_sandbox_with_a_deep_tree_can_be_replaced() {
    let (scene, _home) = scene();
    stopped_with(&scene, "a", |upper| nest(upper, 1000, "d"));
    let options = msb_state::CreateOptions { replace: true };
    let config = scene.config("a");
    msb_state::create(&scene.home, config, options, &scene.companions).unwrap().wait().unwrap();
    scene.end("a", &Request::Kill);
    assert!(!scene.dir("a").upper().join("d").exists(), "a tree of the replaced sandbox is left");
}

#[test]
fn j6_removal_as_an_ordinary_user() {
    if is_root() {
        run_tests_as_ordinary_user();
    }
}
