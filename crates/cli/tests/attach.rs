//! Promises H of `msb exec --tty`, `msb run --tty` and `msb attach`, on a pseudo-terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use rustix::process::Signal;
use std::process::Command;
use support::pty::Pty;
use support::{Msb, image, running_session, signal};

#[test]
fn h1_exec_tty_runs_a_command_or_the_shell() {
    let msb = Msb::with_sandbox();
    let mut pty = Pty::new(&msb, &["exec", "-t", "w", "-e", "DEBUG=1", "-w", "/tmp"]);
    pty.type_in("echo $DEBUG-$PWD; exit 6\r");
    pty.expect("1-/tmp");
    assert_eq!(pty.wait(), (6, String::new()));
    let script = ["exec", "-t", "w", "--", "sh", "-c", "tty; kill -TERM $$"];
    let mut pty = Pty::new(&msb, &script);
    pty.expect("/dev/");
    assert_eq!(pty.wait(), (143, String::new()));
    let (code, _) = Pty::new(&msb, &["exec", "-t", "w", "--", "nosuch"]).wait();
    assert_eq!(code, 127);
    let error = msb.fails(125, &["exec", "-t", "w"]);
    assert!(error.contains("not a terminal"), "{error}");
}

#[test]
fn h2_detached_command_can_be_reattached() {
    let msb = Msb::with_sandbox();
    let script = "echo ready; read line; echo got $line; exit 9";
    let exec = ["exec", "-t", "--detach-keys", "ctrl-p,ctrl-q", "w", "--", "sh", "-c", script];
    let mut pty = Pty::new(&msb, &exec);
    pty.expect("ready");
    pty.type_in("\x10\x11");
    let (code, error) = pty.wait();
    assert_eq!(code, 0);
    let id = running_session(&msb);
    assert!(error.contains(&format!("msb attach w {}", &id[..12])), "{error}");
    // A prefix of the id is enough. This time with other keys.
    let mut pty = Pty::new(&msb, &["attach", "--detach-keys", "q", "w", &id[..5]]);
    pty.type_in("q");
    assert_eq!(pty.wait().0, 0);
    let mut pty = Pty::new(&msb, &["attach", "w", &id]);
    pty.type_in("it\r");
    pty.expect("got it");
    assert_eq!(pty.wait().0, 9);
    let (code, error) = Pty::new(&msb, &["attach", "w", &"0".repeat(32)]).wait();
    assert_eq!(code, 125);
    assert!(error.contains("no session"), "{error}");
}

#[test]
fn h1_signal_ends_command_and_restores_terminal() {
    let msb = Msb::with_sandbox();
    let script = "printf '\\033[?1049h'; echo ready; exec sleep 600";
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        let mut pty = Pty::new(&msb, &["exec", "-t", "w", "--", "sh", "-c", script]);
        pty.expect("ready");
        signal(&pty.child, number);
        pty.expect("\x1b[?1049l");
        assert_eq!(pty.wait().0, code);
    }
}

#[test]
fn h2_terminal_that_hangs_up_leaves_command_running() {
    let msb = Msb::with_sandbox();
    let script = "echo ready; read line; exit 4";
    let mut pty = Pty::controlling(&msb, &["exec", "-t", "w", "--", "sh", "-c", script]);
    pty.expect("ready");
    // The kernel sends SIGHUP.
    pty.hang_up();
    let mut pty = Pty::new(&msb, &["attach", "w", &running_session(&msb)]);
    pty.type_in("\r");
    assert_eq!(pty.wait().0, 4);
}

#[test]
fn b7_h1_dead_sandbox_restores_the_terminal() {
    let msb = Msb::with_sandbox();
    let script = "printf '\\033[?1049h'; echo ready; sleep 600";
    let mut pty = Pty::new(&msb, &["exec", "-t", "w", "sh", "-c", script]);
    pty.expect("ready");
    msb.ok(&["kill", "w"]);
    pty.expect("\x1b[?1049l");
    let (code, error) = pty.wait();
    assert_eq!(code, 125);
    assert!(error.contains("exit status is unknown"), "{error}");
}

#[test]
fn h1_run_tty_runs_a_shell_and_removes_its_sandbox() {
    let msb = Msb::new();
    let run = ["run", "-it", "--shell", "/bin/ash", "-e", "A=1", "-w", "/tmp", image()];
    let mut pty = Pty::new(&msb, &run);
    pty.type_in("echo $0-$A-$PWD; exit 3\r");
    pty.expect("/bin/ash-1-/tmp");
    assert_eq!(pty.wait(), (3, String::new()));
    assert_eq!(msb.names(), [""; 0]);
    let run = ["run", "-t", "--timeout", "300ms", image(), "sh", "-c", "echo up; sleep 600"];
    let mut pty = Pty::new(&msb, &run);
    pty.expect("up");
    let (code, error) = pty.wait();
    assert_eq!(code, 124);
    assert!(error.contains("300ms"), "{error}");
    let (code, _) = Pty::new(&msb, &["run", "-t", image(), "nosuch"]).wait();
    assert_eq!(code, 127);
    let mut pty = Pty::new(&msb, &["run", "-t", image(), "sh", "-c", "echo up; sleep 600"]);
    pty.expect("up");
    signal(&pty.child, Signal::TERM);
    assert_eq!(pty.wait().0, 143);
    assert_eq!(msb.names(), [""; 0]);
    let error = msb.fails(125, &["run", "-t", image()]);
    assert!(error.contains("not a terminal"), "{error}");
}

