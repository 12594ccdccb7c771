//! What the drivers are compared with: processes and pipes of the host, and plain containers.

use crate::{BULK, PIECE};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The arguments of a `dd` that reads its input.
pub(crate) const READING: [&str; 2] = ["of=/dev/null", "bs=65536"];

/// The arguments of a `dd` that writes `BULK` bytes.
pub(crate) fn writing() -> [String; 3] {
    ["if=/dev/zero".into(), format!("bs={PIECE}"), format!("count={}", BULK / PIECE)]
}

/// Runs a process to its end.
pub(crate) fn run(busybox: &Path) {
    assert!(Command::new(busybox).arg("true").status().unwrap().success());
}

/// Reads a pipe like a program that runs the command itself.
pub(crate) fn read_pipe(busybox: &Path) {
    let mut command = Command::new(busybox);
    command.arg("dd").args(writing()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut buffer, mut total) = (vec![0; PIECE], 0);
    loop {
        match output.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(total, BULK);
}

/// Writes a pipe likewise.
pub(crate) fn write_pipe(busybox: &Path) {
    let mut command = Command::new(busybox);
    command.arg("dd").args(READING).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let piece = vec![0; PIECE];
    for _ in 0..BULK / PIECE {
        input.write_all(&piece).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

/// A plain OCI container.
pub(crate) struct Runc {
    name: &'static str,
    bundle: tempfile::TempDir,
}

impl Runc {
    pub(crate) fn start(rootfs: &Path, name: &'static str) -> Runc {
        let runc = Runc { name, bundle: tempfile::tempdir().unwrap() };
        runc.run(&["spec"]);
        let path = runc.bundle.path().join("config.json");
        let text = std::fs::read(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/bin/sleep", "100000"]);
        config["root"]["path"] = rootfs.to_str().unwrap().into();
        std::fs::write(&path, config.to_string()).unwrap();
        runc.run(&["run", "--detach", name]);
        runc
    }

    pub(crate) fn exec(&self) {
        self.run(&["exec", self.name, "/bin/true"]);
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("runc");
        command.args(arguments).current_dir(self.bundle.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", self.name]).status();
    }
}
