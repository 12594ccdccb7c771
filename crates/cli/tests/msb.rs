//! The `msb` command against container sandboxes, grouped by what it promises.

mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;
use support::{Scene, bytes, errors_of, image, said, signal, wait_for_line};

#[test]
fn e_the_exit_code_is_the_programs_own() {
    let scene = Scene::with_sandbox();
    for code in [0, 1, 42, 255] {
        let script = format!("exit {code}");
        assert_eq!(scene.say(&["exec", "w", "--", "sh", "-c", &script]).code, code);
    }
    assert_eq!(scene.say(&["run", image(), "--", "false"]).code, 1);
}

#[test]
fn e_127_says_that_the_program_was_not_found() {
    let scene = Scene::with_sandbox();
    let complaint = scene.fails(127, &["exec", "w", "--", "nosuch"]);
    assert!(complaint.contains("nosuch"), "{complaint}");
    scene.fails(127, &["run", image(), "--", "/bin/nosuch"]);
    scene.fails(127, &["run", "-d", "--name", "x", image(), "--", "nosuch"]);
    assert_eq!(scene.names(), ["w"], "a failed start leaves no sandbox");
}

#[test]
fn e_126_says_that_the_program_cannot_be_executed() {
    let scene = Scene::with_sandbox();
    let complaint = scene.fails(126, &["exec", "w", "--", "/etc/passwd"]);
    assert!(complaint.contains("/etc/passwd"), "{complaint}");
    scene.ok(&["exec", "w", "--", "sh", "-c", "echo nonsense >/tmp/x; chmod +x /tmp/x"]);
    scene.fails(126, &["exec", "w", "--", "/tmp/x"]);
}

#[test]
fn d3_124_says_that_the_time_ran_out_and_output_until_then_is_there() {
    let scene = Scene::with_sandbox();
    let script = "echo begun; sleep 600";
    let said = scene.say(&["exec", "w", "--timeout", "300ms", "--", "sh", "-c", script]);
    assert_eq!((said.code, said.out.as_str()), (124, "begun\n"));
    assert!(said.err.contains("300ms"), "{}", said.err);
}

#[test]
fn b3_128_and_the_signals_number_says_that_it_was_killed() {
    let scene = Scene::with_sandbox();
    for (name, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let script = format!("kill -{name} $$");
        assert_eq!(scene.say(&["exec", "w", "--", "sh", "-c", &script]).code, code);
    }
}

#[test]
fn e_125_is_a_failure_of_msb_itself_in_one_line_that_says_what_to_do() {
    let scene = Scene::with_sandbox();
    let calls: [(&[&str], &str); 24] = [
        (&[], "msb --help"),
        (&["frobnicate"], "frobnicate"),
        (&["exec", "w"], "<CMD>"),
        (&["exec", "w", "-Z", "ls"], "msb exec --help"),
        (&["exec", "-t", "w"], "not a terminal"),
        (&["exec", "-di", "w", "ls"], "-t"),
        (&["exec", "w", "--timeout", "5", "--", "ls"], "30s"),
        (&["exec", "w", "--timeout", "0s", "--", "ls"], "zero"),
        (&["exec", "w", "--rlimit", "nofile=2:1", "--", "ls"], "above"),
        (&["exec", "none", "--", "ls"], "msb ls"),
        (&["exec", "w", "-w", "/nonexistent", "--", "ls"], "/nonexistent"),
        (&["exec", "w", "-u", "nobody-here", "--", "ls"], "nobody-here"),
        (&["run", image()], "no command of its own"),
        (&["run", "--pull", "never", "alpine", "--", "ls"], "not in the store"),
        (&["run", "--driver", "nosuch", image(), "--", "ls"], "known are"),
        (&["create", "--name", "w", image()], "--replace"),
        (&["rm", "w"], "msb rm -f"),
        (&["exec", "w", "--env-file", "/nonexistent", "ls"], "/nonexistent"),
        (&["attach", "w", "xyz"], "msb sessions"),
        (&["attach", "w", "0123"], "msb sessions w"),
        (&["kill", "-s", "NOSUCH", "w"], "TERM"),
        (&["kill", "-s", "TERM", "w"], "--session"),
        (&["kill", "--session", "0", "w", "v"], "one name"),
        (&["logs", "w"], "keeps no log"),
    ];
    for (arguments, about) in calls {
        let complaint = scene.fails(125, arguments);
        assert!(complaint.contains(about), "{arguments:?}: {complaint}");
    }
    assert_eq!(scene.names(), ["w"]);
}

