//! Shared by every test with a real sandbox: a small root filesystem, a state directory, and one
//! sandbox that tests may share.

#![allow(dead_code, reason = "not every test uses every part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper is a failed test")]

use microsandbox::{ExecEvent, ExecHandle, ExecOutput, Sandbox, SandboxBuilder};
use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a test waits for one event before it fails.
const PATIENCE: Duration = Duration::from_secs(180);

/// Returns how much slower than usual this machine is: `MSB_TEST_TIME_SCALE`, default 1.
pub(crate) fn scale() -> f64 {
    std::env::var("MSB_TEST_TIME_SCALE").map_or(1.0, |text| text.parse().unwrap())
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future to completion, without an executor.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let begun = Instant::now();
    let patience = PATIENCE.mul_f64(scale());
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                thread::park_timeout(patience.saturating_sub(begun.elapsed()));
                // Before the next poll, which might succeed without a wake-up.
                assert!(begun.elapsed() < patience, "nothing came for {patience:?}");
            }
        }
    }
}

/// Polls a future once.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Selects a state directory for this test program.
pub(crate) fn setup() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let program = std::env::current_exe().unwrap();
        let home = scratch().join("home").join(program.file_stem().unwrap());
        fs::create_dir_all(&home).unwrap();
        // SAFETY: every test calls this before it or the library reads the environment.
        unsafe { std::env::set_var("MSB_HOME", &home) };
    });
}

/// Returns the root filesystem: busybox, its applets, and files that cannot be executed.
pub(crate) fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<PathBuf> = OnceLock::new();
    ROOTFS.get_or_init(|| {
        let rootfs = scratch().join("rootfs-1");
        if !rootfs.exists() {
            let building = tempfile::tempdir_in(scratch()).unwrap();
            let root = building.path().join("root");
            build_rootfs(&root);
            // Another test program may have been faster.
            let _ = fs::rename(&root, &rootfs);
        }
        rootfs
    })
}

fn build_rootfs(root: &Path) {
    for dir in ["bin", "dev", "proc", "sys", "etc", "root", "tmp", "work", "home/me"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&path)
        .map(|folder| folder.join("busybox"))
        .find(|path| path.is_file())
        .expect("busybox-static is needed: apt-get install busybox-static");
    fs::copy(&busybox, root.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let write = |path: &str, mode: u32, content: &[u8]| {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    };
    write("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n");
    write("etc/group", 0o644, b"root:x:0:\nme:x:1000:\nextra:x:2000:me\n");
    write("bin/not-permitted", 0o644, b"#!/bin/sh\n");
    write("bin/not-a-program", 0o755, &[0x7f, b'E', b'L', b'F', 0, 1, 2, 3]);
    write("bin/no-interpreter", 0o755, b"#!/nonexistent/interpreter\n");
    write("work/hello", 0o755, b"#!/bin/sh\necho hello from $PWD\n");
}

/// Returns a builder with the root filesystem and a driver that runs everywhere.
pub(crate) fn builder(name: &str) -> SandboxBuilder {
    setup();
    let driver = std::env::var("MSB_DRIVER").unwrap_or_else(|_| "container".to_owned());
    Sandbox::builder(name).image(rootfs()).driver(driver).replace()
}

/// Creates a sandbox for one test.
pub(crate) fn sandbox(name: &str) -> Sandbox {
    block_on(builder(name).create()).unwrap()
}

/// Returns the sandbox that the tests of one program share. Tests must not change what others see.
pub(crate) fn shared() -> Sandbox {
    static SHARED: Mutex<Option<Sandbox>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap();
    shared.get_or_insert_with(|| sandbox("shared")).clone()
}

/// Returns the supervisor process of a sandbox of this test program.
pub(crate) fn runner_of(name: &str) -> i32 {
    let dir = format!("{}/sandboxes/{name}\0", std::env::var("MSB_HOME").unwrap());
    let is_runner = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains("msb-runner\0") && command.contains(&dir)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(is_runner)
        .expect("no runner")
}

/// Runs a script, which must succeed.
pub(crate) fn shell(sandbox: &Sandbox, script: &str) -> String {
    let output = block_on(sandbox.shell(script)).unwrap();
    assert!(output.status().success, "{script}: {output:?}");
    output.stdout().unwrap()
}

/// Waits until a shell condition holds in the sandbox.
pub(crate) fn wait_until(sandbox: &Sandbox, condition: &str) {
    shell(sandbox, &format!("until {condition}; do usleep 10000; done"));
}

/// Receives all remaining events.
pub(crate) fn rest(handle: &mut ExecHandle) -> Vec<ExecEvent> {
    std::iter::from_fn(|| block_on(handle.recv())).collect()
}

/// Returns the standard output in the events.
pub(crate) fn stdout_of(events: &[ExecEvent]) -> Vec<u8> {
    let data = |event: &ExecEvent| match event {
        ExecEvent::Stdout(data) => data.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(data).collect()
}

/// Returns the lines of standard output.
pub(crate) fn lines(output: &ExecOutput) -> Vec<String> {
    output.stdout().unwrap().lines().map(str::to_owned).collect()
}
