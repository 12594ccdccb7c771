//! Signals to `msb run`, `msb exec` and `msb attach`: all 64 of them, with and without a terminal.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use support::pty::{self, Pty};
use support::{Msb, image, running_session, shell_code, signal_number};

/// What msb does about a signal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Effect {
    /// The command gets it.
    Forwarded,
    /// It ends msb.
    Ends,
    /// It stops msb until SIGCONT.
    Stops,
    /// Nothing.
    None,
}

fn effect(number: i32, tty: bool) -> Effect {
    match number {
        // The standard library's handler ignores the first, which is no fault.
        libc::SIGBUS | libc::SIGSEGV if !tty => Effect::None,
        libc::SIGABRT | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGSEGV => Effect::Ends,
        libc::SIGSYS | libc::SIGTRAP | libc::SIGKILL => Effect::Ends,
        libc::SIGSTOP | libc::SIGTTIN | libc::SIGTTOU => Effect::Stops,
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | 32 | 33 => Effect::None,
        // It comes as the terminal's size.
        libc::SIGWINCH if tty => Effect::None,
        _ => Effect::Forwarded,
    }
}

/// A command that ends with code 5 at the signal, or at SIGUSR1 or SIGCONT.
fn trapping(number: i32) -> String {
    let number = if effect(number, false) == Effect::Forwarded { number } else { libc::SIGUSR1 };
    // The sleep may be ended by the signal; then the loop waits for the trap.
    format!(
        "trap 'echo got; exit 5' {number} USR1 CONT; sleep 600 >/dev/null 2>&1 & printf \
         '\\033[?25l'; echo ready; while :; do wait; done"
    )
}

/// Sends a signal, and what ends the command when that did not.
fn send(child: &Child, number: i32, tty: bool) {
    signal_number(child, number);
    match effect(number, tty) {
        Effect::Forwarded | Effect::Ends => {}
        Effect::Stops => signal_number(child, libc::SIGCONT),
        Effect::None => signal_number(child, libc::SIGUSR1),
    }
}

fn on_pipes(msb: &Msb, arguments: &[&str], number: i32) {
    let mut child = msb.spawn(arguments);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.ends_with("ready\n"), "{number}: {line:?}");
    send(&child, number, false);
    let ends = effect(number, false) == Effect::Ends;
    let code = shell_code(child.wait().unwrap());
    assert_eq!(code, if ends { 128 + number } else { 5 }, "signal {number}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, if ends { "" } else { "got\n" }, "signal {number}");
}

fn on_terminal(msb: &Msb, arguments: &[&str], number: i32) {
    signal_on_terminal(Pty::new(msb, arguments), number);
}

fn signal_on_terminal(mut pty: Pty, number: i32) {
    pty.expect("ready");
    send(&pty.child, number, true);
    let ends = effect(number, true) == Effect::Ends;
    // The cursor that the command has hidden is shown again.
    pty.expect(if ends { "\x1b[?25h" } else { "got" });
    let (code, error) = pty.wait();
    assert_eq!((code, error.as_str()), (if ends { 128 + number } else { 5 }, ""), "{number}");
}

/// Calls `check` with 1 to `last`, on a few threads.
fn for_each(last: i32, check: impl Fn(i32) + Sync) {
    let next = AtomicI32::new(1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > last {
                        return;
                    }
                    check(number);
                }
            });
        }
    });
}

#[test]
fn exec_passes_all_signals_on() {
    let msb = Msb::with_sandbox();
    for_each(64, |number| {
        on_pipes(&msb, &["exec", "w", "--", "sh", "-c", &trapping(number)], number);
    });
}

#[test]
fn h1_all_signals_restore_the_terminal() {
    let msb = Msb::with_sandbox();
    for_each(64, |number| {
        on_terminal(&msb, &["exec", "-t", "w", "--", "sh", "-c", &trapping(number)], number);
    });
}

#[test]
fn run_passes_signals_on_and_removes_its_sandbox() {
    let msb = Msb::new();
    for number in [libc::SIGQUIT, libc::SIGUSR2, libc::SIGRTMAX()] {
        let script = trapping(number);
        on_pipes(&msb, &["run", image(), "--", "sh", "-c", &script], number);
        on_terminal(&msb, &["run", "-t", image(), "--", "sh", "-c", &script], number);
        assert_eq!(msb.names(), [""; 0]);
    }
}

#[test]
fn attach_passes_signals_on() {
    let msb = Msb::with_sandbox();
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP] {
        let script = trapping(number);
        let id = msb.ok(&["exec", "-d", "w", "--", "sh", "-c", &script]).trim().to_owned();
        on_pipes(&msb, &["attach", "w", &id], number);
        // Shows nothing before it is attached.
        let script = format!("read line; {script}");
        let id = msb.ok(&["exec", "-dt", "w", "--", "sh", "-c", &script]).trim().to_owned();
        let mut pty = Pty::new(&msb, &["attach", "w", &id]);
        pty.type_in("\r");
        signal_on_terminal(pty, number);
    }
}