#[test]
fn b7_125_says_that_the_sandbox_went_away_under_the_program() {
    let scene = Scene::with_sandbox();
    let mut child = scene.spawn(&["exec", "w", "--", "sh", "-c", "echo up; sleep 600"]);
    wait_for_line(&mut child, "up");
    scene.ok(&["kill", "w"]);
    let said = said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 125);
    assert!(said.err.contains("exit status is unknown"), "{}", said.err);
}

#[test]
fn b1_each_stream_arrives_on_its_own_with_every_byte() {
    let scene = Scene::with_sandbox();
    let said = scene.say(&["exec", "w", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "err\n"));

    let all: Vec<u8> = (0..=255).collect();
    let script = all.iter().map(|byte| format!("\\0{byte:o}")).collect::<String>();
    let call = ["exec", "w", "--", "printf", "%b", &script];
    assert_eq!(scene.output(&call).stdout, all);

    let script = "head -c 20000000 /dev/zero | tr '\\0' '\\377' | tee /dev/stderr";
    let output = scene.output(&["exec", "w", "--", "sh", "-c", script]);
    for stream in [output.stdout, output.stderr] {
        assert!(stream.len() == 20_000_000 && stream.iter().all(|byte| *byte == 255));
    }
}

#[test]
fn b2_output_arrives_while_the_program_runs() {
    let scene = Scene::with_sandbox();
    let mut child = scene.spawn(&["exec", "-i", "w", "--", "sh", "-c", "printf one; cat"]);
    let mut first = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"one");
    // Only now may it end.
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_ends_msb_as_sigpipe_does_and_the_program_with_it() {
    let scene = Scene::with_sandbox();
    for arguments in [&["exec", "w", "--", "yes"][..], &["run", image(), "--", "yes"][..]] {
        let mut child = scene.spawn(arguments);
        wait_for_line(&mut child, "y");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let sigpipe = Signal::PIPE.as_raw();
        assert_eq!((output.status.signal(), output.stderr.len()), (Some(sigpipe), 0));
    }
    let sessions = scene.json(&["sessions", "w", "--json"]);
    assert_eq!(sessions[0]["status"]["signal"], 9, "{sessions}");
    assert_eq!(scene.names(), ["w"]);
}

#[test]
fn an_output_that_takes_nothing_is_told() {
    let scene = Scene::with_sandbox();
    let mut command = scene.command(&["exec", "w", "--", "yes"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said = said(errors_of(command.stdout(full)));
    assert_eq!(said.code, 125);
    assert!(said.err.contains("standard output"), "{}", said.err);
}

#[test]
fn a10_standard_input_is_left_alone_without_i() {
    let scene = Scene::with_sandbox();
    let output = scene.fed(&["exec", "w", "--", "cat"], b"not for it");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"".as_slice()));
    let linked = scene.ok(&["exec", "w", "--", "readlink", "/proc/self/fd/0"]);
    assert_eq!(linked, "/dev/null\n");
}

#[test]
fn c2_standard_input_is_passed_on_with_i_and_so_is_its_end() {
    let scene = Scene::with_sandbox();
    let data: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for arguments in [&["exec", "-i", "w", "--", "cat"], &["run", "-i", image(), "--", "cat"]] {
        let output = scene.fed(arguments, &data);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == data, "{} bytes came", output.stdout.len());
    }
}

#[test]
fn c3_a_program_that_stops_reading_goes_on_and_an_input_without_end_does_not_hold_up_its_exit() {
    let scene = Scene::with_sandbox();
    let script = "read line; exec </dev/null; echo got $line; exit 7";
    let mut child = scene.spawn(&["exec", "-i", "w", "--", "sh", "-c", script]);
    // Held open until after the exit.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"this\n").unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (7, "got this\n"));
    drop(stdin);
}

