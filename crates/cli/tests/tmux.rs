//! Promises H in a real terminal, tmux: what a person sees and types there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Scene, image};

/// How long anything may take to be shown; only a failure takes it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);
/// What the shell of the host says when it waits.
const PROMPT: &str = "host>";

/// A terminal of 80 columns and 24 rows with a shell of the host in it.
struct Tmux<'a> {
    scene: &'a Scene,
}

impl<'a> Tmux<'a> {
    fn new(scene: &'a Scene) -> Tmux<'a> {
        let tmux = Tmux { scene };
        let msb = scene.command(&[]);
        let mut command = tmux.command(&["new-session", "-d", "-x", "80", "-y", "24"]);
        // Not in the environment: a shell of root sets its own.
        let setup = scene.home.path().join("shell-setup");
        std::fs::write(&setup, format!("PS1='{PROMPT}'\n")).unwrap();
        command.arg("exec sh").env("ENV", setup).env("LC_ALL", "C.UTF-8");
        command.envs(msb.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("MSB", msb.get_program());
        let made = command.output().unwrap();
        assert!(made.status.success(), "{made:?}; scripts/setup test installs tmux");
        tmux.shows(PROMPT);
        tmux
    }

    /// A call of tmux, of a server of its own without anybody's configuration.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.scene.home.path().join("tmux")).args(["-u", "-f", "/dev/null"]);
        command.env_remove("TMUX").args(arguments).stdin(Stdio::null());
        command
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types text as it is.
    fn types(&self, text: &str) {
        self.ask(&["send-keys", "-l", text]);
    }

    /// Presses keys by tmux's names for them.
    fn presses(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Has the shell run something on a screen that is empty.
    fn runs(&self, line: &str) {
        self.types(&format!("clear; {line}"));
        self.presses(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it is to be.
    fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}, but:\n{screen}");
            std::thread::sleep(LOOK);
        }
    }

    fn shows(&self, text: &str) -> String {
        self.until(&format!("{text:?} was to be shown"), |screen| screen.contains(text))
    }

    /// Waits until the shell of the host waits, on the last line that is not empty; before it may
    /// stand what a program left there without an end of line.
    fn is_back(&self) -> String {
        self.until("the host's shell was to be back", |screen| {
            screen.trim_end().lines().last().is_some_and(|line| line.trim_end().ends_with(PROMPT))
        })
    }

    /// Whether the other screen is shown, the cursor is, the mouse is asked for, and the number keys
    /// send sequences.
    fn modes(&self) -> String {
        let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}";
        self.ask(&["display-message", "-p", modes]).trim().to_owned()
    }

    fn has_modes(&self, modes: &str) {
        let begun = Instant::now();
        while self.modes() != modes {
            assert!(begun.elapsed() < PATIENCE, "{modes} was to be, but {}", self.modes());
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

#[test]
fn h1_an_editor_edits_and_leaves_the_screen_as_it_was() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    tmux.runs("echo before; \"$MSB\" exec -t w vi /tmp/text; echo code $?");
    tmux.until("an empty file was to be shown", |screen| screen.matches("\n~\n").count() > 0);
    tmux.has_modes("1 1 0 0");
    tmux.types("iGrüße, 世界");
    tmux.shows("\nI /tmp/text");
    // An escape with something right behind it would be another key.
    tmux.presses(&["Escape"]);
    tmux.shows("\n- /tmp/text");
    tmux.types("yyp:wq");
    tmux.presses(&["Enter"]);
    tmux.shows("code 0");
    let screen = tmux.is_back();
    assert!(screen.starts_with("before\n") && !screen.contains('~'), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    assert_eq!(scene.ok(&["exec", "w", "cat", "/tmp/text"]), "Grüße, 世界\nGrüße, 世界\n");
}

#[test]
fn h1_a_pager_and_a_list_of_processes_use_the_whole_screen() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    tmux.runs("\"$MSB\" exec -t w sh -c 'seq 100 | less'; echo code $?");
    tmux.until("the first page was to be shown", |screen| screen.starts_with("1\n2\n"));
    tmux.presses(&["Space"]);
    tmux.until("the second page was to be shown", |screen| screen.starts_with("24\n25\n"));
    tmux.types("q");
    tmux.is_back();
    tmux.runs("\"$MSB\" exec -t w top; echo code $?");
    tmux.until("processes were to be shown", |screen| {
        screen.starts_with("Mem:") && screen.contains("%CPU COMMAND") && screen.contains(" top")
    });
    tmux.types("q");
    tmux.shows("code 0");
}

#[test]
fn h1_the_size_of_the_window_is_the_programs_and_follows() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    let script = "trap \"stty size\" WINCH; stty size; while :; do usleep 10000; done";
    tmux.runs(&format!("\"$MSB\" exec -t w sh -c '{script}'"));
    tmux.shows("24 80\n");
    tmux.ask(&["resize-window", "-x", "101", "-y", "33"]);
    tmux.shows("33 101\n");
    // The terminal of the guest makes the signal of this one.
    tmux.presses(&["C-c"]);
    tmux.is_back();
}

#[test]
fn h1_every_key_and_the_mouse_arrive_as_the_terminal_sends_them() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    let ask = r"printf '\033[?1000h\033[?1006hready\n'; stty raw -echo; ";
    let script = format!("{ask}head -c 27 > /keys; printf '\\033[?1000l\\033[?1006l'");
    scene.ok(&["exec", "w", "sh", "-c", &format!("cat > /mouse <<'END'\n{script}\nEND")]);
    tmux.runs("\"$MSB\" exec -t w sh /mouse");
    tmux.shows("ready");
    tmux.has_modes("0 1 1 0");
    // A click and its end in row 3 and column 7, as a terminal reports them to who asked.
    for report in ["\x1b[<0;7;3M", "\x1b[<0;7;3m"] {
        tmux.types(report);
    }
    tmux.presses(&["Up", "C-c", "C-d", "C-z", "M-x", "C-\\"]);
    tmux.is_back();
    let keys = scene.output(&["exec", "w", "cat", "/keys"]).stdout;
    let expected = b"\x1b[<0;7;3M\x1b[<0;7;3m\x1b[A\x03\x04\x1a\x1bx\x1c";
    assert_eq!(keys, expected, "{}", String::from_utf8_lossy(&keys));
    assert_eq!(tmux.modes(), "0 1 0 0");
}

#[test]
fn h2_what_was_left_in_the_middle_is_drawn_anew_when_it_is_taken_up() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    scene.ok(&["exec", "w", "sh", "-c", "seq 100 > /tmp/numbers"]);
    tmux.runs("\"$MSB\" exec -t --detach-keys ctrl-p,ctrl-q w vi /tmp/numbers");
    tmux.until("the file was to be shown", |screen| screen.starts_with("1\n2\n"));
    tmux.types("dd");
    tmux.until("the first line was to go", |screen| screen.starts_with("2\n3\n"));
    tmux.presses(&["C-p", "C-q"]);
    let screen = tmux.is_back();
    assert_eq!(tmux.modes(), "0 1 0 0");
    let hint = screen.lines().find(|line| line.contains("left running")).unwrap();
    let again = hint.split("msb ").nth(1).unwrap().split(" takes").next().unwrap();
    tmux.runs(&format!("\"$MSB\" {again}; echo code $?"));
    tmux.until("the file was to be shown again", |screen| screen.starts_with("2\n3\n"));
    tmux.types(":wq");
    tmux.presses(&["Enter"]);
    tmux.shows("code 0");
    assert_eq!(scene.ok(&["exec", "w", "head", "-n", "1", "/tmp/numbers"]), "2\n");
}

