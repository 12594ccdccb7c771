//! A terminal in which `msb` is tested as a person sees it.

use super::{Scene, msb, root};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to be shown, times MSB_TEST_TIME_SCALE; only a failure takes it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);
fn patience() -> Duration {
    let scale = std::env::var("MSB_TEST_TIME_SCALE").map_or(1.0, |text| text.parse().unwrap());
    PATIENCE.mul_f64(scale)
}

/// A terminal of 80 columns and 24 rows with a shell of the host in it.
pub(crate) struct Tmux<'a> {
    scene: &'a Scene,
    /// What the shell says when it waits.
    prompt: &'static str,
}

impl<'a> Tmux<'a> {
    pub(crate) fn new(scene: &'a Scene, prompt: &'static str) -> Tmux<'a> {
        let tmux = Tmux { scene, prompt };
        let environment = scene.command(&[]);
        let mut command = tmux.command(&["new-session", "-d", "-x", "80", "-y", "24"]);
        // Not in the environment: a shell of root sets its own.
        let setup = scene.home.path().join("shell-setup");
        std::fs::write(&setup, format!("PS1='{prompt}'\n")).unwrap();
        command.arg("exec sh").env("ENV", setup).env("LC_ALL", "C.UTF-8");
        command.envs(environment.get_envs().filter_map(|(key, value)| Some((key, value?))));
        // Also by its own name, as people type it.
        let mut path = msb().parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        command.env("MSB", msb()).env("PATH", path).current_dir(root());
        let made = command.output().unwrap();
        assert!(made.status.success(), "{made:?}; scripts/setup test installs tmux");
        tmux.shows(prompt.trim_end());
        tmux
    }

    /// A call of tmux, of a server of its own without anybody's configuration.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.scene.home.path().join("tmux")).args(["-u", "-f", "/dev/null"]);
        command.env_remove("TMUX").args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types text as it is.
    pub(crate) fn types(&self, text: &str) {
        self.ask(&["send-keys", "-l", text]);
    }

    /// Presses keys by tmux's names for them.
    pub(crate) fn presses(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Has the shell run something on a screen that is empty.
    pub(crate) fn runs(&self, line: &str) {
        self.types(&format!("clear; {line}"));
        self.presses(&["Enter"]);
    }

    pub(crate) fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it is to be.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < patience(), "{what}, but:\n{screen}");
            std::thread::sleep(LOOK);
        }
    }

    pub(crate) fn shows(&self, text: &str) -> String {
        self.until(&format!("{text:?} was to be shown"), |screen| screen.contains(text))
    }

    /// Waits until the shell of the host waits, on the last line that is not empty; before it may
    /// stand what a program left there without an end of line.
    pub(crate) fn is_back(&self) -> String {
        self.until("the host's shell was to be back", |screen| {
            screen
                .trim_end()
                .lines()
                .last()
                .is_some_and(|line| line.trim_end().ends_with(self.prompt.trim_end()))
        })
    }

    /// Whether the other screen is shown, the cursor is, the mouse is asked for, and the number keys
    /// send sequences.
    pub(crate) fn modes(&self) -> String {
        let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}";
        self.ask(&["display-message", "-p", modes]).trim().to_owned()
    }

    pub(crate) fn has_modes(&self, modes: &str) {
        let begun = Instant::now();
        while self.modes() != modes {
            assert!(begun.elapsed() < patience(), "{modes} was to be, but {}", self.modes());
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}