#[test]
fn an_input_that_cannot_be_read_is_told_and_never_passes_for_its_end() {
    let scene = Scene::with_sandbox();
    let mut command = scene.command(&["exec", "-i", "w", "--", "cat"]);
    command.stdin(std::fs::File::open("/").unwrap());
    let said = said(errors_of(&mut command));
    assert_eq!(said.code, 125);
    assert!(said.err.contains("standard input"), "{}", said.err);
}

#[test]
fn g_options_hold_before_and_after_the_name_and_for_this_command_only() {
    let scene = Scene::with_sandbox();
    let options = ["-w", "/tmp", "-e", "A=one two", "-u", "app:data", "--rlimit", "nofile=100:200"];
    let script = "pwd; echo \"$A\"; id -un; id -gn; ulimit -Sn; ulimit -Hn";
    let expected = "/tmp\none two\napp\ndata\n100\n200\n";
    let command = ["--", "sh", "-c", script];
    let before = [&["exec"][..], &options, &["w"], &command].concat();
    let after = [&["exec", "w"][..], &options, &command].concat();
    assert_eq!(scene.ok(&before), expected);
    assert_eq!(scene.ok(&after), expected);
    let run = [&["run"][..], &options, &[image()], &command].concat();
    assert_eq!(scene.ok(&run), expected);
    let plain = scene.ok(&["exec", "w", "--", "sh", "-c", "pwd; echo \"[$A]\"; id -un"]);
    assert_eq!(plain, "/\n[]\nroot\n");
}

#[test]
fn a7_a_variable_without_a_value_is_taken_from_here_and_the_rest_of_ours_does_not_leak() {
    let scene = Scene::with_sandbox();
    let arguments = ["exec", "w", "-e", "GIVEN", "-e", "NOT_SET_HERE", "--", "env"];
    let mut command = scene.command(&arguments);
    command.env("GIVEN", bytes(b"\xff")).env("SECRET", "x").env_remove("NOT_SET_HERE");
    let output = command.output().unwrap();
    let lines: Vec<&[u8]> = output.stdout.split(|byte| *byte == b'\n').collect();
    assert!(lines.contains(&b"GIVEN=\xff".as_slice()));
    assert!(!lines.iter().any(|line| line.starts_with(b"SECRET") || line.starts_with(b"NOT_SET")));
}

#[test]
fn a2_arguments_arrive_unchanged() {
    let scene = Scene::with_sandbox();
    let mut command = scene.command(&["exec", "w", "--", "printf", "[%s]"]);
    command.args(["", " ", "$HOME", "*", "--", "-e", "a\nb"]).arg(bytes(b"\xff"));
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"[][ ][$HOME][*][--][-e][a\nb][\xff]");
}

