//! `make bench`: the cost of this library, as ratios to a baseline in the same run.
//!
//! Machines are noisy, so the variants take turns and the result is the median of the ratios of
//! each turn. Requires the release build of `make build` and a root filesystem in `target/rootfs`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark prints, and panics on errors"
)]

mod common;

use common::{Variant, block_on, compare};
use microsandbox::{ExecEvent, Sandbox};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const TURNS: usize = 200;
const STREAM_TURNS: usize = 7;
const STREAM_BYTES: usize = 512 << 20;

/// A plain OCI container, for `runc exec`.
struct Runc {
    folder: tempfile::TempDir,
}

impl Runc {
    fn start(rootfs: &Path) -> Option<Runc> {
        let folder = tempfile::tempdir().ok()?;
        let bundle = folder.path();
        let spec = Command::new("runc").arg("spec").current_dir(bundle).status().ok()?;
        let path = bundle.join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        *config.pointer_mut("/process/terminal")? = false.into();
        *config.pointer_mut("/process/args")? = serde_json::json!(["/bin/sleep", "100000"]);
        *config.pointer_mut("/root/path")? = rootfs.to_str()?.into();
        std::fs::write(&path, config.to_string()).ok()?;
        let run = Command::new("runc")
            .args(["run", "--detach", "msb-bench"])
            .current_dir(bundle)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        (spec.success() && run.ok()?.success()).then_some(Runc { folder })
    }

    fn exec(&self) {
        let status = Command::new("runc")
            .args(["exec", "msb-bench", "/bin/true"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Runc {
    fn drop(&mut self) {
        let _ = Command::new("runc").args(["delete", "--force", "msb-bench"]).status();
    }
}

/// Reads a pipe like a program that runs the command itself.
fn read_pipe(command: &mut Command) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut buffer, mut total) = (vec![0; 65536], 0);
    loop {
        match output.read(&mut buffer).unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(total, STREAM_BYTES);
}

async fn stream(sandbox: &Sandbox, count: &str) {
    let script = ["if=/dev/zero", "bs=65536", count];
    let mut handle = sandbox.exec_stream("dd", script).await.unwrap();
    let (mut total, mut code) = (0, None);
    while let Some(event) = handle.recv().await {
        match event {
            ExecEvent::Stdout(data) => total += data.len(),
            ExecEvent::Exited { code: exited } => code = Some(exited),
            _ => {}
        }
    }
    assert_eq!((total, code), (STREAM_BYTES, Some(0)));
}

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let rootfs = root.join("target/rootfs");
    common::in_an_environment_of_its_own(&root, &[("MSB_DRIVER", "container")]);
    let busybox = rootfs.join("bin/busybox");
    let builder = || Sandbox::builder("bench").image(&rootfs).replace();
    let sandbox = block_on(builder().create()).unwrap();

    println!("One command, start to end ({TURNS} turns):");
    let runc = Runc::start(&rootfs);
    let mut variants: Vec<Variant<'_>> = vec![
        (
            "posix_spawn + wait of the same binary",
            Box::new(|| assert!(Command::new(&busybox).arg("true").status().unwrap().success())),
        ),
        (
            "exec (Rust, round trip)",
            Box::new(|| {
                let output = block_on(sandbox.exec("/bin/true", [] as [&str; 0])).unwrap();
                assert!(output.status().success);
            }),
        ),
    ];
    match &runc {
        Some(runc) => variants.push(("runc exec", Box::new(|| runc.exec()))),
        None => println!("  (no runc here: not compared)"),
    }
    compare(TURNS, 0.0, "us", &mut variants);
    drop(variants);

    let count = format!("count={}", STREAM_BYTES / 65536);
    println!("Streamed output, {} MiB ({STREAM_TURNS} turns):", STREAM_BYTES >> 20);
    compare(
        STREAM_TURNS,
        (STREAM_BYTES >> 20) as f64,
        "MiB/s",
        &mut [
            (
                "reading the same program's pipe",
                Box::new(|| {
                    read_pipe(Command::new(&busybox).stderr(Stdio::null()).args([
                        "dd",
                        "if=/dev/zero",
                        "bs=65536",
                        &count,
                    ]));
                }),
            ),
            ("exec_stream (Rust, events)", Box::new(|| block_on(stream(&sandbox, &count)))),
        ],
    );

    println!("Create, run one command, kill (10 turns):");
    compare(
        10,
        0.0,
        "us",
        &mut [
            (
                "posix_spawn + wait of the same binary",
                Box::new(|| {
                    assert!(Command::new(&busybox).arg("true").status().unwrap().success());
                }),
            ),
            (
                "create, exec, kill (container)",
                Box::new(|| {
                    let fresh = Sandbox::builder("fresh").image(&rootfs).replace();
                    let sandbox = block_on(fresh.create()).unwrap();
                    block_on(sandbox.exec("/bin/true", [] as [&str; 0])).unwrap();
                    block_on(sandbox.kill()).unwrap();
                }),
            ),
        ],
    );
    block_on(sandbox.stop_with_timeout(Duration::from_secs(1))).unwrap();
}
