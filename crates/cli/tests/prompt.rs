//! `msb` in interactive use: habits from other tools, short forms, errors and help.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use support::{Msb, image, outcome, running_session, shell_code, signal, wait, wait_for_line};

#[test]
fn g_command_keeps_its_options_without_dashes() {
    let msb = Msb::with_sandbox();
    let out = msb.ok(&["exec", "w", "-e", "A=1", "sh", "-c", "echo $A $0 $1", "-e", "--"]);
    assert_eq!(out, "1 -e --\n");
    assert_eq!(msb.ok(&["run", image(), "-w", "/tmp", "--stream", "pwd"]), "/tmp\n");
    assert_eq!(msb.ok(&["run", "--rm", image(), "echo", "-n", "--", "x"]), "-- x");
    msb.fails(127, &["exec", "w", "--", "--verbose"]);
}

#[test]
fn a7_env_option_overrides_env_files() {
    let msb = Msb::with_sandbox();
    let (one, two) = (msb.home.path().join("one"), msb.home.path().join("two"));
    std::fs::write(&one, "# first\nA=1\nB=\"quoted\" # and no comment\nC=1\nPASSED\nUNSET\n")
        .unwrap();
    std::fs::write(&two, "C=2\n").unwrap();
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let script = "echo $A,$B,$C,$PASSED,${UNSET-none}";
    let arguments = ["--env-file", one, "-e", "A=9", "--env-file", two];
    let command = ["sh", "-c", script];
    let expected = "9,\"quoted\" # and no comment,2,on,none\n";
    for call in [
        [&["exec", "w"][..], &arguments, &command].concat(),
        [&["run"][..], &arguments, &[image()], &command].concat(),
    ] {
        let mut command = msb.command(&call);
        let outcome = outcome(command.env("PASSED", "on").env_remove("UNSET").output().unwrap());
        assert_eq!((outcome.out.as_str(), outcome.err.as_str()), (expected, ""), "{call:?}");
    }
    std::fs::write(one, "A=1\nno name=2\n").unwrap();
    let error = msb.fails(125, &["exec", "w", "--env-file", one, "true"]);
    assert!(error.contains(one) && error.contains("line 2"), "{error}");
}

#[test]
fn g_random_names_and_command_aliases() {
    let msb = Msb::new();
    let name = msb.ok(&["create", image()]).trim().to_owned();
    assert_eq!(msb.names(), [name.as_str()]);
    assert!(msb.ok(&["ps", "-a"]).contains(&name) && msb.ok(&["list"]).contains(&name));
    msb.ok(&["create", "--name", "v", image()]);
    msb.ok(&["stop", &name, "v"]);
    msb.ok(&["start", &name, "v"]);
    msb.ok(&["remove", "-f", &name, "v"]);
    assert_eq!(msb.names(), [""; 0]);
}

#[test]
fn g_sandbox_stops_after_max_duration_or_when_idle() {
    let msb = Msb::new();
    for (option, reason) in [("--max-duration", "max_duration"), ("--idle-timeout", "idle")] {
        msb.ok(&["create", option, "300ms", "--name", reason, image()]);
        let status = || msb.json(&["ls", "--json"]);
        let entry = |list: &serde_json::Value| {
            list.as_array().unwrap().iter().find(|entry| entry["name"] == reason).unwrap().clone()
        };
        let mut found = entry(&status());
        while found["status"] == "running" {
            std::thread::sleep(std::time::Duration::from_millis(20));
            found = entry(&status());
        }
        assert!(found["end_reason"].as_str().unwrap().contains(reason), "{found}");
    }
}

#[test]
fn d5_attach_without_tty_prints_output_from_the_start() {
    let msb = Msb::with_sandbox();
    let script =
        "echo out; echo err >&2; until [ -e /go ]; do usleep 10000; done; echo end; exit 7";
    let id = msb.ok(&["exec", "-d", "w", "sh", "-c", script]);
    let id = id.trim();
    let mut child = msb.spawn(&["attach", "w", &id[..8]]);
    wait_for_line(&mut child, "out");
    msb.ok(&["exec", "w", "touch", "/go"]);
    let outcome = wait(child);
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "end\n", "err\n"));
    // An ended session replays its output and exit code.
    let outcome = msb.run(&["attach", "w", id]);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "out\nend\n"));
}

#[test]
fn d1_session_survives_its_follower() {
    let msb = Msb::with_sandbox();
    let id = msb.ok(&["exec", "-d", "w", "sh", "-c", "echo up; exec sleep 600"]);
    let id = id.trim();
    let mut child = msb.spawn(&["attach", "w", id]);
    wait_for_line(&mut child, "up");
    signal(&child, Signal::KILL);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    // A closed output ends msb although there is nothing to write.
    let mut child = msb.spawn(&["attach", "w", id]);
    wait_for_line(&mut child, "up");
    drop(child.stdout.take());
    assert_eq!(shell_code(child.wait().unwrap()), 141);
    let sessions = msb.json(&["sessions", "w", "--json"]);
    assert_eq!(sessions[0]["status"], serde_json::Value::Null, "{sessions}");
}

