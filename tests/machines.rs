//! Behavior specific to virtual machines: promise G, and B7 when the guest itself dies.
//!
//! These tests need a machine driver in `MSB_DRIVER` and its guest kernel; `make test-vm` and
//! `make test-krun` provide both.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use common::{block_on, builder, rest, rootfs, sandbox, shell};
use microsandbox::sandbox::{Isolation, SandboxStatus};
use microsandbox::{ErrorKind, ExecEvent, Sandbox};
use std::path::Path;
use std::time::{Duration, Instant};

/// Returns the attributes of an image's files that a write would change.
fn snapshot(folder: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        found.push(format!("{path:?} {:o} {} {}", meta.mode(), meta.size(), meta.ctime_nsec()));
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Waits until the end of a sandbox is recorded, and returns its state.
fn ended(sb: &Sandbox) -> SandboxStatus {
    let ended = block_on(sb.wait());
    assert!(!ended.is_ok_and(|status| status.success), "it cannot have ended well");
    block_on(sb.status()).unwrap()
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn g_two_machines_share_an_image_and_keep_own_files() {
    let before = snapshot(rootfs());
    let (a, b) = (sandbox("vm-a"), sandbox("vm-b"));
    let write = |sb: &Sandbox, text: &str| {
        let script =
            format!("echo {text} >/own; echo {text} >>/etc/passwd; rm /bin/true; cat /own");
        assert_eq!(shell(sb, &script), format!("{text}\n"));
    };
    write(&a, "of-a");
    write(&b, "of-b");
    assert_eq!(
        shell(&a, "cat /own; tail -n 1 /etc/passwd; ls /bin/true 2>&1 | wc -l; hostname"),
        "of-a\nof-a\n1\nvm-a\n"
    );
    assert_eq!(snapshot(rootfs()), before);
    // A stop is clean, and written files exist after the next start.
    block_on(a.stop()).unwrap();
    let a = block_on(Sandbox::start("vm-a")).unwrap();
    assert_eq!(shell(&a, "cat /own"), "of-a\n");
    for sb in [a, b] {
        block_on(sb.kill()).unwrap();
    }
    assert_eq!(snapshot(rootfs()), before);
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn g_machine_has_its_own_kernel_and_clock_and_no_network() {
    let sb = block_on(builder("vm-own").memory(200).hostname("here").create()).unwrap();
    let info = block_on(sb.info()).unwrap();
    assert_ne!(info.isolation, Some(Isolation::Container), "{info:?}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_ne!(shell(&sb, "uname -r"), release);
    assert_eq!(shell(&sb, "ls /sys/class/net; cat /proc/sys/kernel/hostname"), "lo\nhere\n");
    assert_eq!(shell(&sb, "ip addr show lo 2>/dev/null | grep -c 'inet 127.0.0.1'"), "1\n");
    let time: u64 = shell(&sb, "date +%s").trim().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_secs().abs_diff(time) < 60, "its clock says {time}, ours {now:?}");
    let memory: u64 =
        shell(&sb, "awk '/MemTotal/ { print $2 }' /proc/meminfo").trim().parse().unwrap();
    // libkrun places the kernel outside of the requested memory, and counts its pages too.
    assert!((100_000..224 * 1024).contains(&memory), "{memory} KiB");
    // An allocation beyond its memory kills only the program.
    let hungry = "BEGIN { s = \"x\"; while (1) s = s s }";
    let out = block_on(sb.exec("awk", [hungry])).unwrap();
    assert!(!out.status().success, "{:?}", out.status());
    assert_eq!(shell(&sb, "echo still here"), "still here\n");
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn b7_a_machine_that_resets_or_panics_is_a_loss_and_a_crash() {
    let panics = "if [ -e /proc/sysrq-trigger ]; then echo c > /proc/sysrq-trigger; sleep 600; fi";
    for (name, script) in [("vm-reset", "exec reboot -f"), ("vm-panic", panics)] {
        let sb = sandbox(name);
        let mut handle = block_on(sb.shell_stream(script)).unwrap();
        let events = rest(&mut handle);
        if name == "vm-panic" && matches!(events.last(), Some(ExecEvent::Exited { code: 0, .. })) {
            println!("this kernel cannot be made to panic");
            block_on(sb.kill()).unwrap();
            continue;
        }
        assert!(matches!(events.last(), Some(ExecEvent::Lost(_))), "{name}: {events:?}");
        let exits = events.iter().filter(|event| matches!(event, ExecEvent::Exited { .. }));
        assert_eq!(exits.count(), 0, "{name}: {events:?}");
        assert_eq!(ended(&sb), SandboxStatus::Crashed);
        let error = block_on(sb.exec("true", [""; 0])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SandboxNotRunning, "{name}: {error}");
    }
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn g_stop_signals_first_and_kills_at_the_timeout() {
    let sb = sandbox("vm-stop");
    let polite = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let mut handle = block_on(sb.shell_stream(polite)).unwrap();
    while !matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))) {}
    block_on(sb.stop()).unwrap();
    let events = rest(&mut handle);
    assert_eq!(common::stdout_of(&events), b"asked\n", "{events:?}");
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Stopped);

    let sb = block_on(Sandbox::start("vm-stop")).unwrap();
    let stubborn = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let mut handle = block_on(sb.shell_stream(stubborn)).unwrap();
    while !matches!(block_on(handle.recv()), Some(ExecEvent::Stdout(_))) {}
    let begun = Instant::now();
    block_on(sb.stop_with_timeout(Duration::from_millis(500))).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Stopped);
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn g_a_boot_beyond_the_timeout_is_a_typed_error() {
    let begun = builder("vm-late").boot_timeout(Duration::from_millis(50)).create();
    let error = block_on(begun).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BootFailed, "{error}");
    assert!(error.to_string().contains("within 50 ms"), "{error}");
    assert_eq!(block_on(Sandbox::get("vm-late")).unwrap_err().kind(), ErrorKind::SandboxNotFound);
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn j5_broken_devices_are_tolerated_in_a_machine() {
    let sb = sandbox("vm-devices");
    shell(&sb, "rm /dev/null /dev/ptmx; mkfifo /dev/null /dev/ptmx");
    assert_eq!(shell(&sb, "cat; echo hello"), "hello\n");
    let output = block_on(sb.exec_with("tty", |o| o.tty(true))).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"/dev/pts/0\r\n");
    shell(&sb, "mount -t tmpfs x /dev; mount -t tmpfs x /proc");
    assert_eq!(shell(&sb, "cat; echo hello"), "hello\n");
    let output = block_on(sb.exec_with("echo", |o| o.arg("hello").tty(true))).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"hello\r\n");
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn j7_kill_reaches_processes_outside_their_cgroup_in_a_machine() {
    let sb = sandbox("vm-cgroups");
    // Every way for root to enter a parent cgroup without entering the agent's namespaces.
    let script = "mkdir -p /tmp/c; mount -t cgroup2 x /tmp/c; mount -o remount,rw /sys/fs/cgroup
        mount -o remount,rw,bind /sys/fs/cgroup; mkdir /sys/fs/cgroup/mine
        for group in /.msb/cgroup /sys/fs/cgroup /sys/fs/cgroup/mine /tmp/c; do
            setsid sh -c 'echo $$ > '$group'/cgroup.procs; exec sleep 1234' &
        done 2>/dev/null
        setsid sh -c 'sleep 1234 & exec setsid sleep 1234' &
        until [ $(grep -sx sleep /proc/[0-9]*/comm | wc -l) -ge 6 ]; do usleep 10000; done
        echo started; exec sleep 1234";
    let mut handle = block_on(sb.shell_stream(script)).unwrap();
    loop {
        match block_on(handle.recv()).unwrap() {
            ExecEvent::Stdout(data) if data.ends_with(b"started\n") => break,
            ExecEvent::Exited { .. } => panic!("it ended by itself"),
            _ => {}
        }
    }
    block_on(handle.kill()).unwrap();
    let left = "for i in $(seq 100); do grep -qsx sleep /proc/[0-9]*/comm || break; usleep 10000
        done; grep -sx sleep /proc/[0-9]*/comm | wc -l";
    assert_eq!(shell(&sb, left), "0\n");
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn b6_agent_has_priority_over_commands_in_a_machine() {
    let sb = sandbox("vm-priority");
    let nice = "cut -d' ' -f19 /proc/1/stat; cut -d' ' -f19 /proc/self/stat";
    assert_eq!(shell(&sb, nice), "-10\n0\n");
    for _ in 0..8 {
        block_on(sb.shell_stream("while :; do :; done")).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(shell(&sb, "echo hello"), "hello\n");
    assert!(begun.elapsed() < Duration::from_secs(10).mul_f64(common::scale()));
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn j1_machine_has_no_memory_devices() {
    let sb = sandbox("vm-memory");
    assert_eq!(shell(&sb, "cd /dev; ls mem kmem port 2>/dev/null | wc -l"), "0\n");
    assert_eq!(shell(&sb, "grep -c 'CapEff.*1ffffffffff' /proc/self/status"), "1\n");
    block_on(sb.kill()).unwrap();
}

#[test]
#[ignore = "needs a guest kernel: make test-vm"]
fn j1_restricted_machine_confines_its_commands() {
    let security = microsandbox::sandbox::Security::Restricted;
    let sb = block_on(builder("vm-restricted").security(security).create()).unwrap();
    let status = "grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status";
    assert_eq!(
        shell(&sb, status),
        "CapPrm:\t00000000000405fb\nCapEff:\t00000000000405fb\nCapBnd:\t00000000000405fb\n\
         NoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert_eq!(shell(&sb, "cd /dev; echo $(ls -d * | grep -v '^std')"), {
        "fd full mqueue null ptmx pts random shm tty urandom zero\n"
    });
    for refused in [
        "mount -t tmpfs x /tmp",
        "unshare -m true",
        "mknod /tmp/mem c 1 1",
        "hostname other",
        "reboot -f",
        "dmesg",
        "echo /x > /proc/sys/kernel/core_pattern",
        "echo c > /proc/sysrq-trigger",
        "chroot /proc/1/root true",
    ] {
        let output = block_on(sb.shell(format!("{refused} 2>&1"))).unwrap();
        assert!(!output.status().success, "{refused}: {output:?}");
    }
    assert_eq!(shell(&sb, "su me -c id | cut -d' ' -f1; chown me /tmp"), "uid=1000(me)\n");
    let output = block_on(sb.exec_with("tty", |o| o.tty(true).user("me"))).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"/dev/pts/0\r\n");
    block_on(sb.stop()).unwrap();
}
