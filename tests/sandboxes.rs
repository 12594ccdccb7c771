//! Promises G: the lifecycle of sandboxes.

mod common;

use common::{block_on, builder, poll_once, runner_of, sandbox, setup, shell};
use microsandbox::{ErrorKind, ExecEvent, Sandbox, SandboxStatus};
use std::pin::pin;
use std::time::{Duration, Instant};

#[test]
fn g_sandbox_is_created_found_listed_restarted_and_removed() {
    let sb = block_on(builder("life").label("k", "v").hostname("box").create()).unwrap();
    assert_eq!(sb.name(), "life");
    assert_eq!(shell(&sb, "hostname; echo kept > /root/file"), "box\n");
    let info = block_on(sb.info()).unwrap();
    assert_eq!(info.status, SandboxStatus::Running);
    assert_eq!(info.labels.get("k").map(String::as_str), Some("v"));
    let found = block_on(Sandbox::get("life")).unwrap();
    assert_eq!(shell(&found, "cat /root/file"), "kept\n");
    assert!(block_on(Sandbox::list()).unwrap().iter().any(|info| info.name == "life"));
    let error = block_on(Sandbox::remove("life")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxRunning);
    assert!(block_on(sb.stop_and_wait()).unwrap().success);
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Stopped);
    let error = block_on(found.shell("true")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxNotRunning, "{error}");
    let started = block_on(Sandbox::start("life")).unwrap();
    assert_eq!(shell(&started, "cat /root/file"), "kept\n");
    assert_eq!(shell(&found, "cat /root/file"), "kept\n", "an older handle finds it again");
    block_on(started.kill()).unwrap();
    block_on(Sandbox::remove("life")).unwrap();
    assert_eq!(block_on(Sandbox::get("life")).unwrap_err().kind(), ErrorKind::SandboxNotFound);
}

#[test]
fn g3_files_in_tmp_are_kept_when_a_sandbox_is_started_again() {
    let sb = sandbox("own-tmp");
    assert_eq!(shell(&sb, "ls -A /tmp; echo kept > /tmp/file"), "");
    block_on(sb.stop()).unwrap();
    let started = block_on(Sandbox::start("own-tmp")).unwrap();
    assert_eq!(shell(&started, "cat /tmp/file"), "kept\n");
    assert_eq!(shell(&started, "stat -c '%a %u' /tmp"), "1777 0\n");
    block_on(started.kill()).unwrap();
    block_on(Sandbox::remove("own-tmp")).unwrap();
}

#[test]
fn g_a_name_that_is_taken_is_refused_unless_replaced() {
    let first = sandbox("taken");
    shell(&first, "touch /root/first");
    let again = Sandbox::builder("taken").image(common::rootfs()).driver("container");
    let error = block_on(again.create()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxAlreadyExists);
    let second = sandbox("taken");
    assert_eq!(shell(&second, "ls /root"), "");
    block_on(second.kill()).unwrap();
}

#[test]
fn g_wait_returns_how_a_sandbox_ended() {
    let sb = sandbox("waited");
    let waiter = sb.clone();
    let waiter = std::thread::spawn(move || block_on(waiter.wait()));
    block_on(sb.kill()).unwrap();
    let status = waiter.join().unwrap().unwrap();
    assert_eq!((status.success, status.signal), (false, Some(libc::SIGKILL)));
    assert_eq!(block_on(sb.wait()).unwrap().signal, Some(libc::SIGKILL));
}

/// Waits until the number of a runner's descriptors satisfies a condition.
fn connections_until(runner: i32, what: &str, is_so: &dyn Fn(usize) -> bool) {
    let count = || std::fs::read_dir(format!("/proc/{runner}/fd")).map_or(0, Iterator::count);
    let begun = Instant::now();
    while !is_so(count()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {}", count());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn g_waiters_for_the_end_do_not_block_other_requests() {
    let sb = sandbox("awaited");
    let runner = runner_of("awaited");
    for _ in 0..200 {
        assert!(poll_once(pin!(sb.wait())).is_pending());
    }
    connections_until(runner, "idle connections are closed", &|count| count < 64);

    let wait = |sb: Sandbox| std::thread::spawn(move || block_on(sb.wait()).unwrap().signal);
    let waiters: Vec<_> = (0..100).map(|_| wait(sb.clone())).collect();
    connections_until(runner, "all wait", &|count| count > waiters.len());
    block_on(sb.kill()).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Some(libc::SIGKILL));
    }
}

