//! Promises H in a real terminal, tmux: what a person sees and types.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use support::tmux::Tmux;
use support::{Msb, image};

/// The prompt of the host's shell.
const PROMPT: &str = "host>";

#[test]
fn h1_editor_restores_the_screen() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    tmux.run("echo before; \"$MSB\" exec -t w vi /tmp/text; echo code $?");
    tmux.wait_until("an empty file", |screen| screen.matches("\n~\n").count() > 0);
    tmux.expect_modes("1 1 0 0");
    tmux.type_text("iGrüße, 世界");
    tmux.expect("\nI /tmp/text");
    // An escape followed at once by a character would be another key.
    tmux.press(&["Escape"]);
    tmux.expect("\n- /tmp/text");
    tmux.type_text("yyp:wq");
    tmux.press(&["Enter"]);
    tmux.expect("code 0");
    let screen = tmux.expect_prompt();
    assert!(screen.starts_with("before\n") && !screen.contains('~'), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    assert_eq!(msb.ok(&["exec", "w", "cat", "/tmp/text"]), "Grüße, 世界\nGrüße, 世界\n");
}

#[test]
fn h1_pager_and_top_use_the_whole_screen() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    tmux.run("\"$MSB\" exec -t w sh -c 'seq 100 | less'; echo code $?");
    tmux.wait_until("the first page", |screen| screen.starts_with("1\n2\n"));
    tmux.press(&["Space"]);
    tmux.wait_until("the second page", |screen| screen.starts_with("24\n25\n"));
    tmux.type_text("q");
    tmux.expect_prompt();
    tmux.run("\"$MSB\" exec -t w top; echo code $?");
    tmux.wait_until("processes", |screen| {
        screen.starts_with("Mem:") && screen.contains("%CPU COMMAND") && screen.contains(" top")
    });
    tmux.type_text("q");
    tmux.expect("code 0");
}

#[test]
fn h1_program_sees_window_size_and_resize() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    let script = "trap \"stty size\" WINCH; stty size; while :; do usleep 10000; done";
    tmux.run(&format!("\"$MSB\" exec -t w sh -c '{script}'"));
    tmux.expect("24 80\n");
    tmux.call(&["resize-window", "-x", "101", "-y", "33"]);
    tmux.expect("33 101\n");
    // The terminal in the guest turns Ctrl-C into SIGINT.
    tmux.press(&["C-c"]);
    tmux.expect_prompt();
}

#[test]
fn h1_keys_and_mouse_arrive_unchanged() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    let ask = r"printf '\033[?1000h\033[?1006hready\n'; stty raw -echo; ";
    let script = format!("{ask}head -c 27 > /keys; printf '\\033[?1000l\\033[?1006l'");
    msb.ok(&["exec", "w", "sh", "-c", &format!("cat > /mouse <<'END'\n{script}\nEND")]);
    tmux.run("\"$MSB\" exec -t w sh /mouse");
    tmux.expect("ready");
    tmux.expect_modes("0 1 1 0");
    // Reports of a press and a release of a button in row 3, column 7.
    for report in ["\x1b[<0;7;3M", "\x1b[<0;7;3m"] {
        tmux.type_text(report);
    }
    tmux.press(&["Up", "C-c", "C-d", "C-z", "M-x", "C-\\"]);
    tmux.expect_prompt();
    let keys = msb.output(&["exec", "w", "cat", "/keys"]).stdout;
    let expected = b"\x1b[<0;7;3M\x1b[<0;7;3m\x1b[A\x03\x04\x1a\x1bx\x1c";
    assert_eq!(keys, expected, "{}", String::from_utf8_lossy(&keys));
    assert_eq!(tmux.modes(), "0 1 0 0");
}

#[test]
fn host_pager_keeps_its_keys() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    tmux.run("\"$MSB\" exec w sh -c 'readlink /proc/self/fd/0; seq 100; sleep 600' | busybox less");
    tmux.wait_until("the first page", |screen| screen.starts_with("/dev/null\n1\n"));
    tmux.press(&["Space"]);
    tmux.wait_until("the second page", |screen| screen.starts_with("23\n24\n"));
}

