//! The `msb` command with container sandboxes, by promise.

mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use support::{Msb, bytes, capture_stderr, driver, image, outcome, signal, wait, wait_for_line};

#[test]
fn e_exit_code_is_the_programs_own() {
    let msb = Msb::with_sandbox();
    for code in [0, 1, 42, 255] {
        let script = format!("exit {code}");
        assert_eq!(msb.run(&["exec", "w", "--", "sh", "-c", &script]).code, code);
    }
    assert_eq!(msb.run(&["run", image(), "--", "false"]).code, 1);
}

#[test]
fn e_127_means_program_not_found() {
    let msb = Msb::with_sandbox();
    let error = msb.fails(127, &["exec", "w", "--", "nosuch"]);
    assert!(error.contains("nosuch"), "{error}");
    msb.fails(127, &["run", image(), "--", "/bin/nosuch"]);
    msb.fails(127, &["run", "-d", "--name", "x", image(), "--", "nosuch"]);
    assert_eq!(msb.names(), ["w"], "a failed start leaves no sandbox");
}

#[test]
fn e_126_means_program_not_executable() {
    let msb = Msb::with_sandbox();
    let error = msb.fails(126, &["exec", "w", "--", "/etc/passwd"]);
    assert!(error.contains("/etc/passwd"), "{error}");
    msb.ok(&["exec", "w", "--", "sh", "-c", "echo nonsense >/tmp/x; chmod +x /tmp/x"]);
    msb.fails(126, &["exec", "w", "--", "/tmp/x"]);
}

#[test]
fn d3_124_means_timeout_and_keeps_earlier_output() {
    let msb = Msb::with_sandbox();
    let script = "echo begun; sleep 600";
    let outcome = msb.run(&["exec", "w", "--timeout", "300ms", "--", "sh", "-c", script]);
    assert_eq!((outcome.code, outcome.out.as_str()), (124, "begun\n"));
    assert!(outcome.err.contains("300ms"), "{}", outcome.err);
}

#[test]
fn b3_128_plus_signal_number_means_killed() {
    let msb = Msb::with_sandbox();
    for (name, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let script = format!("kill -{name} $$");
        assert_eq!(msb.run(&["exec", "w", "--", "sh", "-c", &script]).code, code);
    }
}

#[test]
fn e_125_means_msb_failed_with_one_line_and_a_remedy() {
    let msb = Msb::with_sandbox();
    let calls: [(&[&str], &str); 24] = [
        (&[], "msb --help"),
        (&["frobnicate"], "frobnicate"),
        (&["exec", "w"], "<CMD>"),
        (&["exec", "w", "-Z", "ls"], "msb exec --help"),
        (&["exec", "-t", "w"], "not a terminal"),
        (&["exec", "-di", "w", "ls"], "-t"),
        (&["exec", "w", "--timeout", "5x", "--", "ls"], "5x"),
        (&["exec", "w", "--timeout", "0s", "--", "ls"], "zero"),
        (&["exec", "w", "--rlimit", "nofile=2:1", "--", "ls"], "above"),
        (&["exec", "none", "--", "ls"], "msb ls"),
        (&["exec", "w", "-w", "/nonexistent", "--", "ls"], "/nonexistent"),
        (&["exec", "w", "-u", "nobody-here", "--", "ls"], "nobody-here"),
        (&["run", image()], "no command of its own; give one: msb run IMAGE CMD, or use -t"),
        (&["run", "--pull", "never", "alpine", "--", "ls"], "not in the store"),
        (&["run", "--driver", "nosuch", image(), "--", "ls"], "known are"),
        (&["create", "--name", "w", image()], "already exists; use msb rm, --replace"),
        (&["rm", "w"], "is running; force with: msb rm -f"),
        (&["exec", "w", "--env-file", "/nonexistent", "ls"], "/nonexistent"),
        (&["attach", "w", "xyz"], "msb sessions"),
        (&["attach", "w", "0123"], "msb sessions w"),
        (&["kill", "-s", "NOSUCH", "w"], "TERM"),
        (&["kill", "-s", "TERM", "w"], "--session"),
        (&["kill", "--session", "0", "w", "v"], "one name"),
        (&["logs", "w"], "keeps no log"),
    ];
    for (arguments, about) in calls {
        let error = msb.fails(125, arguments);
        assert!(error.contains(about), "{arguments:?}: {error}");
    }
    assert_eq!(msb.names(), ["w"]);
}

