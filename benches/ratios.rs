//! `make bench`: what this library costs, as ratios against a baseline in the same run.
//!
//! Machines are noisy, so the variants take turns and the median of the ratios of each turn is what
//! counts. Wants the release build of `make build` and a root filesystem in `target/rootfs`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark is a program for people, and stops where it cannot go on"
)]

use microsandbox::{ExecEvent, Sandbox};
use std::future::Future;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

const TURNS: usize = 200;
const STREAM_TURNS: usize = 7;
const STREAM_BYTES: usize = 512 << 20;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn time(f: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_secs_f64()
}

/// What is measured, and one turn of it.
type Variant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Runs the variants in turns; prints each one's median time and its ratio to the first.
fn compare(turns: usize, unit: f64, unit_name: &str, variants: &mut [Variant<'_>]) {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for turn in 0..turns + 1 {
        for ((_, run), times) in variants.iter_mut().zip(&mut times) {
            let took = time(run);
            // The first turn warms caches.
            if turn > 0 {
                times.push(took);
            }
        }
    }
    let baseline = times.first().cloned().unwrap_or_default();
    for ((name, _), times) in variants.iter().zip(&times) {
        let ratios = times.iter().zip(&baseline).map(|(own, base)| own / base).collect();
        let value =
            if unit > 0.0 { unit / median(times.clone()) } else { median(times.clone()) * 1e6 };
        println!("  {name:<44} {value:>10.0} {unit_name}   {:>6.2} x", median(ratios));
    }
}

/// A container of the OCI runtime alone, for `runc exec`.
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

/// Reads a pipe as a program would that runs the command itself.
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
    let home = tempfile::tempdir().unwrap();
    // A process of its own, since the environment is set before any thread is there.
    if std::env::var_os("MSB_BENCH").is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .env("MSB_BENCH", "1")
            .env("MSB_HOME", home.path())
            .env("MSB_DRIVER", "container")
            .env("MSB_RUNNER", root.join("target/release/msb-runner"))
            .env("MSB_AGENT", root.join("target/static/msb-agent"))
            .status();
        std::process::exit(status.unwrap().code().unwrap_or(1));
    }
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

    println!("From nothing to the first command's end (10 turns):");
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
