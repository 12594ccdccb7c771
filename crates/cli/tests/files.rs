//! Promises K of `msb`: files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Msb, image};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn with_box() -> Msb {
    let msb = Msb::new();
    msb.ok(&["create", "--name", "box", image()]);
    msb
}

fn in_box(msb: &Msb, script: &str) -> String {
    msb.ok(&["exec", "box", "--", "sh", "-c", script])
}

fn names(path: &Path) -> Vec<String> {
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(path).unwrap().map(name).collect();
    names.sort();
    names
}

/// Waits for a condition; the clock only ends a test that fails.
fn wait_until(condition: impl Fn() -> bool, what: &str) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn k5_cp_has_dockers_rules_for_the_destination() {
    let msb = with_box();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).into_os_string().into_string().unwrap();
    fs::create_dir_all(at("d/sub")).unwrap();
    fs::write(at("d/sub/f"), "content").unwrap();
    fs::write(at("f"), "file").unwrap();
    symlink("f", at("l")).unwrap();
    in_box(&msb, "mkdir -p /t/dir; echo old > /t/old");
    // A file: to a new name, into a directory, over a file.
    msb.ok(&["cp", &at("f"), "box:/t/new"]);
    msb.ok(&["cp", &at("f"), "box:/t/dir"]);
    msb.ok(&["cp", &at("f"), "box:/t/old"]);
    assert_eq!(in_box(&msb, "cat /t/new /t/dir/f /t/old"), "filefilefile");
    let error = msb.fails(1, &["cp", &at("f"), "box:/t/missing/"]);
    assert!(error.contains("/t/missing/"), "{error}");
    // A directory: to a new name, into a directory, its content, not over a file.
    msb.ok(&["cp", &at("d"), "box:/t/copy"]);
    msb.ok(&["cp", &at("d"), "box:/t/dir"]);
    msb.ok(&["cp", &at("d/."), "box:/t/dir"]);
    let paths = "cat /t/copy/sub/f /t/dir/d/sub/f /t/dir/sub/f";
    assert_eq!(in_box(&msb, paths), "content".repeat(3));
    msb.fails(1, &["cp", &at("d"), "box:/t/new"]);
    // A link is copied, or followed.
    msb.ok(&["cp", &at("l"), "box:/t/link"]);
    msb.ok(&["cp", "-L", &at("l"), "box:/t/followed"]);
    assert_eq!(in_box(&msb, "readlink /t/link; cat /t/followed"), "f\nfile");
    // The same out of the sandbox.
    fs::create_dir(at("out")).unwrap();
    msb.ok(&["cp", "box:/t/copy", &at("out")]);
    msb.ok(&["cp", "box:/t/copy/.", &at("out")]);
    msb.ok(&["cp", "box:/t/copy", &at("out/new")]);
    msb.ok(&["cp", "box:/t/new", &at("out/file")]);
    for path in ["out/copy/sub/f", "out/sub/f", "out/new/sub/f"] {
        assert_eq!(fs::read_to_string(at(path)).unwrap(), "content", "{path}");
    }
    assert_eq!(names(Path::new(&at("out"))), ["copy", "file", "new", "sub"]);
    msb.fails(1, &["cp", "box:/t/new", &at("out/none/")]);
    msb.fails(1, &["cp", "box:/t/copy", &at("out/file")]);
    let error = msb.fails(1, &["cp", "box:/t/missing", &at("out")]);
    assert!(error.contains("/t/missing"), "{error}");
    msb.fails(1, &["cp", &at("f"), &at("g")]);
}

#[test]
fn k5_cp_passes_archives_and_copies_between_sandboxes() {
    let msb = with_box();
    msb.ok(&["create", "--name", "other", image()]);
    in_box(&msb, "mkdir -p /t/d; echo hello > /t/d/f; ln -s f /t/d/l");
    let archive = msb.output(&["cp", "box:/t/d", "-"]);
    assert!(archive.status.success() && archive.stdout.len() > 1024);
    msb.ok(&["fs", "mkdir", "-p", "other:/a/b"]);
    let fed = msb.run_with_input(&["cp", "-", "other:/a/b"], &archive.stdout);
    assert!(fed.status.success(), "{fed:?}");
    assert_eq!(msb.ok(&["fs", "cat", "other:/a/b/d/f"]), "hello\n");
    msb.ok(&["cp", "box:/t/d", "other:/a/copy"]);
    msb.ok(&["cp", "box:/t/d", "other:/a/b"]);
    assert_eq!(msb.ok(&["fs", "cat", "other:/a/copy/l", "other:/a/b/d/l"]), "hello\nhello\n");
    let cut = msb.run_with_input(&["cp", "-", "other:/a"], &archive.stdout[..700]);
    assert_eq!(cut.status.code(), Some(1));
    assert_eq!(msb.ok(&["fs", "ls", "other:/a"]), "b\ncopy\n");
}