#[test]
fn b7_125_means_sandbox_lost_during_the_command() {
    let msb = Msb::with_sandbox();
    let mut child = msb.spawn(&["exec", "w", "--", "sh", "-c", "echo up; sleep 600"]);
    wait_for_line(&mut child, "up");
    msb.ok(&["kill", "w"]);
    let outcome = wait(child);
    assert_eq!(outcome.code, 125);
    assert!(outcome.err.contains("exit status is unknown"), "{}", outcome.err);
}

#[test]
fn b1_streams_are_separate_and_complete() {
    let msb = Msb::with_sandbox();
    let outcome = msb.run(&["exec", "w", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("out\n", "err\n"));

    let all: Vec<u8> = (0..=255).collect();
    let script = all.iter().map(|byte| format!("\\0{byte:o}")).collect::<String>();
    let call = ["exec", "w", "--", "printf", "%b", &script];
    assert_eq!(msb.output(&call).stdout, all);

    let script = "head -c 20000000 /dev/zero | tr '\\0' '\\377' | tee /dev/stderr";
    let output = msb.output(&["exec", "w", "--", "sh", "-c", script]);
    for stream in [output.stdout, output.stderr] {
        assert!(stream.len() == 20_000_000 && stream.iter().all(|byte| *byte == 255));
    }
}

#[test]
fn b2_output_arrives_while_the_program_runs() {
    let msb = Msb::with_sandbox();
    let mut child = msb.spawn(&["exec", "-i", "w", "--", "sh", "-c", "printf one; cat"]);
    let mut first = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one");
    // Only now can it end.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn closed_output_ends_msb_by_sigpipe_and_kills_program() {
    let msb = Msb::with_sandbox();
    for arguments in [&["exec", "w", "--", "yes"][..], &["run", image(), "--", "yes"][..]] {
        let mut child = msb.spawn(arguments);
        wait_for_line(&mut child, "y");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let sigpipe = Signal::PIPE.as_raw();
        assert_eq!((output.status.signal(), output.stderr.len()), (Some(sigpipe), 0));
    }
    let sessions = msb.json(&["sessions", "w", "--json"]);
    assert_eq!(sessions[0]["status"]["signal"], 9, "{sessions}");
    assert_eq!(msb.names(), ["w"]);
}

#[test]
fn full_output_device_is_reported() {
    let msb = Msb::with_sandbox();
    let mut command = msb.command(&["exec", "w", "--", "yes"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome = capture_stderr(command.stdout(full));
    assert_eq!(outcome.code, 125);
    assert!(outcome.err.contains("standard output"), "{}", outcome.err);
}

#[test]
fn a10_stdin_is_not_read_without_i() {
    let msb = Msb::with_sandbox();
    let output = msb.run_with_input(&["exec", "w", "--", "cat"], b"unread");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"".as_slice()));
    let linked = msb.ok(&["exec", "w", "--", "readlink", "/proc/self/fd/0"]);
    assert_eq!(linked, "/dev/null\n");
}

#[test]
fn c2_stdin_and_its_end_are_forwarded_with_i() {
    let msb = Msb::with_sandbox();
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for arguments in [&["exec", "-i", "w", "--", "cat"], &["run", "-i", image(), "--", "cat"]] {
        let output = msb.run_with_input(arguments, &data);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == data, "{} bytes came", output.stdout.len());
    }
}

#[test]
fn c3_exit_does_not_wait_for_unread_stdin() {
    let msb = Msb::with_sandbox();
    let script = "read line; exec </dev/null; echo got $line; exit 7";
    let mut child = msb.spawn(&["exec", "-i", "w", "--", "sh", "-c", script]);
    // Open until after the exit.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"this\n").unwrap();
    let outcome = wait(child);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "got this\n"));
    drop(stdin);
}

