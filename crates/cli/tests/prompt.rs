//! What someone at a prompt relies on, beyond the promises that `msb.rs` holds: habits from other
//! tools, short ways to say things, and what is told when something fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use support::{Scene, image, said, shell_code, signal, wait_for_line};

#[test]
fn g_a_command_needs_no_dashes_and_keeps_its_own_options() {
    let scene = Scene::with_sandbox();
    let out = scene.ok(&["exec", "w", "-e", "A=1", "sh", "-c", "echo $A $0 $1", "-e", "--"]);
    assert_eq!(out, "1 -e --\n");
    assert_eq!(scene.ok(&["run", image(), "-w", "/tmp", "--stream", "pwd"]), "/tmp\n");
    assert_eq!(scene.ok(&["run", "--rm", image(), "echo", "-n", "--", "x"]), "-- x");
    scene.fails(127, &["exec", "w", "--", "--verbose"]);
}

#[test]
fn a7_variables_come_from_files_and_those_of_the_command_line_win() {
    let scene = Scene::with_sandbox();
    let (one, two) = (scene.home.path().join("one"), scene.home.path().join("two"));
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
        let mut msb = scene.command(&call);
        let said = said(msb.env("PASSED", "on").env_remove("UNSET").output().unwrap());
        assert_eq!((said.out.as_str(), said.err.as_str()), (expected, ""), "{call:?}");
    }
    std::fs::write(one, "A=1\nno name=2\n").unwrap();
    let complaint = scene.fails(125, &["exec", "w", "--env-file", one, "true"]);
    assert!(complaint.contains(one) && complaint.contains("line 2"), "{complaint}");
}