#[test]
fn b7_h1_a_sandbox_that_dies_under_an_editor_leaves_a_terminal_that_can_be_used() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    tmux.runs("\"$MSB\" exec -t w vi /tmp/text");
    tmux.has_modes("1 1 0 0");
    scene.ok(&["kill", "w"]);
    let screen = tmux.is_back();
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("how the command ended is not known"), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    // It echoes, and an Enter ends a line.
    tmux.runs("echo $((40 + 2))");
    tmux.shows("42\n");
}

#[test]
fn h1_ctrl_c_reaches_the_program_then_kills_it_and_the_shell_goes_on() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene);
    let script = "trap \"echo caught\" INT; echo up; while :; do usleep 10000; done";
    tmux.runs(&format!("\"$MSB\" exec w sh -c '{script}'; echo code $?"));
    tmux.shows("up\n");
    tmux.presses(&["C-c"]);
    tmux.shows("caught\n");
    tmux.presses(&["C-c"]);
    tmux.shows("code 137");
    tmux.is_back();
    // One that is in the background leaves the terminal to the shell.
    tmux.runs("\"$MSB\" exec w sh -c 'echo from behind; sleep 600' & wait_for=$!");
    tmux.shows("from behind");
    tmux.runs("kill -TERM $wait_for; wait $wait_for; echo code $?");
    tmux.shows("code 143");
}

#[test]
fn h1_a_shell_by_run_and_back_again_leaves_nothing_behind() {
    let scene = Scene::new();
    let tmux = Tmux::new(&scene);
    tmux.runs(&format!("\"$MSB\" run -it {}; echo code $?", image()));
    tmux.shows("/ #");
    tmux.types("echo $TERM-$((6 * 7)); exit 3");
    tmux.presses(&["Enter"]);
    tmux.shows("xterm-42\n");
    tmux.shows("code 3");
    tmux.is_back();
    assert_eq!(scene.names(), [""; 0]);
}
