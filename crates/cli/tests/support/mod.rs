//! What the tests share: a home and an image of their own, and ways to run `msb` in them.

#![allow(dead_code, reason = "not every test uses every part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in what it shares with others"
)]

pub(crate) mod tmux;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

/// The busybox image; made once, since nothing ever writes to it.
pub(crate) fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        // A place that outlives this run is emptied by nobody; one per build directory is enough.
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rootfs");
        let made = Command::new(root().join("scripts/rootfs")).arg(&path).status().unwrap();
        assert!(made.success(), "scripts/rootfs needs busybox");
        path.to_str().unwrap().to_owned()
    })
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A home of its own, in which nothing is left running when it goes.
pub(crate) struct Scene {
    pub(crate) home: tempfile::TempDir,
}

/// How a call ended, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// What the tests were started with, `nohup` or `&`, may have this process, and with it those that it
/// starts, ignore signals that the tests send.
fn heed_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: no handler is set or replaced: the disposition is ignored or what it becomes.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// The program that is tested.
pub(crate) fn msb() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_msb"))
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene { home: tempfile::tempdir().unwrap() }
    }

    /// With one running sandbox, `w`.
    pub(crate) fn with_sandbox() -> Scene {
        let scene = Scene::new();
        scene.ok(&["create", "--name", "w", image()]);
        scene
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let agent = std::env::var_os("MSB_AGENT").map(PathBuf::from);
        let agent = agent.unwrap_or_else(|| root().join("target/static/msb-agent"));
        assert!(agent.is_file(), "build the agent first: make agent");
        let runner = msb().with_file_name("msb-runner");
        assert!(runner.is_file(), "build the runner first: cargo build -p msb-runner");
        heed_signals();
        let mut command = Command::new(msb());
        command.args(arguments).stdin(Stdio::null());
        command.env("MSB_HOME", self.home.path()).env("MSB_DRIVER", "container");
        command.env("MSB_RUNNER", runner).env("MSB_AGENT", agent);
        command
    }

    /// A runner that takes its time before it begins.
    pub(crate) fn slow_runner(&self) -> PathBuf {
        let runner = msb().with_file_name("msb-runner");
        let path = self.home.path().join("slow-runner");
        let script = format!("#!/bin/sh\nsleep 1\nexec '{}' \"$@\"\n", runner.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn say(&self, arguments: &[&str]) -> Said {
        said(self.output(arguments))
    }

    /// The standard output of a call that must succeed and have nothing to complain about.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.say(arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
        said.out
    }

    /// The complaint of a call that must fail: one line.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.say(arguments);
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{arguments:?}: {}", said.err);
        assert_eq!(said.err.matches('\n').count(), 1, "{}", said.err);
        said.err.strip_prefix("msb: ").expect("it says who complains").trim_end().to_owned()
    }

    /// Starts a call and leaves it running, with pipes to all its streams.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a call with this on its standard input.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // It may end without reading everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// The names of the sandboxes that exist, whatever their state.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ok(&["ls", "-q"]).lines().map(str::to_owned).collect()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let said = self.say(&["ls", "-q"]);
        for name in said.out.lines() {
            self.say(&["rm", "-f", name]);
        }
    }
}

/// What a shell has in `$?`.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        code: shell_code(output.status),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Sends a signal to a call.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Waits until a call has written this line, and leaves what comes behind it.
pub(crate) fn wait_for_line(child: &mut Child, line: &str) {
    let mut found = vec![0; line.len() + 1];
    child.stdout.as_mut().unwrap().read_exact(&mut found).unwrap();
    assert_eq!(found, format!("{line}\n").into_bytes());
}

/// As `output`, which would set the other streams as well, for standard error alone.
pub(crate) fn errors_of(command: &mut Command) -> Output {
    command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

/// An argument that is not UTF-8.
pub(crate) fn bytes(text: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(text)
}
