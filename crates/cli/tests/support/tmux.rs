//! A terminal that shows `msb` as a person sees it.

use super::{Msb, binary, root};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a change of the screen, times MSB_TEST_TIME_SCALE.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Interval between two checks of the screen.
const INTERVAL: Duration = Duration::from_millis(20);

fn time_limit() -> Duration {
    let scale = std::env::var("MSB_TEST_TIME_SCALE").map_or(1.0, |text| text.parse().unwrap());
    TIME_LIMIT.mul_f64(scale)
}

/// A terminal of 80 columns and 24 rows that runs a shell of the host.
pub(crate) struct Tmux<'a> {
    msb: &'a Msb,
    /// The shell's prompt.
    prompt: &'static str,
}

impl<'a> Tmux<'a> {
    pub(crate) fn new(msb: &'a Msb, prompt: &'static str) -> Tmux<'a> {
        let tmux = Tmux { msb, prompt };
        let mut command = tmux.command(&["new-session", "-d", "-x", "80", "-y", "24"]);
        // In a file, since a shell of root overrides PS1 from the environment.
        let setup = msb.home.path().join("shell-setup");
        std::fs::write(&setup, format!("PS1='{prompt}'\n")).unwrap();
        command.arg("exec sh").env("ENV", setup).env("LC_ALL", "C.UTF-8");
        msb.set_environment(&mut command);
        // So that `msb` can be typed too.
        let mut path = binary().parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        command.env("MSB", binary()).env("PATH", path).current_dir(root());
        let made = command.output().unwrap();
        assert!(made.status.success(), "{made:?}; scripts/setup test installs tmux");
        tmux.expect(prompt.trim_end());
        tmux
    }

    /// Returns a call of tmux with its own server and no configuration file.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.msb.home.path().join("tmux")).args(["-u", "-f", "/dev/null"]);
        command.env_remove("TMUX").args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Types text literally.
    pub(crate) fn type_text(&self, text: &str) {
        self.call(&["send-keys", "-l", text]);
    }

    /// Presses keys, by tmux's names.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.call(&[&["send-keys"], keys].concat());
    }

    /// Clears the screen and has the shell run a line.
    pub(crate) fn run(&self, line: &str) {
        self.type_text(&format!("clear; {line}"));
        self.press(&["Enter"]);
    }

    pub(crate) fn screen(&self) -> String {
        self.call(&["capture-pane", "-p"])
    }

    /// Waits until the screen meets a condition, which `what` names.
    pub(crate) fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < time_limit(), "expected {what}, found:\n{screen}");
            std::thread::sleep(INTERVAL);
        }
    }

    pub(crate) fn expect(&self, text: &str) -> String {
        self.wait_until(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits for the prompt of the host's shell on the last non-empty line, perhaps after output
    /// without a line end.
    pub(crate) fn expect_prompt(&self) -> String {
        self.wait_until("the host's prompt", |screen| {
            screen
                .trim_end()
                .lines()
                .last()
                .is_some_and(|line| line.trim_end().ends_with(self.prompt.trim_end()))
        })
    }

    /// Returns flags: alternate screen, cursor shown, mouse reports, keypad mode.
    pub(crate) fn modes(&self) -> String {
        let modes = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}";
        self.call(&["display-message", "-p", modes]).trim().to_owned()
    }

    pub(crate) fn expect_modes(&self, modes: &str) {
        let begun = Instant::now();
        while self.modes() != modes {
            assert!(begun.elapsed() < time_limit(), "expected {modes}, found {}", self.modes());
            std::thread::sleep(INTERVAL);
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}
