//! Promises J1, J3, J4, J5 and J7 for containers, and for gVisor where they are its own as well:
//! attacks by hostile programs and images fail, and the host keeps working.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper is a failed test")]

mod common;

use common::{block_on, builder, rootfs, sandbox, shell};
use microsandbox::{ExecEvent, ExecHandle, Sandbox, SandboxStatus};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns whether the tests run with the container driver.
fn applies() -> bool {
    std::env::var("MSB_DRIVER").is_ok_and(|driver| driver == "container")
        || std::env::var_os("MSB_DRIVER").is_none()
}

/// Returns whether the tests run with the gVisor driver.
fn is_gvisor() -> bool {
    std::env::var("MSB_DRIVER").is_ok_and(|driver| driver == "gvisor")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a root filesystem with a program that runs the attack named by its arguments.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("attack");
        let _ = fs::remove_dir_all(&scratch);
        let status = Command::new("cp").arg("-a").arg(rootfs()).arg(&scratch).status().unwrap();
        assert!(status.success());
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/guest/attack.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-o"]);
        let status = compiler.arg(scratch.join("bin/attack")).arg(source).status().unwrap();
        assert!(status.success());
        scratch
    })
}

#[test]
fn j3_root_inside_is_not_root_outside() {
    if !applies() {
        return;
    }
    let sb = sandbox("own-ids");
    let map = shell(&sb, "cat /proc/self/uid_map");
    let outside = map.split_whitespace().nth(1).unwrap();
    assert!(!is_root() || outside.parse::<u32>().unwrap() >= 65_536, "{map}");
    // Files written by a command have the image's ids on disk.
    shell(&sb, "echo x > /root/x; chown 7:8 /root/x; sync");
    let home = std::env::var("MSB_HOME").unwrap();
    let layers = Path::new(&home).join("sandboxes/own-ids/layers.img");
    if is_root() {
        let mut debugfs = std::process::Command::new("/usr/sbin/debugfs");
        let output = debugfs.args(["-R", "stat /upper/root/x"]).arg(layers).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let ids = words.windows(4).find(|words| words[0] == "User:").unwrap();
        assert_eq!(ids, ["User:", "7", "Group:", "8"], "{text}");
    }
    block_on(sb.kill()).unwrap();
}

#[test]
fn j3_system_calls_of_all_kinds_are_closed() {
    if !applies() && !is_gvisor() {
        return;
    }
    // gVisor's kernel has few of the others.
    let kinds = if is_gvisor() { "namespaces" } else { "calls" };
    let sb = block_on(builder("calls").image(image()).create()).unwrap();
    for user in ["root", "me"] {
        let run = block_on(sb.exec_with("attack", |o| o.arg(kinds).user(user))).unwrap();
        let output = run.stdout().unwrap();
        assert!(output.ends_with("end\n"), "{output}");
        let open: Vec<_> = output.lines().filter(|line| line.contains("OPEN")).collect();
        assert!(open.is_empty(), "{user}: {open:?}");
    }
    block_on(sb.kill()).unwrap();
}

