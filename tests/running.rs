//! Promises A: running commands.

mod common;

use common::{block_on, builder, lines, shared, shell};
use microsandbox::{Error, ErrorKind, RlimitResource};
use std::time::Duration;

#[test]
fn a1_a_nonzero_exit_is_a_result_a_start_failure_an_error() {
    let sb = shared();
    let output = block_on(sb.exec("sh", ["-c", "echo out; echo err >&2; exit 3"])).unwrap();
    assert_eq!((output.status().code, output.status().success), (3, false));
    assert_eq!(output.stdout().unwrap(), "out\n");
    assert_eq!(output.stderr().unwrap(), "err\n");
    let error = block_on(sb.exec("nonexistent", ["x"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExecFailed);
    assert_eq!(error.os_error(), Some(libc::ENOENT));
}

#[test]
fn a2_arguments_arrive_unchanged_whatever_they_contain() {
    let sb = shared();
    let args = ["", " ", "$HOME", "*", ";", "a\nb", "'\"\\", "ü"];
    let output = block_on(sb.exec_with("printf", |o| o.arg("[%s]").args(args))).unwrap();
    assert_eq!(output.stdout().unwrap(), args.map(|arg| format!("[{arg}]")).concat());
    let output =
        block_on(sb.exec_with("printf", |o| o.arg("%s").arg_bytes([0xff, 0xfe, b'x']))).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), [0xff, 0xfe, b'x']);
    assert_eq!(Error::from(output.stdout().unwrap_err()).kind(), ErrorKind::InvalidUtf8);
    let error = block_on(sb.exec("ec\0ho", ["x"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a3_programs_are_found_in_path_or_relative_to_cwd() {
    let sb = shared();
    let output = block_on(sb.exec_with("hello", |o| o.env("PATH", "/bin:/work"))).unwrap();
    assert_eq!(output.stdout().unwrap(), "hello from /\n");
    let output = block_on(sb.exec_with("./hello", |o| o.cwd("/work"))).unwrap();
    assert_eq!(output.stdout().unwrap(), "hello from /work\n");
    assert!(block_on(sb.exec_with("ls", |o| o.env("PATH", "/work"))).is_err());
}

#[test]
fn a4_large_output_on_both_streams_arrives_byte_for_byte() {
    const SIZE: u64 = 256 << 20;
    let script = format!(
        "head -c {SIZE} /dev/zero | tr '\\0' a & head -c {SIZE} /dev/zero | tr '\\0' b >&2; wait"
    );
    let output = block_on(shared().shell(script)).unwrap();
    assert_eq!((output.stdout_total(), output.stderr_total()), (SIZE, SIZE));
    assert!(output.stdout_bytes().iter().all(|byte| *byte == b'a'));
    assert!(output.stderr_bytes().iter().all(|byte| *byte == b'b'));
    assert_eq!(output.stdout_bytes().len() as u64, SIZE);
    assert!(!output.truncated());
}

#[test]
fn a4_output_is_truncated_at_a_limit_and_its_total_reported() {
    let output = block_on(
        shared().exec_with("head", |o| o.args(["-c", "3000000", "/dev/zero"]).max_output(1000)),
    )
    .unwrap();
    assert!(output.truncated());
    assert_eq!((output.stdout_bytes().len(), output.stdout_total()), (1000, 3_000_000));
}

#[test]
fn a5_options_of_one_command_do_not_reach_another() {
    let sb = shared();
    let first = |o: microsandbox::ExecOptionsBuilder| {
        o.env("ONLY", "here").cwd("/work").user("me").rlimit(RlimitResource::Nofile, 64)
    };
    block_on(sb.shell_with("true", first)).unwrap();
    let output = shell(&sb, "echo $ONLY; pwd; id -u; ulimit -n");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.get(..3).unwrap(), ["", "/", "0"]);
    assert_ne!(lines.get(3), Some(&"64"));
}

#[test]
fn a6_the_configured_shell_runs_the_script() {
    let output = block_on(shared().shell_with("echo $0 $1 | cat", |o| o.args(["me", "you"])));
    assert_eq!(output.unwrap().stdout().unwrap(), "me you\n");
    let sb = block_on(builder("a6").shell("/bin/echo").create()).unwrap();
    assert_eq!(block_on(sb.shell("script")).unwrap().stdout().unwrap(), "-c script\n");
    block_on(sb.kill()).unwrap();
}

#[test]
fn a7_the_environment_is_the_sandboxs_then_the_commands() {
    let sb = block_on(builder("a7").env("A", "sandbox").env("B", "sandbox").create()).unwrap();
    let output = block_on(sb.exec_with("env", |o| o.env("B", "one").env("B", "two"))).unwrap();
    let mut env = lines(&output);
    env.sort();
    assert!(env.contains(&"A=sandbox".to_owned()) && env.contains(&"B=two".to_owned()), "{env:?}");
    let mut names: Vec<&str> = env.iter().filter_map(|e| e.split('=').next()).collect();
    assert!(names.iter().all(|n| ["A", "B", "HOME", "LOGNAME", "PATH", "USER"].contains(n)));
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a name appears twice: {env:?}");
    let output = block_on(sb.exec_with("env", |o| o.user("me"))).unwrap();
    for entry in ["HOME=/home/me", "USER=me", "LOGNAME=me"] {
        assert!(lines(&output).contains(&entry.to_owned()), "{output:?}");
    }
    block_on(sb.kill()).unwrap();
}

#[test]
fn a8_directory_and_user_come_from_the_command_else_the_sandbox() {
    let sb = block_on(builder("a8").workdir("/work").user("me").create()).unwrap();
    let script = "pwd; id -u; id -g; id -G";
    assert_eq!(shell(&sb, script), "/work\n1000\n1000\n1000 2000\n");
    let of = |user: &str| {
        let options = |o: microsandbox::ExecOptionsBuilder| o.cwd("/tmp").user(user);
        block_on(sb.shell_with(script, options)).unwrap().stdout().unwrap()
    };
    assert_eq!(of("root"), "/tmp\n0\n0\n0\n");
    assert_eq!(of("1000"), "/tmp\n1000\n1000\n1000 2000\n");
    assert!(of("me:extra").starts_with("/tmp\n1000\n2000\n"));
    assert!(of("7:8").starts_with("/tmp\n7\n8\n"));
    block_on(sb.kill()).unwrap();
}

#[test]
fn a8_every_user_may_open_its_streams_and_low_ports() {
    let open = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr; \
                timeout 1 nc -l -p 80 < /dev/null 2>&1";
    for user in ["root", "me", "7:8"] {
        let options = |o: microsandbox::ExecOptionsBuilder| o.user(user).stdin_bytes("in\n");
        let output = block_on(shared().shell_with(open, options)).unwrap();
        assert_eq!(output.stdout().unwrap(), "in\nout\n", "{user}");
        assert_eq!(output.stderr().unwrap(), "err\n", "{user}");
    }
    // On a terminal, all of it comes from there.
    let options = |o: microsandbox::ExecOptionsBuilder| o.user("me").tty(true).stdin_pipe();
    let script =
        "echo out > /dev/stdout; echo err > /dev/stderr; stty -a < /dev/stdin | grep -c ^isig";
    let output = block_on(shared().shell_with(script, options)).unwrap();
    assert_eq!(output.stdout().unwrap(), "out\r\nerr\r\n1\r\n");
}

#[test]
fn a8_streams_can_be_opened_after_a_change_of_user() {
    let open = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr";
    let script = format!("su me -s /bin/sh -c '{open}'");
    let output = block_on(shared().shell_with(script, |o| o.stdin_bytes("in\n"))).unwrap();
    assert_eq!(output.stdout().unwrap(), "in\nout\n");
    assert_eq!(output.stderr().unwrap(), "err\n");
}

#[test]
fn a9_limits_hold_in_the_command() {
    let options = |o: microsandbox::ExecOptionsBuilder| {
        o.rlimit(RlimitResource::Nofile, 123).rlimit_range(RlimitResource::Core, 0, 1024)
    };
    let output = block_on(shared().shell_with("ulimit -n; cat /proc/self/limits", options));
    let output = output.unwrap().stdout().unwrap();
    assert!(output.starts_with("123\n"), "{output}");
    let core = output.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let core: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(core.get(4..6).unwrap(), ["0", "1024"]);
    let refused =
        block_on(shared().exec_with("true", |o| o.rlimit_range(RlimitResource::Nofile, 2, 1)));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a10_standard_input_is_dev_null_by_default() {
    let sb = shared();
    assert_eq!(shell(&sb, "readlink /proc/self/fd/0; cat"), "/dev/null\n");
}

#[test]
fn a10_no_signal_of_the_command_is_blocked_or_ignored() {
    let args = ["-E", "^Sig(Blk|Ign):", "/proc/self/status"];
    let output = block_on(shared().exec("grep", args)).unwrap().stdout().unwrap();
    let set = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(set("SigBlk:"), 0);
    // Signals from 32 on include those of the C library.
    assert_eq!(set("SigIgn:") & 0x7fff_ffff, 0);
}

#[test]
fn a11_the_network_is_off() {
    let output = shell(&shared(), "cat /proc/net/dev");
    let other = |line: &&str| !line.trim_start().starts_with("lo:");
    assert_eq!(output.lines().skip(2).filter(other).count(), 0, "{output}");
}

#[test]
fn a12_many_commands_leak_nothing() {
    let sb = shared();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let at_once: Vec<_> =
        (0..1000).map(|i| block_on(sb.exec_stream("echo", [i.to_string()])).unwrap()).collect();
    for (i, mut handle) in at_once.into_iter().enumerate() {
        assert_eq!(block_on(handle.collect()).unwrap().stdout().unwrap(), format!("{i}\n"));
    }
    let before = descriptors();
    for _ in 0..300 {
        assert!(block_on(sb.exec_with("true", |o| o)).unwrap().status().success);
    }
    // Other tests run concurrently; a zombie per command would be hundreds.
    assert!(descriptors() < before + 100);
    let zombies = shell(&sb, "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true");
    assert!(zombies.trim().parse::<u32>().unwrap() < 50, "{zombies}");
    let home = std::env::var("MSB_HOME").unwrap();
    let path = std::path::Path::new(&home).join("sandboxes/shared");
    let own = format!("microsandbox-{}/agent", msb_state::SandboxDir::open(&path).unwrap().id());
    for place in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let inside = std::fs::read_dir(std::path::Path::new(place).join(&own));
        let groups = inside.into_iter().flatten().flatten();
        let groups = groups.filter(|entry| entry.file_type().unwrap().is_dir()).count();
        assert!(groups < 50, "{groups} control groups");
    }
}

#[test]
fn d3_a_timeout_kills_and_carries_the_output_so_far() {
    let sb = shared();
    let script = "echo started; sleep 600 & echo $!; wait";
    let limit = Duration::from_millis(300);
    let Err(Error::ExecTimeout { timeout, output, .. }) =
        block_on(sb.shell_with(script, |o| o.timeout(limit)))
    else {
        panic!("no timeout");
    };
    assert_eq!(timeout, limit);
    let lines = lines(&output);
    assert_eq!(lines.first().unwrap(), "started");
    let pid = lines.get(1).unwrap();
    common::wait_until(&sb, &format!("! kill -0 {pid} 2>/dev/null"));
    assert!(output.status().timed_out);
}
