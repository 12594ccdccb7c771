//! Promises H at the prompt: `msb exec --tty` and `msb attach`, on a pseudo-terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use support::{Scene, signal};

struct Screen {
    child: Child,
    master: File,
    slave: OwnedFd,
    before: Termios,
    seen: Vec<u8>,
}

impl Screen {
    fn new(scene: &Scene, arguments: &[&str]) -> Screen {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let mut command = scene.command(arguments);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        Screen { child, master: File::from(master), slave, before, seen: Vec::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn expect(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..count]);
        }
        self.seen.clear();
    }

    /// The exit code and what was complained; the terminal must be as it was.
    fn ended(mut self) -> (i32, String) {
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        (code, complaints)
    }
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
    assert!(complaint.contains("msb sessions w"), "{complaint}");
    let mut screen = Screen::new(&scene, &["attach", "w", &only_session(&scene)]);
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
    let script = "echo ready; read line; exit 4";
    let mut screen = Screen::new(&scene, &["exec", "-t", "w", "--", "sh", "-c", script]);
    screen.expect("ready");
    signal(&screen.child, Signal::TERM);
    assert_eq!(screen.ended().0, 143);
    let mut screen = Screen::new(&scene, &["attach", "w", &only_session(&scene)]);
    screen.type_in("\r");
    assert_eq!(screen.ended().0, 4);
}
