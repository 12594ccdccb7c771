//! Promises H at the prompt: `msb exec --tty` and `msb attach`, on a pseudo-terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use support::{Scene, image, shell_code, signal};

struct Screen {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: Termios,
    seen: Vec<u8>,
}

impl Screen {
    fn new(scene: &Scene, arguments: &[&str]) -> Screen {
        Screen::of(&mut scene.command(arguments), false)
    }

    /// As the one whose terminal this is, as a shell would have it.
    fn leading(scene: &Scene, arguments: &[&str]) -> Screen {
        let msb = scene.command(arguments);
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(msb.get_program()).args(msb.get_args());
        command.envs(msb.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Screen::of(&mut command, false)
    }

    /// With the complaints on the terminal too, or in a pipe.
    fn of(command: &mut Command, all: bool) -> Screen {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let before = tcgetattr(&slave).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        match all {
            true => command.stderr(slave.try_clone().unwrap()),
            false => command.stderr(Stdio::piped()),
        };
        let child = command.spawn().unwrap();
        // What it has of the terminal is to be closed when it ends.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Screen { child, master: File::from(master), slave, before, seen: Vec::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn expect(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            self.wait_for_more(text);
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..count]);
        }
        self.seen.clear();
    }

    /// Until there is something to read; a child that ended without a word fails the test.
    fn wait_for_more(&mut self, text: &str) {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let a_while = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut ended = None;
        while poll(&mut fds, Some(&a_while)).unwrap() == 0 {
            if let Some(status) = ended {
                let mut complaints = String::new();
                if let Some(mut stderr) = self.child.stderr.take() {
                    stderr.read_to_string(&mut complaints).unwrap();
                }
                let seen = String::from_utf8_lossy(&self.seen);
                panic!("{status} without {text:?}; on the terminal {seen:?}; {complaints}");
            }
            // What it wrote before its end is looked for once more.
            ended = self.child.try_wait().unwrap();
        }
    }

    /// The exit code, and all that is still to be shown.
    fn last_words(mut self) -> (i32, String) {
        let code = shell_code(self.child.wait().unwrap());
        drop(self.slave);
        // With an error, once all is read and nobody has the terminal any more.
        let _ = self.master.read_to_end(&mut self.seen);
        (code, String::from_utf8(self.seen).unwrap())
    }

    /// The exit code and what was complained; the terminal must be as it was.
    fn ended(mut self) -> (i32, String) {
        let mut complaints = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut complaints).unwrap();
        }
        let code = shell_code(self.child.wait().unwrap());
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        (code, complaints)
    }
}

fn running_session(scene: &Scene) -> String {
    let sessions = scene.json(&["sessions", "w", "--json"]);
    let running = |session: &&serde_json::Value| session["status"].is_null();
    sessions.as_array().unwrap().iter().find(running).unwrap()["id"].as_str().unwrap().to_owned()
}

fn only_session(scene: &Scene) -> String {
    let ids = scene.ok(&["sessions", "-q", "w"]);
    ids.lines().next().unwrap().to_owned()
}

#[test]
fn h1_a_terminal_runs_a_command_or_the_shell() {
    let scene = Scene::with_sandbox();
    let mut screen = Screen::new(&scene, &["exec", "-t", "w", "-e", "DEBUG=1", "-w", "/tmp"]);
    screen.type_in("echo $DEBUG-$PWD; exit 6\r");
    screen.expect("1-/tmp");
    assert_eq!(screen.ended(), (6, String::new()));
    let script = ["exec", "-t", "w", "--", "sh", "-c", "tty; kill -TERM $$"];
    let mut screen = Screen::new(&scene, &script);
    screen.expect("/dev/");
    assert_eq!(screen.ended(), (143, String::new()));
    let (code, _) = Screen::new(&scene, &["exec", "-t", "w", "--", "nosuch"]).ended();
    assert_eq!(code, 127);
    let complaint = scene.fails(125, &["exec", "-t", "w"]);
    assert!(complaint.contains("not a terminal"), "{complaint}");
}

