//! Promises H in a real terminal, tmux: what a person sees and types there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::tmux::Tmux;
use support::{Scene, image};

/// What the shell of the host says when it waits.
const PROMPT: &str = "host>";

#[test]
fn h1_an_editor_edits_and_leaves_the_screen_as_it_was() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene, PROMPT);
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
    let tmux = Tmux::new(&scene, PROMPT);
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
    let tmux = Tmux::new(&scene, PROMPT);
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
    let tmux = Tmux::new(&scene, PROMPT);
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
fn keys_for_a_pager_of_the_host_are_not_the_programs() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene, PROMPT);
    tmux.runs(
        "\"$MSB\" exec w sh -c 'readlink /proc/self/fd/0; seq 100; sleep 600' | busybox less",
    );
    tmux.until("the first page was to be shown", |screen| screen.starts_with("/dev/null\n1\n"));
    tmux.presses(&["Space"]);
    tmux.until("the second page was to be shown", |screen| screen.starts_with("23\n24\n"));
}

#[test]
fn h2_what_was_left_in_the_middle_is_drawn_anew_when_it_is_taken_up() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene, PROMPT);
    scene.ok(&["exec", "w", "sh", "-c", "seq 100 > /tmp/numbers"]);
    tmux.runs("\"$MSB\" exec -t --detach-keys ctrl-p,ctrl-q w vi /tmp/numbers");
    tmux.until("the file was to be shown", |screen| screen.starts_with("1\n2\n"));
    tmux.types("dd");
    tmux.until("the first line was to go", |screen| screen.starts_with("2\n3\n"));
    tmux.presses(&["C-p", "C-q"]);
    let screen = tmux.is_back();
    assert_eq!(tmux.modes(), "0 1 0 0");
    let hint = screen.lines().find(|line| line.contains("left running")).unwrap();
    let again = hint.split("msb ").nth(1).unwrap().trim_end();
    tmux.runs(&format!("\"$MSB\" {again}; echo code $?"));
    tmux.until("the file was to be shown again", |screen| screen.starts_with("2\n3\n"));
    // On the other screen, as before, so that nothing of it is left on this one.
    tmux.has_modes("1 1 0 0");
    tmux.types(":wq");
    tmux.presses(&["Enter"]);
    tmux.shows("code 0");
    let screen = tmux.is_back();
    assert!(!screen.contains("\n2\n3\n") && !screen.contains("/tmp/numbers"), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    assert_eq!(scene.ok(&["exec", "w", "head", "-n", "1", "/tmp/numbers"]), "2\n");
}

#[test]
fn b7_h1_a_sandbox_that_dies_under_an_editor_leaves_a_terminal_that_can_be_used() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene, PROMPT);
    tmux.runs("\"$MSB\" exec -t w vi /tmp/text");
    tmux.has_modes("1 1 0 0");
    scene.ok(&["kill", "w"]);
    let screen = tmux.is_back();
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the command's exit status is unknown"), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    // It echoes, and an Enter ends a line.
    tmux.runs("echo $((40 + 2))");
    tmux.shows("42\n");
}

#[test]
fn h1_ctrl_c_reaches_the_program_then_kills_it_and_the_shell_goes_on() {
    let scene = Scene::with_sandbox();
    let tmux = Tmux::new(&scene, PROMPT);
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
    let tmux = Tmux::new(&scene, PROMPT);
    tmux.runs(&format!("\"$MSB\" run -it {}; echo code $?", image()));
    tmux.shows("/ #");
    tmux.types("echo $TERM-$((6 * 7)); exit 3");
    tmux.presses(&["Enter"]);
    tmux.shows("xterm-42\n");
    tmux.shows("code 3");
    tmux.is_back();
    assert_eq!(scene.names(), [""; 0]);
}
