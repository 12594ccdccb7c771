//! Shared by the tests: `msb` with a home and an image of its own.

#![allow(dead_code, reason = "not every test uses every part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

pub(crate) mod pty;
pub(crate) mod tmux;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

/// Returns the path of the busybox image. It is built once per build directory; nothing writes to
/// it.
pub(crate) fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rootfs");
        let made = Command::new(root().join("scripts/rootfs")).arg(&path).status().unwrap();
        assert!(made.success(), "scripts/rootfs needs busybox");
        path.to_str().unwrap().to_owned()
    })
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns the driver under test: `MSB_DRIVER`, else the one that runs everywhere. Of these two
/// drivers, the isolation has the same name.
pub(crate) fn driver() -> String {
    std::env::var("MSB_DRIVER").unwrap_or_else(|_| "container".to_owned())
}

/// Returns the path of the `msb` under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_msb"))
}

/// `msb` with a home of its own, whose sandboxes are removed on drop.
pub(crate) struct Msb {
    pub(crate) home: tempfile::TempDir,
}

/// The exit code of a call, as a shell has it in `$?`, and its output.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Restores default signal handling: `nohup` or `&` may have made this process, and so its
/// children, ignore signals that the tests send.
fn restore_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: no handler is replaced: the signal is ignored or already has the default.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

impl Msb {
    pub(crate) fn new() -> Msb {
        Msb { home: tempfile::tempdir().unwrap() }
    }

    /// With a running sandbox `w`.
    pub(crate) fn with_sandbox() -> Msb {
        let msb = Msb::new();
        msb.ok(&["create", "--name", "w", image()]);
        msb
    }

    /// Returns a call that has no standard input.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let agent = std::env::var_os("MSB_AGENT").map(PathBuf::from);
        let agent = agent.unwrap_or_else(|| root().join("target/static/msb-agent"));
        assert!(agent.is_file(), "build the agent first: make agent");
        let runner = binary().with_file_name("msb-runner");
        assert!(runner.is_file(), "build the runner first: cargo build -p msb-runner");
        restore_signals();
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null());
        command.env("MSB_HOME", self.home.path()).env("MSB_DRIVER", driver());
        command.env("MSB_RUNNER", runner).env("MSB_AGENT", agent);
        command
    }

    /// Sets the environment of a call of `msb` on another program.
    pub(crate) fn set_environment(&self, command: &mut Command) {
        let call = self.command(&[]);
        command.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    }

    /// Writes an executable shell script into the home.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        write_script(&path, text);
        path
    }

    /// Returns a runner that starts after a second.
    pub(crate) fn slow_runner(&self) -> PathBuf {
        let runner = binary().with_file_name("msb-runner");
        self.script("slow-runner", &format!("sleep 1\nexec '{}' \"$@\"", runner.display()))
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(self.output(arguments))
    }

    /// Returns the standard output of a call that must succeed and report nothing.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{arguments:?}");
        outcome.out
    }

    /// Returns the error of a call that must fail with one line.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let Outcome { code: found, out, err } = self.run(arguments);
        assert_eq!((found, out.as_str()), (code, ""), "{arguments:?}: {err}");
        assert_eq!(err.matches('\n').count(), 1, "{err}");
        says_nothing_twice(&err);
        err.strip_prefix("msb: ").expect("the line begins with msb").trim_end().to_owned()
    }

    /// Starts a call with pipes to all its streams.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs a call with this standard input.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.spawn(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The call may end without reading everything.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Returns the names of all sandboxes, running or not.
    pub(crate) fn names(&self) -> Vec<String> {
        self.ok(&["ls", "-q"]).lines().map(str::to_owned).collect()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }
}

impl Drop for Msb {
    fn drop(&mut self) {
        for name in self.run(&["ls", "-q"]).out.lines() {
            self.run(&["rm", "-f", name]);
        }
    }
}

/// Checks that no part of an error is in it twice, as when a text has its source's text in it.
pub(crate) fn says_nothing_twice(error: &str) {
    let parts: Vec<&str> = error.trim_end().split([':', ';']).map(str::trim).collect();
    for (at, part) in parts.iter().enumerate() {
        let before = parts.get(..at).unwrap_or_default();
        // Short ones are names and numbers.
        assert!(!part.contains(' ') || !before.contains(part), "{part:?} twice: {error}");
    }
}

/// Writes an executable shell script.
pub(crate) fn write_script(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Returns what a shell has in `$?`.
pub(crate) fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

pub(crate) fn outcome(output: Output) -> Outcome {
    Outcome {
        code: shell_code(output.status),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for a call and returns its outcome.
pub(crate) fn wait(child: Child) -> Outcome {
    outcome(child.wait_with_output().unwrap())
}

/// Sends a signal, also a real-time one, to a call.
pub(crate) fn signal_number(child: &Child, number: i32) {
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: touches no memory; the child was not waited for, so its id is its own.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

/// Sends a signal to a call.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// Waits until a call has written this line, and reads no further.
pub(crate) fn wait_for_line(child: &mut Child, line: &str) {
    let mut found = vec![0; line.len() + 1];
    child.stdout.as_mut().unwrap().read_exact(&mut found).unwrap();
    assert_eq!(found, format!("{line}\n").into_bytes());
}

/// Runs a call and captures standard error only; `output` would capture the other streams too.
pub(crate) fn capture_stderr(command: &mut Command) -> Outcome {
    wait(command.stderr(Stdio::piped()).spawn().unwrap())
}

/// Returns an argument that need not be UTF-8.
pub(crate) fn bytes(text: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(text)
}

/// Returns the id of the only running session of sandbox `w`.
pub(crate) fn running_session(msb: &Msb) -> String {
    let sessions = msb.json(&["sessions", "w", "--json"]);
    let running = |session: &&serde_json::Value| session["status"].is_null();
    sessions.as_array().unwrap().iter().find(running).unwrap()["id"].as_str().unwrap().to_owned()
}