#[test]
fn h2_a_command_that_was_left_is_taken_up_again() {
    let scene = Scene::with_sandbox();
    let script = "echo ready; read line; echo got $line; exit 9";
    let exec = ["exec", "-t", "--detach-keys", "ctrl-p,ctrl-q", "w", "--", "sh", "-c", script];
    let mut screen = Screen::new(&scene, &exec);
    screen.expect("ready");
    screen.type_in("\x10\x11");
    let (code, complaint) = screen.ended();
    assert_eq!(code, 0);
    let id = only_session(&scene);
    assert!(complaint.contains(&format!("msb attach w {}", &id[..12])), "{complaint}");
    // The beginning of an id is enough, and other keys part them this time.
    let mut screen = Screen::new(&scene, &["attach", "--detach-keys", "q", "w", &id[..5]]);
    screen.type_in("q");
    assert_eq!(screen.ended().0, 0);
    let mut screen = Screen::new(&scene, &["attach", "w", &id]);
    screen.type_in("it\r");
    screen.expect("got it");
    assert_eq!(screen.ended().0, 9);
    let (code, complaint) = Screen::new(&scene, &["attach", "w", &"0".repeat(32)]).ended();
    assert_eq!(code, 125);
    assert!(complaint.contains("no session"), "{complaint}");
}

#[test]
fn h1_a_signal_gives_the_terminal_back_and_leaves_the_command_running() {
    let scene = Scene::with_sandbox();
    let script = "printf '\\033[?1049h'; echo ready; read line; exit 4";
    let exec = ["exec", "-t", "w", "--", "sh", "-c", script];
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut screen = Screen::new(&scene, &exec);
        screen.expect("ready");
        signal(&screen.child, number);
        screen.expect("\x1b[?1049l");
        assert_eq!(screen.ended().0, code);
        let mut screen = Screen::new(&scene, &["attach", "w", &running_session(&scene)]);
        screen.type_in("\r");
        assert_eq!(screen.ended().0, 4);
    }
}

#[test]
fn b7_h1_a_sandbox_that_dies_gives_the_terminal_back() {
    let scene = Scene::with_sandbox();
    let script = "printf '\\033[?1049h'; echo ready; sleep 600";
    let mut screen = Screen::new(&scene, &["exec", "-t", "w", "sh", "-c", script]);
    screen.expect("ready");
    scene.ok(&["kill", "w"]);
    screen.expect("\x1b[?1049l");
    let (code, complaint) = screen.ended();
    assert_eq!(code, 125);
    assert!(complaint.contains("exit status is unknown"), "{complaint}");
}

#[test]
fn h1_run_has_a_terminal_and_a_shell_and_takes_its_sandbox_away() {
    let scene = Scene::new();
    let run = ["run", "-it", "--shell", "/bin/ash", "-e", "A=1", "-w", "/tmp", image()];
    let mut screen = Screen::new(&scene, &run);
    screen.type_in("echo $0-$A-$PWD; exit 3\r");
    screen.expect("/bin/ash-1-/tmp");
    assert_eq!(screen.ended(), (3, String::new()));
    assert_eq!(scene.names(), [""; 0]);
    let run = ["run", "-t", "--timeout", "300ms", image(), "sh", "-c", "echo up; sleep 600"];
    let mut screen = Screen::new(&scene, &run);
    screen.expect("up");
    let (code, complaint) = screen.ended();
    assert_eq!(code, 124);
    assert!(complaint.contains("300ms"), "{complaint}");
    let (code, _) = Screen::new(&scene, &["run", "-t", image(), "nosuch"]).ended();
    assert_eq!(code, 127);
    let mut screen = Screen::new(&scene, &["run", "-t", image(), "sh", "-c", "echo up; sleep 600"]);
    screen.expect("up");
    signal(&screen.child, Signal::TERM);
    assert_eq!(screen.ended().0, 143);
    assert_eq!(scene.names(), [""; 0]);
    let complaint = scene.fails(125, &["run", "-t", image()]);
    assert!(complaint.contains("not a terminal"), "{complaint}");
}