#[test]
fn d2_kill_ends_session_and_signal_reaches_its_group() {
    let msb = Msb::with_sandbox();
    let script = "trap 'echo asked; exit 5' TERM; echo up; while :; do usleep 10000; done";
    for (options, code) in [(&["--signal", "term"][..], 5), (&[], 137)] {
        let mut child = msb.spawn(&["exec", "w", "sh", "-c", script]);
        wait_for_line(&mut child, "up");
        let id = running_session(&msb);
        assert!(msb.ok(&["sessions", "-q", "w"]).contains(&id));
        msb.ok(&[&["kill", "w", "--session", &id[..12]], options].concat());
        assert_eq!(wait(child).code, code);
    }
    let ids = msb.ok(&["sessions", "-q", "w"]);
    let ended = ids.lines().next().unwrap();
    assert!(msb.fails(125, &["kill", "w", "--session", ended]).contains("has exited"));
    assert_eq!(msb.names(), ["w"]);
}

#[test]
fn e_verbose_prints_causes() {
    let msb = Msb::with_sandbox();
    for (arguments, code, parts) in [
        (&["exec", "none", "true"][..], 125, ["kind sandbox_not_found", "host"]),
        (&["exec", "w", "nosuch"], 127, ["kind not_found, at execve", "ENOENT (2)"]),
    ] {
        let short = msb.fails(code, arguments);
        let outcome = msb.run(&[&["--verbose"], arguments].concat());
        assert_eq!(outcome.code, code);
        assert!(outcome.err.starts_with(&format!("msb: {short}\n")), "{}", outcome.err);
        assert!(parts.iter().all(|part| outcome.err.contains(part)), "{}", outcome.err);
        assert!(outcome.err.lines().all(|line| line.starts_with("msb: ")), "{}", outcome.err);
    }
}

#[test]
fn interrupt_before_start_ends_msb_by_signal() {
    let msb = Msb::new();
    let slow = msb.slow_runner();
    let mut command = msb.command(&["run", image(), "true"]);
    let mut child = command.env("MSB_RUNNER", slow).spawn().unwrap();
    // The state directory appears after msb started to handle signals.
    let sandboxes = msb.home.path().join("sandboxes");
    while std::fs::read_dir(&sandboxes).map_or(0, Iterator::count) == 0 {
        std::thread::yield_now();
    }
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
    assert_eq!(msb.names(), [""; 0]);
}

/// Returns the host pid of the agent whose sandbox has this file.
fn agent_with(path: &str) -> Pid {
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let folder = entry.path();
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        let has = folder.join("root").join(path.trim_start_matches('/')).exists();
        let number = entry.file_name().to_str()?.parse().ok()?;
        (name == "agent\n" && has).then(|| Pid::from_raw(number)).flatten()
    });
    found.unwrap()
}

#[test]
fn third_interrupt_exits_with_a_silent_agent() {
    let msb = Msb::with_sandbox();
    let marker = format!("/marker-{}", std::process::id());
    let script =
        format!("trap 'echo caught' INT; touch {marker}; echo up; while :; do usleep 10000; done");
    let mut child = msb.spawn(&["exec", "w", "sh", "-c", &script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    signal(&child, Signal::INT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    // From here on the agent does not answer.
    let agent = agent_with(&marker);
    kill_process(agent, Signal::STOP).unwrap();
    signal(&child, Signal::INT);
    // Repeated: signals that arrive before the second one is handled merge with it.
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal(&child, Signal::INT);
    }
    kill_process(agent, Signal::CONT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn mistakes_name_the_help_of_their_command() {
    let msb = Msb::new();
    for task in ["run", "exec", "attach", "create", "kill", "stop", "logs", "sessions"] {
        let help = msb.ok(&[task, "--help"]);
        assert!(help.contains("Usage: msb "), "{help}");
        let error = msb.fails(125, &[task, "--no-such-option"]);
        assert!(error.contains(&format!("msb {task} --help")), "{error}");
    }
    let mut child = msb.spawn(&["--help"]);
    let mut help = String::new();
    child.stdout.take().unwrap().read_to_string(&mut help).unwrap();
    assert!(!help.contains("manual") && help.contains("128+n"), "{help}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn manual_is_complete_and_docs_are_current() {
    let msb = Msb::new();
    let folder = msb.home.path().join("man/man1");
    msb.ok(&["manual", folder.to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for task in ["run", "exec", "attach", "create", "start", "stop", "kill", "rm", "ls"] {
        let text = page(&format!("msb-{task}.1"));
        assert!(text.contains(".SH OPTIONS") && text.contains(".SH SYNOPSIS"), "{task}");
    }
    assert!(
        page("msb.1").contains("msb\\-sessions(1)") && page("msb-exec.1").contains("env\\-file")
    );
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md"));
    let reference = msb.ok(&["manual", "--markdown"]);
    let docs = docs.unwrap();
    let kept = docs.split_once("<!-- reference -->\n\n").unwrap().1;
    // `target/debug/msb manual --markdown` prints the new reference.
    assert_eq!(kept.trim_end(), reference.trim_end());
}
