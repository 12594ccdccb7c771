//! The first session in README.md matches what its commands print.
//!
//! With `MSB_WRITE_TRANSCRIPT=1` in the environment, the test writes the session instead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::process::Command;
use support::tmux::Tmux;
use support::{Msb, root};

const BEGIN: &str = "```console\n$ make demo\n";
const END: &str = "```\n";
/// The last command of the set-up, which the test does itself.
const SET_UP: &str = "$ export PATH=$PWD/target/release:$PATH MSB_DRIVER=container\n";
/// Digits of a session id in the hint to reattach.
const SHORT_ID: usize = 12;

/// A line typed at a prompt.
struct Typed<'a> {
    prompt: &'a str,
    /// Empty for the detach key.
    text: &'a str,
}

fn typed(line: &str) -> Option<Typed<'_>> {
    if let Some(text) = line.strip_prefix("$ ") {
        return Some(Typed { prompt: "$", text });
    }
    let (folder, text) = line.split_once(" #")?;
    let prompt = line.split_at(folder.len() + 2).0;
    folder.starts_with('/').then_some(Typed { prompt, text: text.trim_start() })
}

/// Returns the session ids in a text, short or full.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| {
        [SHORT_ID, 32].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Returns the text without what differs between runs: ids, ages, pids, and the shell's version.
fn comparable(text: &str) -> String {
    let word = |word: &str| match word {
        _ if ids(word).next().is_some() => "ID".to_owned(),
        _ if word.bytes().all(|byte| byte.is_ascii_digit()) => "N".to_owned(),
        _ if word.ends_with('s') && word.bytes().next().is_some_and(|b| b.is_ascii_digit()) => {
            "AGE".to_owned()
        }
        _ => word.to_owned(),
    };
    let line = |line: &str| match line.starts_with("BusyBox v") {
        true => "BusyBox".to_owned(),
        false => line.split_whitespace().map(word).collect::<Vec<_>>().join(" "),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn last_line(screen: &str) -> &str {
    screen.trim_end().lines().last().unwrap_or_default().trim_end()
}

/// Types the lines of a transcript and returns the final screen.
fn replayed(msb: &Msb, transcript: &str) -> String {
    let tmux = Tmux::new(msb, "$ ");
    tmux.call(&["resize-window", "-x", "110", "-y", "60"]);
    let lines: Vec<Typed<'_>> = transcript.lines().filter_map(typed).collect();
    for (at, Typed { prompt, text }) in lines.iter().enumerate() {
        tmux.wait_until(&format!("{prompt:?}"), |screen| last_line(screen) == *prompt);
        if text.is_empty() {
            tmux.press(&["C-]"]);
        } else {
            // Replaces the transcript's id by the last one on the screen.
            let screen = tmux.screen();
            let now = ids(&screen).filter(|id| id.len() == SHORT_ID).last();
            let text = match (ids(text).next(), now) {
                (Some(then), Some(now)) => text.replace(then, now),
                _ => (*text).to_owned(),
            };
            tmux.type_text(&text);
            tmux.wait_until(&format!("{text:?}"), |screen| {
                last_line(screen) == format!("{prompt} {text}")
            });
            tmux.press(&["Enter"]);
        }
        let next = lines.get(at + 1).map_or("$", |next| next.prompt);
        tmux.wait_until(&format!("{next:?}"), |screen| last_line(screen) == next);
    }
    let screen = tmux.screen();
    let trimmed: Vec<&str> = screen.trim_end().lines().map(str::trim_end).collect();
    // Without the last prompt.
    let shown = trimmed.split_last().unwrap().1;
    format!("{}\n", shown.join("\n"))
}

#[test]
fn readme_session_matches_actual_output() {
    let mut rootfs = Command::new("scripts/rootfs");
    let made = rootfs.arg("target/rootfs").current_dir(root()).status().unwrap();
    assert!(made.success(), "scripts/rootfs needs busybox");
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (demo, rest) = rest.split_once(SET_UP).unwrap();
    let (session, after) = rest.split_once(END).unwrap();

    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let script = read("scripts/demo").replace("$rootfs", "target/rootfs");
    let script = script.replace("$why", "runsc was not found");
    let said = read("Makefile") + &script;
    for line in demo.lines().filter(|line| line.starts_with("== ")) {
        assert!(said.contains(line), "make demo does not say {line:?}");
    }
    let msb = Msb::new();
    let shown = replayed(&msb, session);
    if std::env::var_os("MSB_WRITE_TRANSCRIPT").is_some() {
        let text = [before, BEGIN, demo, SET_UP, &shown, END, after].concat();
        std::fs::write(path, text).unwrap();
        return;
    }
    assert_eq!(comparable(&shown), comparable(session));
    assert_eq!(msb.names(), [""; 0], "the session removes its sandboxes");
}
