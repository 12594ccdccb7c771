//! Promises H: a terminal attached to a command in a sandbox. Each test makes a pseudo-terminal and
//! runs this program again on it; `MSB_ATTACH` selects what it does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use common::{block_on, poll_once, sandbox, setup, shared, shell, wait_until};
use microsandbox::{MicrosandboxResult, ReattachFrom, Sandbox, SessionInfo};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::{Child, Command, Stdio};
use std::task::Poll;

/// The child process that the other tests run on a terminal: a test by name only.
#[test]
fn child() {
    let Ok(task) = std::env::var("MSB_ATTACH") else { return };
    setup();
    let words: Vec<&str> = task.splitn(4, '\u{1f}').collect();
    let [what, name, first, second] = words.as_slice() else { panic!("{task:?}") };
    let sb = block_on(Sandbox::get(name)).unwrap();
    let result = match *what {
        "run" => outcome_of(block_on(run(&sb, first, second))),
        "shell" => outcome_of(block_on(sb.attach_shell())),
        "session" => outcome_of(block_on(sb.attach_session(first))),
        "program" => outcome_of(block_on(sb.attach(*first, ["x"]))),
        "read" => {
            let code = outcome_of(block_on(run(&sb, first, second)));
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).unwrap();
            format!("{code} {line}")
        }
        "panic" => {
            block_on(until_touched(&sb, Box::pin(run(&sb, "", second)), first));
            panic!("as it was to be")
        }
        "drop" => {
            block_on(until_touched(&sb, Box::pin(run(&sb, "", second)), first));
            "dropped".to_owned()
        }
        "twice" => {
            let mut one = pin!(run(&sb, "", second));
            assert!(poll_once(one.as_mut()).is_pending());
            outcome_of(block_on(run(&sb, "", second)))
        }
        other => panic!("{other}"),
    };
    std::fs::write(std::env::var("MSB_ATTACH_RESULT").unwrap(), result).unwrap();
}

async fn run(sb: &Sandbox, keys: &str, script: &str) -> MicrosandboxResult<i32> {
    sb.attach_with("sh", |a| {
        let a = a.args(["-c", script]);
        if keys.is_empty() { a } else { a.detach_keys(keys) }
    })
    .await
}