#[test]
fn g_a_sandbox_is_created_listed_stopped_started_and_removed() {
    let scene = Scene::new();
    let create = ["create", image(), "--name", "a", "--label", "k=v", "--hostname", "here"];
    assert_eq!(scene.ok(&[&create[..], &["-e", "A=1"]].concat()), "a\n");
    assert_eq!(scene.ok(&["exec", "a", "--", "sh", "-c", "hostname; echo $A"]), "here\n1\n");
    scene.ok(&["exec", "a", "--", "touch", "/kept"]);

    let table = scene.ok(&["ls"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATUS", "DRIVER", "ISOLATION", "JAILED", "IMAGE", "CREATED"]);
    assert_eq!(lines[1][..4], ["a", "running", "container", "container"]);
    assert!(["yes", "no"].contains(&lines[1][4]) && lines[1][5] == image(), "{table}");
    let list = scene.json(&["ls", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["status"], "running");
    assert_eq!(list[0]["isolation"], "container");
    assert_eq!(list[0]["labels"]["k"], "v");
    assert_eq!(list[0]["detached"], true);

    assert!(scene.fails(125, &["rm", "a"]).contains("running"));
    scene.ok(&["start", "a"]);
    scene.ok(&["stop", "a", "-t", "1s"]);
    scene.ok(&["stop", "a"]);
    let list = scene.json(&["ls", "--json"]);
    assert_eq!(
        (&list[0]["status"], &list[0]["end_reason"]),
        (&"stopped".into(), &"stopped".into())
    );
    assert!(scene.fails(125, &["exec", "a", "--", "true"]).contains("start"));
    scene.ok(&["start", "a"]);
    scene.ok(&["exec", "a", "--", "test", "-e", "/kept"]);
    scene.ok(&["kill", "a"]);
    scene.ok(&["rm", "a"]);
    assert_eq!(scene.json(&["ls", "--json"]), serde_json::json!([]));
}

#[test]
fn g_every_named_sandbox_is_tried_and_force_removes_what_runs() {
    let scene = Scene::with_sandbox();
    scene.ok(&["create", "-q", image(), "--name", "v"]);
    let said = scene.say(&["rm", "-f", "w", "none", "v"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let said = scene.say(&["stop", "x", "y"]);
    assert_eq!(said.code, 125);
    assert!(said.err.starts_with("msb: sandbox x ") && said.err.contains("\nmsb: sandbox y "));
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn g_replace_takes_the_place_of_a_sandbox_of_that_name() {
    let scene = Scene::with_sandbox();
    scene.ok(&["exec", "w", "--", "touch", "/old"]);
    scene.ok(&["create", "--replace", "--name", "w", image()]);
    assert_eq!(scene.say(&["exec", "w", "--", "test", "-e", "/old"]).code, 1);
}

#[test]
fn g_run_cleans_up_after_itself_whatever_the_end() {
    let scene = Scene::new();
    scene.ok(&["run", "--rm", image(), "--", "true"]);
    scene.say(&["run", "--name", "a", image(), "--", "false"]);
    scene.say(&["run", "--name", "a", image(), "--", "nosuch"]);
    scene.say(&["run", "--name", "a", "--timeout", "10ms", image(), "--", "sleep", "600"]);
    assert_eq!(scene.names(), [""; 0]);
    let sandboxes = scene.home.path().join("sandboxes");
    assert_eq!(std::fs::read_dir(sandboxes).unwrap().count(), 0);
}

#[test]
fn g_run_detached_leaves_the_sandbox_and_its_command_running() {
    let scene = Scene::new();
    let call = ["run", "-d", "--name", "a", "-e", "A=1", image(), "--", "sleep", "600"];
    assert_eq!(scene.ok(&call), "a\n");
    let sessions = scene.json(&["sessions", "a", "--json"]);
    assert_eq!(sessions[0]["command"], serde_json::json!(["sleep", "600"]));
    assert_eq!(sessions[0]["status"], serde_json::Value::Null);
    assert_eq!(scene.ok(&["exec", "a", "--", "sh", "-c", "echo $A"]), "1\n");
    let made_up = scene.ok(&["run", "-d", image(), "--", "true"]);
    assert!(scene.names().contains(&made_up.trim_end().to_owned()));
}

#[test]
fn d5_exec_detached_prints_the_id_under_which_the_session_is_listed() {
    let scene = Scene::with_sandbox();
    let id = scene.ok(&["exec", "-d", "w", "--", "sleep", "600"]);
    assert_eq!(scene.ok(&["sessions", "w", "-q"]), id);
    let table = scene.ok(&["sessions", "w"]);
    assert!(table.contains("running") && table.contains("sleep 600"), "{table}");
}

#[test]
fn d5_no_two_processes_give_the_same_id() {
    let scene = Scene::with_sandbox();
    let ids = ["600", "601", "602"].map(|time| scene.ok(&["exec", "-d", "w", "--", "sleep", time]));
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
}

#[test]
fn the_first_interrupt_goes_to_the_program() {
    let scene = Scene::new();
    let script = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.05; done";
    let mut child = scene.spawn(&["run", image(), "--", "sh", "-c", script]);
    wait_for_line(&mut child, "up");
    signal(&child, Signal::INT);
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (5, "caught\n"));
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn the_second_interrupt_kills_it() {
    let scene = Scene::new();
    let script = "trap 'echo caught' INT; echo up; while :; do sleep 0.05; done";
    let mut child = scene.spawn(&["run", image(), "--", "sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    signal(&child, Signal::INT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn a_request_to_terminate_goes_to_the_program_and_run_cleans_up() {
    let scene = Scene::new();
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = scene.spawn(&["run", image(), "--", "sh", "-c", "echo up; exec sleep 600"]);
        wait_for_line(&mut child, "up");
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(scene.names(), [""; 0]);
    }
}

#[test]
fn an_interrupt_at_any_moment_leaves_nothing_behind() {
    let scene = Scene::new();
    // From before msb listens until after the program runs; the times are only a spread.
    for moment in (0..400).step_by(25) {
        let mut child = scene.spawn(&["run", image(), "--", "sleep", "600"]);
        std::thread::sleep(Duration::from_millis(moment));
        signal(&child, Signal::INT);
        let status = child.wait().unwrap();
        assert!(status.code() == Some(130) || status.signal() == Some(2), "{moment}: {status}");
        assert_eq!(scene.names(), [""; 0], "after {moment} ms");
    }
}

/// What stands in a full pipe, at least (pipe(7)): the last page may have room for less than a line.
const PIPE: u64 = 65_536 - 4096;

#[test]
fn an_interrupt_reaches_the_program_while_nobody_reads_the_output() {
    let scene = Scene::with_sandbox();
    let mut child = scene.spawn(&["exec", "w", "--", "yes"]);
    let mut stdout = BufReader::with_capacity(2, child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    // Until the pipe is full, and msb stands in a write.
    while rustix::io::ioctl_fionread(stdout.get_ref()).unwrap() < PIPE {
        std::thread::yield_now();
    }
    signal(&child, Signal::INT);
    // The rest is still all there: nothing of it is thrown away because of the signal.
    let rest = std::io::read_to_string(stdout.into_inner()).unwrap();
    assert!(rest.len() as u64 > PIPE, "{}", rest.len());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let scene = Scene::with_sandbox();
    let environment = scene.command(&[]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "trap '' INT; exec \"$0\" exec -i w -- sh -c 'echo up; read x; echo done'"]);
    command.arg(support::msb());
    command.envs(environment.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child, "up");
    signal(&child, Signal::INT);
    child.stdin.take().unwrap().write_all(b"x\n").unwrap();
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (0, "done\n"));
}

#[test]
fn g_the_doctor_tells_about_the_drivers() {
    let scene = Scene::new();
    let reports = scene.json(&["doctor", "--json"]);
    let container = |report: &&serde_json::Value| report["driver"] == "container";
    let report = reports["drivers"].as_array().unwrap().iter().find(container).unwrap();
    assert_eq!((&report["isolation"], &report["usable"]), (&"container".into(), &true.into()));
    assert!(scene.ok(&["doctor"]).contains("container"));
}

#[test]
fn help_and_version_are_answers_and_not_failures() {
    let scene = Scene::new();
    assert!(scene.ok(&["--version"]).starts_with("msb "));
    assert!(scene.ok(&["exec", "--help"]).contains("--rlimit"));
}

#[test]
fn completion_completes_what_msb_knows() {
    let scene = Scene::new();
    for (shell, first) in [("bash", "_msb()"), ("zsh", "#compdef msb"), ("fish", "#")] {
        let script = scene.ok(&["completion", shell]);
        assert!(script.starts_with(first), "{shell}: {script}");
        assert!(script.contains("sessions"), "{shell}");
    }
    assert!(scene.fails(125, &["completion", "none"]).contains("fish"));
    let script = scene.home.path().join("completion");
    std::fs::write(&script, scene.ok(&["completion", "bash"])).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(msb se) COMP_CWORD=1; _msb msb se msb; echo $COMPREPLY";
    let asked = std::process::Command::new("bash").arg("-c").arg(ask).arg(&script).output();
    assert_eq!(said(asked.unwrap()).out, "sessions\n");
}