#[test]
fn j3_capabilities_and_core_dumps_are_dropped() {
    if !applies() {
        return;
    }
    let sb = sandbox("rights");
    let status = shell(&sb, "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let bounding = u64::from_str_radix(&field("CapBnd:"), 16).unwrap();
    // setfcap, mknod, audit_write, net_raw; sys_admin, sys_ptrace.
    for capability in [31, 27, 29, 13, 21, 19] {
        assert_eq!(bounding >> capability & 1, 0, "{capability}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(shell(&sb, "ulimit -S -c; ulimit -H -c"), "0\n0\n");
    assert_eq!(shell(&sb, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
    block_on(sb.kill()).unwrap();
}

#[test]
fn j7_a_command_cannot_reach_its_control_group() {
    if !applies() {
        return;
    }
    let sb = sandbox("own-group");
    let found = shell(
        &sb,
        "for file in $(find / -name cgroup.procs 2>/dev/null); do
            (echo $$ > $file) 2>/dev/null && echo $file
        done; ls /proc/1/fd 2>/dev/null | while read fd; do
            (: < /proc/1/fd/$fd) 2>/dev/null && echo fd $fd
        done; true",
    );
    assert_eq!(found, "");
    block_on(sb.kill()).unwrap();
}

#[test]
fn j4_a_sandbox_exhausts_only_its_own() {
    if !applies() {
        return;
    }
    let sb = block_on(builder("exhaust").image(image()).pids_limit(200).create()).unwrap();
    let (_handle, printed) = exhaust(&sb, "exhaust");
    assert!(printed.contains("aio 0\n"), "{printed}");
    assert!(children(&printed) < 200, "{printed}");
    // The host still has its own.
    rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
    assert!(Command::new("true").status().unwrap().success());
    assert!(fs::File::options().read(true).write(true).open("/dev/ptmx").is_ok());
    block_on(sb.kill()).unwrap();
}

#[test]
fn j4_pids_limit_bounds_all_commands_together() {
    if !(is_gvisor() || applies() && is_root()) {
        return;
    }
    let sb = block_on(builder("together").image(image()).pids_limit(64).create()).unwrap();
    let script = "read line; /bin/true; echo unreachable";
    let mut other = block_on(sb.shell_stream_with(script, |o| o.stdin_pipe())).unwrap();
    let (mut first, printed) = exhaust(&sb, "fork");
    assert!((40..63).contains(&children(&printed)), "{printed}");
    // Another command cannot fork either.
    block_on(other.take_stdin().unwrap().write("\n")).unwrap();
    let output = block_on(other.collect()).unwrap();
    assert_eq!(output.stdout().unwrap(), "");
    block_on(first.kill()).unwrap();
    assert_eq!(block_on(first.wait()).unwrap().signal, Some(libc::SIGKILL));
    common::wait_until(&sb, "/bin/true");
    block_on(sb.kill()).unwrap();
}

#[test]
fn j4_sandbox_ends_beyond_its_limit_for_all_users() {
    // In a container nothing goes beyond.
    if !(is_gvisor() && is_root()) {
        return;
    }
    let sb = block_on(builder("users").image(image()).pids_limit(64).create()).unwrap();
    let mut attack =
        block_on(sb.exec_stream_with("attack", |o| o.arg("users").stdin_pipe())).unwrap();
    while block_on(attack.recv()).is_some() {}
    let _ = block_on(sb.wait());
    assert_eq!(block_on(sb.status()).unwrap(), SandboxStatus::Crashed);
    block_on(Sandbox::remove("users")).unwrap();
}

/// Runs an attack until it is at a limit. Returns what it printed.
fn exhaust(sb: &Sandbox, what: &str) -> (ExecHandle, String) {
    let mut handle = block_on(sb.exec_stream_with("attack", |o| o.arg(what).stdin_pipe())).unwrap();
    let mut printed = String::new();
    while !printed.contains("exhausted\n") {
        if let ExecEvent::Stdout(data) = block_on(handle.recv()).expect("it ended early") {
            printed.push_str(&String::from_utf8_lossy(&data));
        }
    }
    (handle, printed)
}

fn children(printed: &str) -> u32 {
    let count = printed.lines().find_map(|line| line.strip_prefix("children "));
    count.unwrap().parse().unwrap()
}

#[test]
fn j1_links_of_an_image_do_not_reach_the_host() {
    if !applies() && !is_gvisor() {
        return;
    }
    let places = [
        "dev",
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "proc",
        "sys",
        "sys/fs",
        "sys/fs/cgroup",
        "etc",
        "etc/hosts",
        ".msb",
        ".msb/agent",
    ];
    for place in places {
        let (host, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(host.path().join("ptmx"), "kept").unwrap();
        let link = image.path().join(place);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(host.path(), &link).unwrap();
        let error = block_on(builder("links").image(image.path()).create()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("/{place} is a symbolic link")), "{error}");
        let left: Vec<_> =
            fs::read_dir(host.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["ptmx"], "{place}");
        assert_eq!(fs::read_to_string(host.path().join("ptmx")).unwrap(), "kept");
    }
}

#[test]
fn j10_files_of_the_host_are_not_shared_with_the_sandbox() {
    if !applies() && !is_gvisor() {
        return;
    }
    let sb = sandbox("hosts");
    assert!(shell(&sb, "cat /etc/hosts").starts_with("127.0.0.1\tlocalhost hosts\n"));
    let mounts = shell(&sb, "cat /proc/self/mountinfo");
    let etc: Vec<_> = mounts.lines().filter(|line| line.contains(" /etc")).collect();
    assert!(etc.iter().all(|line| line.contains(" ro,")), "{etc:?}");
    block_on(sb.kill()).unwrap();
}