#[test]
fn background_msb_is_not_stopped_and_reads_again_in_foreground() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    let wait = "until [ -e /go ]; do usleep 10000; done";
    tmux.run(&format!("\"$MSB\" exec w sh -c 'echo up; {wait}; echo runs; read l; echo got $l'"));
    tmux.expect("up\n");
    tmux.press(&["C-z"]);
    tmux.expect_prompt();
    tmux.run("bg");
    tmux.expect_prompt();
    // A read of the terminal would stop a background msb, and its output with it.
    msb.ok(&["exec", "w", "touch", "/go"]);
    tmux.expect("runs\n");
    tmux.run("fg");
    tmux.expect("exec w sh");
    tmux.type_text("this");
    tmux.press(&["Enter"]);
    tmux.expect("got this\n");
    tmux.expect_prompt();
}

#[test]
fn h2_reattached_editor_is_redrawn() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    msb.ok(&["exec", "w", "sh", "-c", "seq 100 > /tmp/numbers"]);
    tmux.run("\"$MSB\" exec -t --detach-keys ctrl-p,ctrl-q w vi /tmp/numbers");
    tmux.wait_until("the file", |screen| screen.starts_with("1\n2\n"));
    tmux.type_text("dd");
    tmux.wait_until("the first line deleted", |screen| screen.starts_with("2\n3\n"));
    tmux.press(&["C-p", "C-q"]);
    let screen = tmux.expect_prompt();
    assert_eq!(tmux.modes(), "0 1 0 0");
    let hint = screen.lines().find(|line| line.contains("left running")).unwrap();
    let again = hint.split("msb ").nth(1).unwrap().trim_end();
    tmux.run(&format!("\"$MSB\" {again}; echo code $?"));
    tmux.wait_until("the file again", |screen| screen.starts_with("2\n3\n"));
    // On the alternate screen, as before, so that nothing is left on the normal one.
    tmux.expect_modes("1 1 0 0");
    tmux.type_text(":wq");
    tmux.press(&["Enter"]);
    tmux.expect("code 0");
    let screen = tmux.expect_prompt();
    assert!(!screen.contains("\n2\n3\n") && !screen.contains("/tmp/numbers"), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    assert_eq!(msb.ok(&["exec", "w", "head", "-n", "1", "/tmp/numbers"]), "2\n");
}

#[test]
fn b7_h1_dead_sandbox_under_editor_restores_terminal() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    tmux.run("\"$MSB\" exec -t w vi /tmp/text");
    tmux.expect_modes("1 1 0 0");
    msb.ok(&["kill", "w"]);
    let screen = tmux.expect_prompt();
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the command's exit status is unknown"), "{screen}");
    assert_eq!(tmux.modes(), "0 1 0 0");
    // The terminal echoes, and Enter ends a line.
    tmux.run("echo $((40 + 2))");
    tmux.expect("42\n");
}

#[test]
fn h1_ctrl_c_reaches_then_kills_the_program() {
    let msb = Msb::with_sandbox();
    let tmux = Tmux::new(&msb, PROMPT);
    let script = "trap \"echo caught\" INT; echo up; while :; do usleep 10000; done";
    tmux.run(&format!("\"$MSB\" exec w sh -c '{script}'; echo code $?"));
    tmux.expect("up\n");
    tmux.press(&["C-c"]);
    tmux.expect("caught\n");
    tmux.press(&["C-c"]);
    tmux.expect("code 137");
    tmux.expect_prompt();
    // A background msb leaves the terminal to the shell.
    tmux.run("\"$MSB\" exec w sh -c 'echo from behind; sleep 600' & wait_for=$!");
    tmux.expect("from behind");
    tmux.run("kill -TERM $wait_for; wait $wait_for; echo code $?");
    tmux.expect("code 143");
}

#[test]
fn h1_shell_of_run_leaves_nothing_behind() {
    let msb = Msb::new();
    let tmux = Tmux::new(&msb, PROMPT);
    tmux.run(&format!("\"$MSB\" run -it {}; echo code $?", image()));
    tmux.expect("/ #");
    tmux.type_text("echo $TERM-$((6 * 7)); exit 3");
    tmux.press(&["Enter"]);
    tmux.expect("xterm-42\n");
    tmux.expect("code 3");
    tmux.expect_prompt();
    assert_eq!(msb.names(), [""; 0]);
}