#[test]
fn h2_detach_keys_leave_sandbox_of_run_running() {
    let msb = Msb::new();
    let script = "echo ready; read line; echo got $line; exit 9";
    let mut pty = Pty::new(&msb, &["run", "-t", "--name", "r", image(), "sh", "-c", script]);
    pty.expect("ready");
    pty.type_in("\x1d");
    let (code, error) = pty.wait();
    assert_eq!(code, 0);
    assert!(error.contains("msb attach r "), "{error}");
    let id = msb.ok(&["sessions", "-q", "r"]).trim().to_owned();
    let mut pty = Pty::new(&msb, &["attach", "r", &id]);
    pty.type_in("it\r");
    pty.expect("got it");
    assert_eq!(pty.wait().0, 9);
    assert_eq!(msb.names(), ["r"]);
}

#[test]
fn h2_detached_tty_session_waits_for_attach() {
    let msb = Msb::with_sandbox();
    assert_eq!(msb.ok(&["run", "-dit", "--name", "r", image()]), "r\n");
    msb.ok(&["exec", "-dt", "-e", "A=1", "r", "sh", "-c", "read line; echo $A$line; exit 4"]);
    let sessions = msb.json(&["sessions", "r", "--json"]);
    for session in sessions.as_array().unwrap() {
        assert_eq!((&session["tty"], &session["status"]), (&true.into(), &().into()), "{session}");
        let id = session["id"].as_str().unwrap();
        let mut pty = Pty::new(&msb, &["attach", "r", id]);
        if session["command"].to_string().contains("read line") {
            pty.type_in("2\r");
            pty.expect("12");
            assert_eq!(pty.wait().0, 4);
        } else {
            pty.type_in("echo $((6 * 7)); exit 5\r");
            pty.expect("42");
            assert_eq!(pty.wait().0, 5);
        }
    }
    msb.fails(127, &["run", "-dt", image(), "nosuch"]);
    assert_eq!(msb.names(), ["r", "w"]);
}

#[test]
fn h1_attach_without_a_session_opens_a_shell() {
    let msb = Msb::with_sandbox();
    let mut pty = Pty::new(&msb, &["attach", "w"]);
    pty.type_in("echo $((6 * 7)); exit 5\r");
    pty.expect("42");
    assert_eq!(pty.wait(), (5, String::new()));
}

#[test]
fn foreground_terminal_is_forwarded_without_i() {
    let msb = Msb::with_sandbox();
    let mut pty = Pty::controlling(&msb, &["exec", "w", "sh", "-c", "read l; echo got $l; cat"]);
    pty.type_in("this\n");
    pty.expect("got this");
    pty.type_in("\x04");
    assert_eq!(pty.wait(), (0, String::new()));
    // A terminal with another process in the foreground is not.
    let pty = Pty::new(&msb, &["exec", "w", "readlink", "/proc/self/fd/0"]);
    assert_eq!(pty.wait_and_read(), (0, "/dev/null\r\n".to_owned()));
}

#[test]
fn spinner_is_shown_on_a_terminal_only() {
    let msb = Msb::new();
    let slow = msb.slow_runner();
    let mut command = msb.command(&["create", "--name", "slow", image()]);
    let mut pty = Pty::of(command.env("MSB_RUNNER", &slow), true);
    pty.expect("starting slow");
    let (code, shown) = pty.wait_and_read();
    assert_eq!(code, 0);
    // The spinner is erased before the name is printed.
    assert!(shown.ends_with("\x1b[2Kslow\r\n"), "{shown:?}");
    let mut command = msb.command(&["run", image(), "echo", "hi"]);
    let output = command.env("MSB_RUNNER", &slow).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hi\n"[..], &b""[..]));
}

#[test]
fn h1_background_job_does_not_touch_the_terminal() {
    let msb = Msb::with_sandbox();
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-mc"]);
    let jobs = "\"$0\" exec -t w echo shown & wait $!; echo stopped $?; stty -a; fg";
    command.arg(jobs).arg(support::binary());
    msb.set_environment(&mut command);
    let mut pty = Pty::of(&mut command, true);
    pty.expect("stopped 1");
    pty.expect(" icanon");
    pty.expect("shown");
    assert_eq!(pty.wait().0, 0);
}