#[test]
fn attach_ends_at_second_interrupt_without_command() {
    let msb = Msb::with_sandbox();
    let script = "trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done";
    let id = msb.ok(&["exec", "-d", "w", "--", "sh", "-c", script]).trim().to_owned();
    let mut child = msb.spawn(&["attach", "w", &id]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal_number(&child, libc::SIGINT);
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    signal_number(&child, libc::SIGINT);
    assert_eq!(shell_code(child.wait().unwrap()), 130);
    assert_eq!(running_session(&msb), id);
}

#[test]
fn each_of_several_real_time_signals_arrives() {
    let msb = Msb::with_sandbox();
    let script = "trap 'echo got' 40; trap 'exit 5' USR1; echo ready; while :; do read x; done";
    let mut child = msb.spawn(&["exec", "-i", "w", "--", "sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for _ in 0..3 {
        signal_number(&child, 40);
        assert_eq!(lines.next().unwrap().unwrap(), "got");
    }
    signal_number(&child, libc::SIGUSR1);
    assert_eq!(shell_code(child.wait().unwrap()), 5);
}

#[test]
fn signal_before_the_command_is_kept_for_it() {
    let msb = Msb::new();
    let slow = msb.slow_runner();
    let mut command = msb.command(&["run", image(), "--", "sleep", "600"]);
    let mut child = command.env("MSB_RUNNER", slow).stdin(Stdio::piped()).spawn().unwrap();
    wait_until_blocked(&child, libc::SIGUSR1);
    signal_number(&child, libc::SIGUSR1);
    assert_eq!(shell_code(child.wait().unwrap()), 128 + libc::SIGUSR1);
    assert_eq!(msb.names(), [""; 0]);
}

/// Waits until a process blocks a signal, as msb does once it handles it.
fn wait_until_blocked(child: &Child, number: i32) {
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        if u64::from_str_radix(blocked.trim(), 16).unwrap() & (1 << (number - 1)) != 0 {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn ctrl_z_stops_msb_and_not_the_command() {
    let msb = Msb::with_sandbox();
    let script = "trap 'exit 5' CONT; echo ready; while :; do sleep 0.05; done";
    let mut pty = Pty::controlling(&msb, &["exec", "w", "--", "sh", "-c", script]);
    pty.expect("ready");
    pty.type_in("\x1a");
    let stat = format!("/proc/{}/stat", pty.child.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        std::thread::yield_now();
    }
    signal_number(&pty.child, libc::SIGCONT);
    assert_eq!(pty.wait(), (5, String::new()));
}

#[test]
fn b8_terminal_has_the_settings_of_the_users() {
    let msb = Msb::with_sandbox();
    let set = |terminal: &std::os::fd::OwnedFd, arguments: &[&str]| {
        let mut stty = Command::new("busybox");
        stty.arg("stty").args(arguments).stdin(terminal.try_clone().unwrap());
        let output = stty.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let flags = [
        "ignbrk", "brkint", "ignpar", "parmrk", "inpck", "istrip", "inlcr", "igncr", "icrnl",
        "ixon", "ixoff", "iuclc", "ixany", "imaxbel", "iutf8", "olcuc", "ocrnl", "onlcr", "onocr",
        "onlret", "isig", "icanon", "iexten", "echo", "echoe", "echok", "echonl", "noflsh",
        "tostop", "echoctl", "echoke", "hupcl", "cstopb", "parodd",
    ];
    let codes = [
        "intr", "quit", "erase", "kill", "eof", "eol", "eol2", "swtch", "start", "stop", "susp",
        "rprnt", "werase", "lnext",
    ];
    let off = flags.map(|flag| ["-", flag].concat());
    // Without these three, it is a program's terminal and not its user's.
    let off = off.iter().map(String::as_str).filter(|flag| *flag != "-echo");
    let raw = ["-echo", "-isig", "-icanon", "-icrnl", "-opost"];
    let changes = [
        flags.to_vec(),
        off.collect(),
        codes.iter().flat_map(|code| [*code, "^T"]).collect(),
        vec!["9600", "min", "3", "time", "7"],
        raw.to_vec(),
    ];
    let (_master, usual) = pty::open();
    for change in changes {
        let (master, slave) = pty::open();
        set(&slave, &["rows", "33", "columns", "99"]);
        set(&slave, &change);
        if change == raw {
            set(&usual, &["rows", "33", "columns", "99"]);
        }
        let expected = set(if change == raw { &usual } else { &slave }, &["-a"]);
        let mut command = msb.command(&["exec", "-t", "w", "--", "sh", "-c", SHOW]);
        let mut pty = Pty::on((master, slave), &mut command, false);
        pty.expect("ready");
        // Out of a file, since the terminal itself may show it in other letters.
        let shown = msb.ok(&["exec", "w", "--", "cat", "/tmp/settings"]);
        assert_eq!(shown, expected, "after {change:?}");
        msb.ok(&["exec", "w", "--", "touch", "/tmp/seen"]);
        assert_eq!(pty.wait().0, 0);
        msb.ok(&["exec", "w", "--", "rm", "/tmp/seen"]);
    }
}

/// Writes the terminal's settings into a file, and waits until it was read.
const SHOW: &str = "stty -a > /tmp/settings; stty sane; echo ready; \
                    while ! [ -e /tmp/seen ]; do sleep 0.05; done";