/// Stays attached until a file exists, then drops the future; panics if `path` contains "panic".
async fn until_touched(
    sb: &Sandbox,
    mut attached: Pin<Box<impl Future<Output = MicrosandboxResult<i32>>>>,
    path: &str,
) {
    let script = format!("until [ -e {path} ]; do usleep 10000; done");
    let mut touched = pin!(sb.shell(script));
    poll_fn(|context| {
        assert!(attached.as_mut().poll(context).is_pending(), "attached until then");
        match touched.as_mut().poll(context) {
            Poll::Ready(_) if path.contains("panic") => panic!("while it is attached"),
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
}

fn outcome_of(result: MicrosandboxResult<i32>) -> String {
    match result {
        Ok(code) => code.to_string(),
        Err(error) => error.kind().to_string(),
    }
}

/// A pseudo-terminal with this program on it.
struct Screen {
    child: Child,
    /// `None` once it is hung up.
    master: Option<File>,
    slave: OwnedFd,
    before: Termios,
    result: PathBuf,
    _scratch: tempfile::TempDir,
    seen: Vec<u8>,
}

impl Screen {
    fn new(sb: &Sandbox, what: &str, first: &str, second: &str) -> Screen {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let result = scratch.path().join("result");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env("MSB_ATTACH", [what, sb.name(), first, second].join("\u{1f}"))
            .env("MSB_ATTACH_RESULT", &result)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (master, seen) = (Some(File::from(master)), Vec::new());
        Screen { child, master, slave, before, result, _scratch: scratch, seen }
    }

    /// Runs a script that prints "ready".
    fn ready(sb: &Sandbox, keys: &str, script: &str) -> Screen {
        let mut screen = Screen::new(sb, "run", keys, script);
        screen.expect("ready");
        screen
    }

    fn type_in(&mut self, text: impl AsRef<[u8]>) {
        self.master.as_mut().unwrap().write_all(text.as_ref()).unwrap();
    }

    /// Reads the screen until it shows the text, and consumes it.
    fn expect(&mut self, text: &str) -> Vec<u8> {
        loop {
            let place = self.seen.windows(text.len()).position(|seen| seen == text.as_bytes());
            if let Some(at) = place {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut master = self.master.as_ref().unwrap();
            let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&master, PollFlags::IN)], Some(&minute)).unwrap();
            let seen = String::from_utf8_lossy(&self.seen);
            assert_eq!(ready, 1, "{text:?} was not shown, but {seen:?}");
            let mut buffer = [0; 65536];
            let count = master.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }

    fn settings(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// Waits for the end of the program, checks that the terminal is restored, and returns its
    /// report.
    fn ended(mut self) -> String {
        let status = self.child.wait().unwrap();
        assert_eq!(format!("{:?}", self.settings()), format!("{:?}", self.before));
        match std::fs::read_to_string(&self.result) {
            Ok(result) => result,
            Err(_) => format!("{status}"),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the session whose command contains a text.
fn session(sb: &Sandbox, text: &str) -> SessionInfo {
    let has = |session: &SessionInfo| {
        let words = session.command.iter().map(|word| String::from_utf8_lossy(word).into_owned());
        words.into_iter().any(|word| word.contains(text))
    };
    block_on(sb.sessions()).unwrap().into_iter().find(has).unwrap()
}

fn kill(sb: &Sandbox, session: &SessionInfo) {
    let mut handle = block_on(sb.reattach(&session.id, ReattachFrom::Now)).unwrap();
    block_on(handle.kill()).unwrap();
    block_on(handle.wait()).unwrap();
}

#[test]
fn h1_the_terminal_is_raw_while_attached_then_restored() {
    let script = "echo ready; read line; echo \"got $line\"; exit 7";
    let mut screen = Screen::ready(&shared(), "", script);
    let cooked = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
    assert!(screen.before.local_modes.contains(cooked));
    assert!(!screen.settings().local_modes.intersects(cooked));
    screen.type_in("hello\r");
    screen.expect("got hello");
    assert_eq!(screen.ended(), "7");
}

#[test]
fn h1_shell_is_the_sandboxs_and_gets_control_keys() {
    let mut screen = Screen::new(&shared(), "shell", "", "");
    screen.type_in("echo $((40 + 2)) $0\r");
    screen.expect("42 /bin/sh");
    // The guest's terminal turns ctrl-c into a signal; the host's does not.
    // The sleeping child prints first: a shell that gets the signal before it waits would run its
    // trap only after the wait.
    let sleeper = "sh -c 'echo $((6 * 7)); exec sleep 600'";
    screen.type_in(format!("trap 'echo int; exit 5' INT; {sleeper}\r"));
    screen.expect("42\r\n");
    screen.type_in("\x03");
    screen.expect("int");
    assert_eq!(screen.ended(), "5");
}

#[test]
fn b8_h1_the_size_follows_the_terminal() {
    let sb = shared();
    let script = "stty size; trap 'stty size' WINCH; echo ready; while :; do usleep 10000; done";
    let mut screen = Screen::new(&sb, "run", "", script);
    screen.expect("30 100\r\nready");
    for (ws_row, ws_col) in [(41, 123), (10, 20)] {
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&screen.slave, size).unwrap();
        screen.expect(&format!("{ws_row} {ws_col}\r\n"));
    }
    screen.type_in("\x1d");
    assert_eq!(screen.ended(), "-1");
    // A reattached terminal sends its size.
    let left = session(&sb, script);
    let mut screen = Screen::new(&sb, "session", &left.id, "");
    screen.expect("30 100\r\n");
    assert_eq!(tcgetwinsize(&screen.slave).unwrap().ws_row, 30);
    kill(&sb, &left);
    assert_eq!(screen.ended(), "137");
}

#[test]
fn h1_h2_each_kind_of_detach_keys_leaves_the_program_running() {
    let sb = shared();
    for (at, (keys, typed)) in
        [("", "\x1d"), ("ctrl-p,ctrl-q", "\x10\x11"), ("q", "q"), ("a,ctrl-b,c", "a\x02c")]
            .into_iter()
            .enumerate()
    {
        let file = format!("/tmp/before-{at}");
        let script = format!(
            "stty raw -echo; echo ready; dd bs=1 count=3 of={file}; \
             dd bs=1 count=1 of={file}.next; exec sleep 600"
        );
        let mut screen = Screen::ready(&sb, keys, &script);
        screen.type_in(format!("xyz{typed}"));
        assert_eq!(screen.ended(), "-1", "{keys}");
        // Input before the detach keys arrives.
        wait_until(&sb, &format!("[ \"$(cat {file})\" = xyz ]"));
        let left = session(&sb, &file);
        assert_eq!((left.status, left.tty), (None, true));
        // The keys themselves do not: the next byte is the next input.
        let mut next = block_on(sb.reattach(&left.id, ReattachFrom::Now)).unwrap();
        block_on(next.take_stdin().unwrap().write("!")).unwrap();
        wait_until(&sb, &format!("[ -s {file}.next ]"));
        assert_eq!(shell(&sb, &format!("cat {file}.next")), "!", "{keys}");
        kill(&sb, &left);
    }
}

#[test]
fn h1_a_half_typed_key_sequence_is_held_then_delivered() {
    let sb = shared();
    let script = "stty raw -echo; echo ready; head -c 1 | od -An -tx1; \
                  head -c 5 | od -An -tx1; echo over; exec sleep 600";
    let mut screen = Screen::ready(&sb, "ctrl-p,ctrl-q", script);
    screen.type_in("x\x10");
    screen.expect("78");
    screen.type_in("a");
    screen.type_in("\x10");
    screen.type_in("\x10b\x10c");
    screen.expect("10 61 10 10 62");
    screen.expect("over");
    screen.type_in("\x10");
    screen.type_in("\x11");
    assert_eq!(screen.ended(), "-1");
    kill(&sb, &session(&sb, "head -c 5"));
}

#[test]
fn h1_input_after_the_detach_keys_stays_in_the_terminal() {
    let sb = shared();
    let mut screen =
        Screen::new(&sb, "read", "ctrl-p,ctrl-q", "stty raw -echo; echo ready; exec sleep 6001");
    screen.expect("ready");
    screen.type_in("xy\x10\x11for the host\n");
    assert_eq!(screen.ended(), "-1 for the host\n");
    kill(&sb, &session(&sb, "6001"));
}

#[test]
fn h2_detached_session_is_reattached() {
    let sb = shared();
    // It reads without poll(2), which does not report the end of a terminal under gVisor.
    let script = "echo ready; awk '{ print \"got \" $0; fflush() }'; exit 3";
    let mut screen = Screen::ready(&sb, "", script);
    screen.type_in("one\r");
    screen.expect("got one");
    screen.type_in("\x1d");
    assert_eq!(screen.ended(), "-1");
    let left = session(&sb, script);
    for text in ["two", "three"] {
        let mut screen = Screen::new(&sb, "session", &left.id, "");
        screen.type_in(format!("{text}\r"));
        screen.expect(&format!("got {text}"));
        screen.type_in("\x1d");
        assert_eq!(screen.ended(), "-1");
    }
    let mut screen = Screen::new(&sb, "session", &left.id, "");
    screen.type_in("four\r");
    screen.expect("got four");
    screen.type_in("\x04");
    assert_eq!(screen.ended(), "3");
    // It has ended, and reports it again.
    assert_eq!(Screen::new(&sb, "session", &left.id, "").ended(), "3");
}

#[test]
fn h2_sessions_that_cannot_be_attached_are_typed_errors() {
    let sb = shared();
    assert_eq!(Screen::new(&sb, "session", &"00".repeat(16), "").ended(), "no_such_session");
    assert_eq!(Screen::new(&sb, "session", "what", "").ended(), "invalid_argument");
    let piped = block_on(sb.exec_stream("sleep", ["600"])).unwrap();
    assert_eq!(Screen::new(&sb, "session", &piped.id(), "").ended(), "not_a_terminal");
    block_on(piped.kill()).unwrap();
}

#[test]
fn h1_the_result_is_the_programs_own() {
    let sb = shared();
    assert_eq!(Screen::new(&sb, "run", "", "exit 42").ended(), "42");
    assert_eq!(Screen::new(&sb, "run", "", "kill -TERM $$").ended(), "143");
    assert_eq!(Screen::new(&sb, "program", "/nonexistent", "").ended(), "exec_failed");
    assert_eq!(Screen::new(&sb, "run", "no such key", "").ended(), "invalid_argument");
    assert_eq!(Screen::new(&sb, "twice", "", "exec sleep 6002").ended(), "busy");
}

#[test]
fn h1_without_a_terminal_nothing_is_started() {
    let sb = sandbox("h1-none");
    let scratch = tempfile::tempdir().unwrap();
    let result = scratch.path().join("result");
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact"])
        .env("MSB_ATTACH", ["run", sb.name(), "", "true"].join("\u{1f}"))
        .env("MSB_ATTACH_RESULT", &result)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_to_string(result).unwrap(), "not_a_terminal");
    assert_eq!(block_on(sb.sessions()).unwrap(), []);
    block_on(sb.kill()).unwrap();
}

#[test]
fn h1_terminal_is_restored_after_a_panic() {
    let sb = shared();
    let script = "echo ready; exec sleep 6003";
    let mut screen = Screen::new(&sb, "panic", "/tmp/panic", script);
    screen.expect("ready");
    assert!(!screen.settings().local_modes.contains(LocalModes::ECHO));
    shell(&sb, "touch /tmp/panic");
    assert!(screen.ended().contains("101"), "the program panicked");
    kill(&sb, &session(&sb, "6003"));
}

#[test]
fn d4_h1_cancelled_attach_restores_terminal_and_detaches() {
    let sb = shared();
    let mut screen = Screen::new(&sb, "drop", "/tmp/drop", "echo ready; exec sleep 6004");
    screen.expect("ready");
    shell(&sb, "touch /tmp/drop");
    assert_eq!(screen.ended(), "dropped");
    let left = session(&sb, "6004");
    assert_eq!(left.status, None);
    kill(&sb, &left);
}

#[test]
fn b7_h1_terminal_is_restored_when_the_sandbox_dies() {
    let sb = sandbox("h1-dies");
    let screen = Screen::ready(&sb, "", "echo ready; exec sleep 600");
    block_on(sb.kill()).unwrap();
    assert_eq!(screen.ended(), "stream_lost");
}

#[test]
fn h1_terminal_modes_are_reset_unless_the_program_exited() {
    let sb = sandbox("h1-modes");
    let change = r"printf '\033[?1049h\033[?1000h\033[?25l'; echo ready;";
    let back = "\x1b[?25h\x1b[?1000l\x1b[?1049l";
    let mut screen = Screen::ready(&sb, "", &format!("{change} exec sleep 600"));
    screen.type_in("\x1d");
    screen.expect(back);
    assert_eq!(screen.ended(), "-1");
    let mut screen = Screen::ready(&sb, "", &format!("{change} read line; kill -9 $$"));
    screen.type_in("\r");
    screen.expect(back);
    assert_eq!(screen.ended(), "137");
    let mut screen = Screen::ready(&sb, "", &format!("{change} exit 0"));
    screen.child.wait().unwrap();
    rustix::io::write(&screen.slave, b"over").unwrap();
    assert!(!screen.expect("over").contains(&0x1b));
    let mut screen = Screen::ready(&sb, "", &format!("{change} exec sleep 600"));
    block_on(sb.kill()).unwrap();
    screen.expect(back);
    assert_eq!(screen.ended(), "stream_lost");
}

#[test]
fn h2_reattach_makes_the_program_redraw() {
    let sb = shared();
    let script = "trap 'echo drawn' WINCH; echo ready; while :; do usleep 10000; done";
    let mut screen = Screen::ready(&sb, "", script);
    screen.type_in("\x1d");
    assert_eq!(screen.ended(), "-1");
    let left = session(&sb, script);
    // The second terminal has the size of the first.
    let mut screen = Screen::new(&sb, "session", &left.id, "");
    screen.expect("drawn");
    kill(&sb, &left);
    assert_eq!(screen.ended(), "137");
}

#[test]
fn d1_h2_terminal_hangup_leaves_the_program_running() {
    let sb = shared();
    let mut screen = Screen::ready(&sb, "", "echo ready; exec sleep 6005");
    screen.master = None;
    // The terminal has no settings to compare.
    assert!(screen.child.wait().is_ok());
    assert_eq!(std::fs::read_to_string(&screen.result).unwrap(), "-1");
    let left = session(&sb, "6005");
    assert_eq!(left.status, None);
    kill(&sb, &left);
}

#[test]
fn c2_h1_a_large_paste_and_a_large_output_arrive_whole() {
    const LINES: usize = 30_000;
    let sb = shared();
    let text: String = (0..LINES).map(|line| format!("line {line}\n")).collect();
    let script = format!(
        "stty raw -echo; echo ready; head -c {} > /tmp/paste; cat /tmp/paste; echo over",
        text.len()
    );
    let mut screen = Screen::ready(&sb, "", &script);
    screen.expect("\n");
    screen.type_in(&text);
    let shown = screen.expect("over");
    assert!(shown.strip_suffix(b"over") == Some(text.as_bytes()));
    assert_eq!(screen.ended(), "0");
}