#[test]
fn k5_cp_names_what_it_leaves_out_unless_quiet() {
    let msb = with_box();
    in_box(&msb, "mkdir /t; mkfifo /t/pipe");
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("t").into_os_string().into_string().unwrap();
    let output = msb.output(&["cp", "box:/t", &to]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.contains("pipe: FIFO"), "{error}");
    let output = msb.output(&["-q", "cp", "box:/t", &to]);
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn k4_a_killed_cp_leaves_nothing_on_either_side() {
    let msb = with_box();
    in_box(&msb, "mkdir /t; tr '\\0' x < /dev/zero | head -c 268435456 > /t/large");
    in_box(&msb, "head -c 20971520 /t/large > /t/medium");
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("large").into_os_string().into_string().unwrap();
    let mut copying = msb.spawn(&["cp", "box:/t/large", &to]);
    wait_until(|| !names(scratch.path()).is_empty(), "the copy does not begin");
    copying.kill().unwrap();
    copying.wait().unwrap();
    wait_until(|| names(scratch.path()).is_empty(), "the copy stays");
    // Into the sandbox, with an archive that has no end yet.
    let archive = msb.output(&["cp", "box:/t/medium", "-"]).stdout;
    let mut command = msb.command(&["cp", "-", "box:/srv"]);
    in_box(&msb, "mkdir -p /srv");
    let mut copying = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    copying.stdin.as_mut().unwrap().write_all(&archive[..10 << 20]).unwrap();
    in_box(&msb, "until [ -n \"$(ls -A /srv)\" ]; do usleep 10000; done");
    copying.kill().unwrap();
    copying.wait().unwrap();
    in_box(&msb, "until [ -z \"$(ls -A /srv)\" ]; do usleep 10000; done");
}

#[test]
fn k1_fs_commands_have_the_habits_of_coreutils() {
    let msb = with_box();
    let written = msb.run_with_input(&["fs", "write", "box:/f"], b"one\n");
    assert!(written.status.success(), "{written:?}");
    msb.run_with_input(&["fs", "write", "-a", "box:/f"], b"two\n");
    msb.fails(1, &["fs", "write", "box:/no/f"]);
    msb.run_with_input(&["fs", "write", "-p", "box:/made/f"], b"x");
    assert_eq!(msb.ok(&["fs", "cat", "box:/f", "box:/made/f"]), "one\ntwo\nx");
    msb.fails(1, &["fs", "mkdir", "box:/a/b"]);
    msb.ok(&["fs", "mkdir", "-p", "box:/a/b", "box:/a/b"]);
    msb.fails(1, &["fs", "mkdir", "box:/a"]);
    msb.ok(&["fs", "mv", "box:/f", "box:/a/g"]);
    msb.ok(&["fs", "mv", "box:/a/g", "box:/a/b"]);
    assert_eq!(msb.ok(&["fs", "ls", "-R", "box:/a"]), "box:/a:\nb\n\nbox:/a/b:\ng\n\n");
    let long = msb.ok(&["fs", "ls", "-l", "box:/a/b"]);
    assert!(long.starts_with("-rw-r--r--") && long.ends_with(" g\n"), "{long}");
    assert!(msb.ok(&["fs", "stat", "box:/a/b/g"]).contains("Size: 8\n"));
    msb.fails(1, &["fs", "rm", "box:/a"]);
    let error = msb.fails(1, &["fs", "rm", "box:/missing", "box:/made/f"]);
    assert!(error.contains("/missing"), "{error}");
    assert_eq!(msb.ok(&["fs", "ls", "box:/made"]), "", "the others were removed");
    msb.ok(&["fs", "rm", "-r", "-f", "box:/a", "box:/missing"]);
    msb.fails(1, &["fs", "ls", "box:/a"]);
    msb.fails(1, &["fs", "cat", "nosuch:/f"]);
    let denied = msb.fails(1, &["fs", "--user", "1000", "mkdir", "box:/root/x"]);
    assert!(denied.contains("permission"), "{denied}");
}