#[test]
fn g_names_are_made_up_and_lists_have_the_names_that_others_give_them() {
    let scene = Scene::new();
    let name = scene.ok(&["create", image()]).trim().to_owned();
    assert_eq!(scene.names(), [name.as_str()]);
    assert!(scene.ok(&["ps", "-a"]).contains(&name) && scene.ok(&["list"]).contains(&name));
    scene.ok(&["create", "--name", "v", image()]);
    scene.ok(&["stop", &name, "v"]);
    scene.ok(&["start", &name, "v"]);
    scene.ok(&["remove", "-f", &name, "v"]);
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn g_a_sandbox_ends_by_itself_after_its_time_or_when_nothing_runs() {
    let scene = Scene::new();
    for (option, reason) in [("--max-duration", "max_duration"), ("--idle-timeout", "idle")] {
        scene.ok(&["create", option, "300ms", "--name", reason, image()]);
        let status = || scene.json(&["ls", "--json"]);
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
fn d5_a_session_without_a_terminal_is_followed_from_its_beginning_by_whoever_attaches() {
    let scene = Scene::with_sandbox();
    let script =
        "echo out; echo err >&2; until [ -e /go ]; do usleep 10000; done; echo end; exit 7";
    let id = scene.ok(&["exec", "-d", "w", "sh", "-c", script]);
    let id = id.trim();
    let mut child = scene.spawn(&["attach", "w", &id[..8]]);
    wait_for_line(&mut child, "out");
    scene.ok(&["exec", "w", "touch", "/go"]);
    let said = said(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (7, "end\n", "err\n"));
    // It has ended, and says so again.
    let said = scene.say(&["attach", "w", id]);
    assert_eq!((said.code, said.out.as_str()), (7, "out\nend\n"));
}

#[test]
fn d1_who_only_follows_a_session_ends_and_the_session_goes_on() {
    let scene = Scene::with_sandbox();
    let id = scene.ok(&["exec", "-d", "w", "sh", "-c", "echo up; exec sleep 600"]);
    let id = id.trim();
    let mut child = scene.spawn(&["attach", "w", id]);
    wait_for_line(&mut child, "up");
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
    // One whose reader goes away learns it although there is nothing to write.
    let mut child = scene.spawn(&["attach", "w", id]);
    wait_for_line(&mut child, "up");
    drop(child.stdout.take());
    assert_eq!(shell_code(child.wait().unwrap()), 141);
    let sessions = scene.json(&["sessions", "w", "--json"]);
    assert_eq!(sessions[0]["status"], serde_json::Value::Null, "{sessions}");
}

#[test]
fn d2_kill_ends_a_session_and_signal_is_for_its_group() {
    let scene = Scene::with_sandbox();
    let script = "trap 'echo asked; exit 5' TERM; echo up; while :; do usleep 10000; done";
    for (options, code) in [(&["--signal", "term"][..], 5), (&[], 137)] {
        let mut child = scene.spawn(&["exec", "w", "sh", "-c", script]);
        wait_for_line(&mut child, "up");
        let ids = scene.ok(&["sessions", "-q", "w"]);
        // Those that have ended are no obstacle: only the running one has this id.
        let all = scene.json(&["sessions", "w", "--json"]);
        let running = all.as_array().unwrap().iter().find(|session| session["status"].is_null());
        let id = running.unwrap()["id"].as_str().unwrap();
        assert!(ids.contains(id));
        scene.ok(&[&["kill", "w", "--session", &id[..12]], options].concat());
        assert_eq!(said(child.wait_with_output().unwrap()).code, code);
    }
    let ids = scene.ok(&["sessions", "-q", "w"]);
    let ended = ids.lines().next().unwrap();
    assert!(scene.fails(125, &["kill", "w", "--session", ended]).contains("ended"));
    assert_eq!(scene.names(), ["w"]);
}

#[test]
fn e_what_is_behind_a_failure_is_told_to_whoever_asks() {
    let scene = Scene::with_sandbox();
    for (arguments, code, parts) in [
        (&["exec", "none", "true"][..], 125, ["kind sandbox_not_found", "host"]),
        (&["exec", "w", "nosuch"], 127, ["kind not_found, at execve", "ENOENT (2)"]),
    ] {
        let short = scene.fails(code, arguments);
        let said = scene.say(&[&["--verbose"], arguments].concat());
        assert_eq!(said.code, code);
        assert!(said.err.starts_with(&format!("msb: {short}\n")), "{}", said.err);
        assert!(parts.iter().all(|part| said.err.contains(part)), "{}", said.err);
        assert!(said.err.lines().all(|line| line.starts_with("msb: ")), "{}", said.err);
    }
}

#[test]
fn an_interrupt_before_the_program_runs_ends_msb_as_the_signal_does() {
    let scene = Scene::new();
    let slow = scene.slow_runner();
    let mut command = scene.command(&["run", image(), "true"]);
    let mut child = command.env("MSB_RUNNER", slow).spawn().unwrap();
    // It listens before it begins: the state directory is the first sign of that.
    let sandboxes = scene.home.path().join("sandboxes");
    while std::fs::read_dir(&sandboxes).map_or(0, Iterator::count) == 0 {
        std::thread::yield_now();
    }
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
    assert_eq!(scene.names(), [""; 0]);
}

/// The agent of a sandbox, as the host sees it: the one that has this file.
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
fn the_third_interrupt_ends_msb_although_nobody_answers() {
    let scene = Scene::with_sandbox();
    let marker = format!("/marker-{}", std::process::id());
    let script =
        format!("trap 'echo caught' INT; touch {marker}; echo up; while :; do usleep 10000; done");
    let mut child = scene.spawn(&["exec", "w", "sh", "-c", &script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    signal(&child, Signal::INT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    // Nobody answers any more.
    let agent = agent_with(&marker);
    kill_process(agent, Signal::STOP).unwrap();
    signal(&child, Signal::INT);
    // The second one is one of its own only when the third comes after it was taken.
    while child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal(&child, Signal::INT);
    }
    kill_process(agent, Signal::CONT).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
}

#[test]
fn help_tells_about_every_option_and_the_mistake_about_the_right_help() {
    let scene = Scene::new();
    for task in ["run", "exec", "attach", "create", "kill", "stop", "logs", "sessions"] {
        let help = scene.ok(&[task, "--help"]);
        assert!(help.contains("Usage: msb "), "{help}");
        let complaint = scene.fails(125, &[task, "--no-such-option"]);
        assert!(complaint.contains(&format!("msb {task} --help")), "{complaint}");
    }
    let mut child = scene.spawn(&["--help"]);
    let mut help = String::new();
    child.stdout.take().unwrap().read_to_string(&mut help).unwrap();
    assert!(!help.contains("manual") && help.contains("128+n"), "{help}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_manual_has_a_page_for_every_task_and_the_reference_is_the_one_in_docs() {
    let scene = Scene::new();
    let folder = scene.home.path().join("man/man1");
    scene.ok(&["manual", folder.to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for task in ["run", "exec", "attach", "create", "start", "stop", "kill", "rm", "ls"] {
        let text = page(&format!("msb-{task}.1"));
        assert!(text.contains(".SH OPTIONS") && text.contains(".SH SYNOPSIS"), "{task}");
    }
    assert!(
        page("msb.1").contains("msb\\-sessions(1)") && page("msb-exec.1").contains("env\\-file")
    );
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md"));
    let reference = scene.ok(&["manual", "--markdown"]);
    let docs = docs.unwrap();
    let kept = docs.split_once("<!-- reference -->\n\n").unwrap().1;
    // `target/debug/msb manual --markdown` prints what is to stand there.
    assert_eq!(kept.trim_end(), reference.trim_end());
}