#[test]
fn stdin_read_error_is_not_end_of_input() {
    let msb = Msb::with_sandbox();
    let mut command = msb.command(&["exec", "-i", "w", "--", "cat"]);
    command.stdin(std::fs::File::open("/").unwrap());
    let outcome = capture_stderr(&mut command);
    assert_eq!(outcome.code, 125);
    assert!(outcome.err.contains("standard input"), "{}", outcome.err);
}

#[test]
fn g_options_apply_around_the_name_to_this_command_only() {
    let msb = Msb::with_sandbox();
    let options = ["-w", "/tmp", "-e", "A=one two", "-u", "app:data", "--rlimit", "nofile=100:200"];
    let script = "pwd; echo \"$A\"; id -un; id -gn; ulimit -Sn; ulimit -Hn";
    let expected = "/tmp\none two\napp\ndata\n100\n200\n";
    let command = ["--", "sh", "-c", script];
    let before = [&["exec"][..], &options, &["w"], &command].concat();
    let after = [&["exec", "w"][..], &options, &command].concat();
    assert_eq!(msb.ok(&before), expected);
    assert_eq!(msb.ok(&after), expected);
    let run = [&["run"][..], &options, &[image()], &command].concat();
    assert_eq!(msb.ok(&run), expected);
    let plain = msb.ok(&["exec", "w", "--", "sh", "-c", "pwd; echo \"[$A]\"; id -un"]);
    assert_eq!(plain, "/\n[]\nroot\n");
}

#[test]
fn a7_only_named_host_variables_are_passed_on() {
    let msb = Msb::with_sandbox();
    let arguments = ["exec", "w", "-e", "GIVEN", "-e", "NOT_SET_HERE", "--", "env"];
    let mut command = msb.command(&arguments);
    command.env("GIVEN", bytes(b"\xff")).env("SECRET", "x").env_remove("NOT_SET_HERE");
    let output = command.output().unwrap();
    let lines: Vec<&[u8]> = output.stdout.split(|byte| *byte == b'\n').collect();
    assert!(lines.contains(&b"GIVEN=\xff".as_slice()));
    assert!(!lines.iter().any(|line| line.starts_with(b"SECRET") || line.starts_with(b"NOT_SET")));
}

#[test]
fn a2_arguments_arrive_unchanged() {
    let msb = Msb::with_sandbox();
    let mut command = msb.command(&["exec", "w", "--", "printf", "[%s]"]);
    command.args(["", " ", "$HOME", "*", "--", "-e", "a\nb"]).arg(bytes(b"\xff"));
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"[][ ][$HOME][*][--][-e][a\nb][\xff]");
}