#[test]
fn b7_a_killed_runner_ends_the_sandbox_for_all_clients() {
    let sb = sandbox("murdered");
    let mut handle = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    assert!(matches!(block_on(handle.recv()), Some(ExecEvent::Started { .. })));
    let waiter = sb.clone();
    let waiter = std::thread::spawn(move || block_on(waiter.wait()));
    let runner = runner_of("murdered");
    // SAFETY: sends a signal to a process that this test's own sandbox made.
    assert_eq!(unsafe { libc::kill(runner, libc::SIGKILL) }, 0);
    let events = common::rest(&mut handle);
    assert!(matches!(events.as_slice(), [ExecEvent::Lost(_)]), "{events:?}");
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::SandboxCrashed);
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Crashed);
}

#[test]
fn g_kill_is_served_during_many_graceful_stops() {
    let sb = sandbox("stubborn");
    let script = "trap '' TERM; echo on; while :; do sleep 600; done";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    while !matches!(block_on(handle.recv()).unwrap(), ExecEvent::Stdout(_)) {}
    let runner = runner_of("stubborn");
    let long = Duration::from_secs(600);
    let stop = |sb: Sandbox| std::thread::spawn(move || block_on(sb.stop_with_timeout(long)));
    let stops: Vec<_> = (0..100).map(|_| stop(sb.clone())).collect();
    connections_until(runner, "all stop it", &|count| count > stops.len());
    block_on(sb.kill()).unwrap();
    for stop in stops {
        stop.join().unwrap().unwrap();
    }
}

/// A runner that dies stops listening before its lock is free.
#[test]
fn b7_wait_without_a_listening_runner_returns_the_outcome() {
    let sb = sandbox("deaf");
    let runner = runner_of("deaf");
    let home = std::env::var("MSB_HOME").unwrap();
    std::fs::remove_file(format!("{home}/sandboxes/deaf/run/runner.sock")).unwrap();
    let waiter = sb.clone();
    let waiter = std::thread::spawn(move || block_on(waiter.wait()));
    assert_eq!(shell(&sb, "echo alive"), "alive\n");
    assert!(!waiter.is_finished(), "{:?}", waiter.join().unwrap());
    // SAFETY: sends a signal to a process that this test's own sandbox made.
    assert_eq!(unsafe { libc::kill(runner, libc::SIGKILL) }, 0);
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::SandboxCrashed);
}

#[test]
fn g_invalid_requests_have_typed_errors() {
    setup();
    let kind =
        |builder: microsandbox::SandboxBuilder| block_on(builder.create()).unwrap_err().kind();
    assert_eq!(kind(Sandbox::builder("no image")), ErrorKind::InvalidConfig);
    assert_eq!(kind(Sandbox::builder("no-image")), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").image("/nonexistent/x")), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").cpus(0)), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").cpus(-0.5)), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").memory(104_857_600)), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").shm_size(64)), ErrorKind::InvalidConfig);
    let more = builder("bad").memory(256).shm_size(257 << 20);
    assert_eq!(kind(more), ErrorKind::InvalidConfig, "than the memory");
    assert_eq!(kind(builder("bad").pids_limit(7)), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").disk(15)), ErrorKind::InvalidConfig);
    assert_eq!(kind(builder("bad").env("A=B", "")), ErrorKind::InvalidConfig);
    assert_eq!(block_on(Sandbox::get("never")).unwrap_err().kind(), ErrorKind::SandboxNotFound);
}

#[test]
fn j4_shared_memory_has_its_size_and_no_more() {
    let blocks = "df -k /dev/shm | tail -n 1 | awk '{ print $2 }'";
    let plain = sandbox("shm-plain");
    assert_eq!(shell(&plain, blocks), "65536\n");
    let own = block_on(builder("shm-own").shm_size(8 << 20).create()).unwrap();
    assert_eq!(shell(&own, blocks), "8192\n");
    // At the next start as well.
    block_on(own.stop()).unwrap();
    let own = block_on(Sandbox::start("shm-own")).unwrap();
    let script = "head -c 9000000 /dev/zero > /dev/shm/file && exit 1; stat -c %s /dev/shm/file";
    assert_eq!(shell(&own, script), "8388608\n");
}

#[test]
fn g_an_image_with_one_static_binary_is_enough() {
    let image = tempfile::tempdir().unwrap();
    std::fs::copy(common::rootfs().join("bin/busybox"), image.path().join("busybox")).unwrap();
    let bare = builder("bare").image(image.path());
    let sb = block_on(bare.create()).unwrap();
    let output = block_on(sb.exec("/busybox", ["echo", "alone"])).unwrap();
    assert_eq!(output.stdout().unwrap(), "alone\n");
    let output = block_on(sb.exec("/busybox", ["readlink", "/proc/self/fd/0"])).unwrap();
    assert_eq!(output.stdout().unwrap(), "/dev/null\n");
    block_on(sb.kill()).unwrap();
    let left: Vec<_> = std::fs::read_dir(image.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "the image is as it was");
}