#[test]
fn h2_run_leaves_sandbox_and_command_running_when_the_keys_are_typed() {
    let scene = Scene::new();
    let script = "echo ready; read line; echo got $line; exit 9";
    let mut screen =
        Screen::new(&scene, &["run", "-t", "--name", "r", image(), "sh", "-c", script]);
    screen.expect("ready");
    screen.type_in("\x1d");
    let (code, complaint) = screen.ended();
    assert_eq!(code, 0);
    assert!(complaint.contains("msb attach r "), "{complaint}");
    let id = scene.ok(&["sessions", "-q", "r"]).trim().to_owned();
    let mut screen = Screen::new(&scene, &["attach", "r", &id]);
    screen.type_in("it\r");
    screen.expect("got it");
    assert_eq!(screen.ended().0, 9);
    assert_eq!(scene.names(), ["r"]);
}

#[test]
fn h2_what_begins_in_the_background_with_a_terminal_waits_for_someone_to_attach() {
    let scene = Scene::with_sandbox();
    assert_eq!(scene.ok(&["run", "-dit", "--name", "r", image()]), "r\n");
    scene.ok(&["exec", "-dt", "-e", "A=1", "r", "sh", "-c", "read line; echo $A$line; exit 4"]);
    let sessions = scene.json(&["sessions", "r", "--json"]);
    for session in sessions.as_array().unwrap() {
        assert_eq!((&session["tty"], &session["status"]), (&true.into(), &().into()), "{session}");
        let id = session["id"].as_str().unwrap();
        let mut screen = Screen::new(&scene, &["attach", "r", id]);
        if session["command"].to_string().contains("read line") {
            screen.type_in("2\r");
            screen.expect("12");
            assert_eq!(screen.ended().0, 4);
        } else {
            screen.type_in("echo $((6 * 7)); exit 5\r");
            screen.expect("42");
            assert_eq!(screen.ended().0, 5);
        }
    }
    scene.fails(127, &["run", "-dt", image(), "nosuch"]);
    assert_eq!(scene.names(), ["r", "w"]);
}

#[test]
fn h1_attach_without_a_session_is_a_shell() {
    let scene = Scene::with_sandbox();
    let mut screen = Screen::new(&scene, &["attach", "w"]);
    screen.type_in("echo $((6 * 7)); exit 5\r");
    screen.expect("42");
    assert_eq!(screen.ended(), (5, String::new()));
}

#[test]
fn a_terminal_is_passed_on_as_input_without_being_asked_for() {
    let scene = Scene::with_sandbox();
    let mut screen =
        Screen::leading(&scene, &["exec", "w", "sh", "-c", "read l; echo got $l; cat"]);
    screen.type_in("this\n");
    screen.expect("got this");
    screen.type_in("\x04");
    assert_eq!(screen.ended(), (0, String::new()));
    // One at which somebody else works is not.
    let screen = Screen::new(&scene, &["exec", "w", "readlink", "/proc/self/fd/0"]);
    assert_eq!(screen.last_words(), (0, "/dev/null\r\n".to_owned()));
}

#[test]
fn what_takes_long_is_shown_on_a_terminal_and_nowhere_else() {
    let scene = Scene::new();
    let slow = scene.slow_runner();
    let mut command = scene.command(&["create", "--name", "slow", image()]);
    let mut screen = Screen::of(command.env("MSB_RUNNER", &slow), true);
    screen.expect("starting slow");
    let (code, shown) = screen.last_words();
    assert_eq!(code, 0);
    // Nothing of it is left on the line where the name stands.
    assert!(shown.ends_with("\x1b[2Kslow\r\n"), "{shown:?}");
    let mut command = scene.command(&["run", image(), "echo", "hi"]);
    let output = command.env("MSB_RUNNER", &slow).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hi\n"[..], &b""[..]));
}