#[test]
fn g_sandbox_is_created_listed_stopped_started_removed() {
    let msb = Msb::new();
    let create = ["create", image(), "--name", "a", "--label", "k=v", "--hostname", "here"];
    assert_eq!(msb.ok(&[&create[..], &["-e", "A=1"]].concat()), "a\n");
    assert_eq!(msb.ok(&["exec", "a", "--", "sh", "-c", "hostname; echo $A"]), "here\n1\n");
    msb.ok(&["exec", "a", "--", "touch", "/kept"]);

    let table = msb.ok(&["ls"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATUS", "DRIVER", "ISOLATION", "JAILED", "IMAGE", "CREATED"]);
    assert_eq!(lines[1][..4], ["a", "running", &driver(), &driver()]);
    assert!(["yes", "no"].contains(&lines[1][4]) && lines[1][5] == image(), "{table}");
    let list = msb.json(&["ls", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["status"], "running");
    assert_eq!(list[0]["isolation"], driver());
    assert_eq!(list[0]["labels"]["k"], "v");
    assert_eq!(list[0]["detached"], true);

    assert!(msb.fails(125, &["rm", "a"]).contains("running"));
    msb.ok(&["start", "a"]);
    msb.ok(&["stop", "a", "-t", "1s"]);
    msb.ok(&["stop", "a"]);
    let list = msb.json(&["ls", "--json"]);
    assert_eq!(
        (&list[0]["status"], &list[0]["end_reason"]),
        (&"stopped".into(), &"stopped".into())
    );
    assert!(msb.fails(125, &["exec", "a", "--", "true"]).contains("start"));
    msb.ok(&["start", "a"]);
    msb.ok(&["exec", "a", "--", "test", "-e", "/kept"]);
    msb.ok(&["kill", "a"]);
    msb.ok(&["rm", "a"]);
    assert_eq!(msb.json(&["ls", "--json"]), serde_json::json!([]));
}

#[test]
fn g_rm_tries_every_name_and_force_removes_running() {
    let msb = Msb::with_sandbox();
    msb.ok(&["create", "-q", image(), "--name", "v"]);
    let outcome = msb.run(&["rm", "-f", "w", "none", "v"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let outcome = msb.run(&["stop", "x", "y"]);
    assert_eq!(outcome.code, 125);
    assert!(
        outcome.err.starts_with("msb: sandbox x ") && outcome.err.contains("\nmsb: sandbox y ")
    );
    assert_eq!(msb.names(), [""; 0]);
}

#[test]
fn g_replace_removes_the_sandbox_of_that_name() {
    let msb = Msb::with_sandbox();
    msb.ok(&["exec", "w", "--", "touch", "/old"]);
    msb.ok(&["create", "--replace", "--name", "w", image()]);
    assert_eq!(msb.run(&["exec", "w", "--", "test", "-e", "/old"]).code, 1);
}

#[test]
fn g_run_removes_its_sandbox_however_it_ends() {
    let msb = Msb::new();
    msb.ok(&["run", "--rm", image(), "--", "true"]);
    msb.run(&["run", "--name", "a", image(), "--", "false"]);
    msb.run(&["run", "--name", "a", image(), "--", "nosuch"]);
    msb.run(&["run", "--name", "a", "--timeout", "10ms", image(), "--", "sleep", "600"]);
    assert_eq!(msb.names(), [""; 0]);
    let sandboxes = msb.home.path().join("sandboxes");
    assert_eq!(std::fs::read_dir(sandboxes).unwrap().count(), 0);
}

#[test]
fn g_run_detached_leaves_sandbox_and_command_running() {
    let msb = Msb::new();
    let call = ["run", "-d", "--name", "a", "-e", "A=1", image(), "--", "sleep", "600"];
    assert_eq!(msb.ok(&call), "a\n");
    let sessions = msb.json(&["sessions", "a", "--json"]);
    assert_eq!(sessions[0]["command"], serde_json::json!(["sleep", "600"]));
    assert_eq!(sessions[0]["status"], serde_json::Value::Null);
    assert_eq!(msb.ok(&["exec", "a", "--", "sh", "-c", "echo $A"]), "1\n");
    let made_up = msb.ok(&["run", "-d", image(), "--", "true"]);
    assert!(msb.names().contains(&made_up.trim_end().to_owned()));
}

#[test]
fn d5_exec_detached_prints_the_session_id() {
    let msb = Msb::with_sandbox();
    let id = msb.ok(&["exec", "-d", "w", "--", "sleep", "600"]);
    assert_eq!(msb.ok(&["sessions", "w", "-q"]), id);
    let table = msb.ok(&["sessions", "w"]);
    assert!(table.contains("running") && table.contains("sleep 600"), "{table}");
}

#[test]
fn d5_session_ids_differ_between_processes() {
    let msb = Msb::with_sandbox();
    let ids = ["600", "601", "602"].map(|time| msb.ok(&["exec", "-d", "w", "--", "sleep", time]));
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn first_interrupt_is_forwarded_to_the_program() {
    let msb = Msb::new();
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.05; done";
    let mut child = msb.spawn(&["run", image(), "--", "sh", "-c", script]);
    wait_for_line(&mut child, "up");
    signal(&child, Signal::INT);
    let outcome = wait(child);
    assert_eq!((outcome.code, outcome.out.as_str()), (5, "caught\n"));
    assert_eq!(msb.names(), [""; 0]);
}

#[test]
fn second_interrupt_kills_the_program() {
    let msb = Msb::new();
    let script = "trap 'echo caught' INT; echo up; while :; do sleep 0.05; done";
    let mut child = msb.spawn(&["run", image(), "--", "sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    signal(&child, Signal::INT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(msb.names(), [""; 0]);
}

#[test]
fn sigterm_is_forwarded_and_run_removes_its_sandbox() {
    let msb = Msb::new();
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = msb.spawn(&["run", image(), "--", "sh", "-c", "echo up; exec sleep 600"]);
        wait_for_line(&mut child, "up");
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(msb.names(), [""; 0]);
    }
}

#[test]
fn interrupt_at_any_moment_leaves_nothing_behind() {
    let msb = Msb::new();
    // From before msb handles signals until the program runs; the times need not be exact.
    for moment in (0..400).step_by(25) {
        let mut child = msb.spawn(&["run", image(), "--", "sleep", "600"]);
        std::thread::sleep(Duration::from_millis(moment));
        signal(&child, Signal::INT);
        let status = child.wait().unwrap();
        assert!(status.code() == Some(130) || status.signal() == Some(2), "{moment}: {status}");
        assert_eq!(msb.names(), [""; 0], "after {moment} ms");
    }
}

/// Minimum content of a full pipe, in bytes (pipe(7)): the last page may lack room for a line.
const PIPE: u64 = 65_536 - 4096;

#[test]
fn interrupt_reaches_program_while_output_is_blocked() {
    let msb = Msb::with_sandbox();
    let mut child = msb.spawn(&["exec", "w", "--", "yes"]);
    let mut stdout = BufReader::with_capacity(2, child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    // Until the pipe is full and msb blocks in a write.
    while rustix::io::ioctl_fionread(stdout.get_ref()).unwrap() < PIPE {
        std::thread::yield_now();
    }
    signal(&child, Signal::INT);
    // The signal discards no output.
    let rest = std::io::read_to_string(stdout.into_inner()).unwrap();
    assert!(rest.len() as u64 > PIPE, "{}", rest.len());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn ignored_signals_stay_ignored() {
    let msb = Msb::with_sandbox();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "trap '' INT; exec \"$0\" exec -i w -- sh -c 'echo up; read x; echo done'"]);
    command.arg(support::binary());
    msb.set_environment(&mut command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child, "up");
    signal(&child, Signal::INT);
    child.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let outcome = wait(child);
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "done\n"));
}

#[test]
fn g_doctor_lists_the_drivers() {
    let msb = Msb::new();
    let reports = msb.json(&["doctor", "--json"]);
    let container = |report: &&serde_json::Value| report["driver"] == "container";
    let report = reports["drivers"].as_array().unwrap().iter().find(container).unwrap();
    assert_eq!((&report["isolation"], &report["usable"]), (&"container".into(), &true.into()));
    assert!(msb.ok(&["doctor"]).contains("container"));
}

#[test]
fn help_and_version_exit_with_0() {
    let msb = Msb::new();
    assert!(msb.ok(&["--version"]).starts_with("msb "));
    assert!(msb.ok(&["exec", "--help"]).contains("--rlimit"));
}

#[test]
fn completion_knows_shells_and_commands() {
    let msb = Msb::new();
    for (shell, first) in [("bash", "_msb()"), ("zsh", "#compdef msb"), ("fish", "#")] {
        let script = msb.ok(&["completion", shell]);
        assert!(script.starts_with(first), "{shell}: {script}");
        assert!(script.contains("sessions"), "{shell}");
    }
    assert!(msb.fails(125, &["completion", "none"]).contains("fish"));
    let script = msb.home.path().join("completion");
    std::fs::write(&script, msb.ok(&["completion", "bash"])).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(msb se) COMP_CWORD=1; _msb msb se msb; echo $COMPREPLY";
    let asked = std::process::Command::new("bash").arg("-c").arg(ask).arg(&script).output();
    assert_eq!(outcome(asked.unwrap()).out, "sessions\n");
}
