//! The first session that README.md shows is the one that people get.
//!
//! The commands are those that stand there. With `MSB_WRITE_TRANSCRIPT=1` in the environment, what
//! they print takes the place of what stood there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod support;

use std::process::Command;
use support::tmux::Tmux;
use support::{Scene, root};

const BEGIN: &str = "```console\n$ make demo\n";
const END: &str = "```\n";
/// The last of the commands that build and set up what a test has already.
const SET_UP: &str = "$ export PATH=$PWD/target/release:$PATH MSB_DRIVER=container\n";
/// How many digits of a session's id are told.
const SHORT_ID: usize = 12;

/// What was typed at a prompt.
struct Typed<'a> {
    prompt: &'a str,
    /// Nothing is the key that leaves what runs running.
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

/// The ids in a text: words of so many hexadecimal digits, or whole ids.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| {
        [SHORT_ID, 32].contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Without what differs from run to run: ids, ages, process ids, and the version of the shell.
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

/// Types what was typed there, and gives what is on the screen at the end.
fn replayed(scene: &Scene, transcript: &str) -> String {
    let tmux = Tmux::new(scene, "$ ");
    tmux.ask(&["resize-window", "-x", "110", "-y", "60"]);
    let lines: Vec<Typed<'_>> = transcript.lines().filter_map(typed).collect();
    for (at, Typed { prompt, text }) in lines.iter().enumerate() {
        tmux.until(&format!("{prompt:?} was to wait"), |screen| last_line(screen) == *prompt);
        if text.is_empty() {
            tmux.presses(&["C-]"]);
        } else {
            // The id is another one each time: the one that was told last.
            let screen = tmux.screen();
            let now = ids(&screen).filter(|id| id.len() == SHORT_ID).last();
            let text = match (ids(text).next(), now) {
                (Some(then), Some(now)) => text.replace(then, now),
                _ => (*text).to_owned(),
            };
            tmux.types(&text);
            tmux.until(&format!("{text:?} was to be shown"), |screen| {
                last_line(screen) == format!("{prompt} {text}")
            });
            tmux.presses(&["Enter"]);
        }
        let next = lines.get(at + 1).map_or("$", |next| next.prompt);
        tmux.until(&format!("{next:?} was to wait"), |screen| last_line(screen) == next);
    }
    let screen = tmux.screen();
    let trimmed: Vec<&str> = screen.trim_end().lines().map(str::trim_end).collect();
    // The last prompt, at which nothing is typed.
    let shown = trimmed.split_last().unwrap().1;
    format!("{}\n", shown.join("\n"))
}

#[test]
fn the_first_session_in_the_readme_is_what_people_get() {
    let mut rootfs = Command::new("scripts/rootfs");
    let made = rootfs.arg("target/rootfs").current_dir(root()).status().unwrap();
    assert!(made.success(), "scripts/rootfs needs busybox");
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (demo, rest) = rest.split_once(SET_UP).unwrap();
    let (session, after) = rest.split_once(END).unwrap();

    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let makefile = makefile.replace("$(ROOTFS)", "target/rootfs");
    for line in demo.lines().filter(|line| line.starts_with("== ")) {
        assert!(makefile.contains(line), "make demo does not say {line:?}");
    }
    let scene = Scene::new();
    let shown = replayed(&scene, session);
    if std::env::var_os("MSB_WRITE_TRANSCRIPT").is_some() {
        let text = [before, BEGIN, demo, SET_UP, &shown, END, after].concat();
        std::fs::write(path, text).unwrap();
        return;
    }
    assert_eq!(comparable(&shown), comparable(session));
    assert_eq!(scene.names(), [""; 0], "it cleans up");
}
