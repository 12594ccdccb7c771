//! A pseudo-terminal, with and without a call on it.

use super::{Msb, shell_code};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long output may take after the end of the child.
const AFTER_END: Duration = Duration::from_secs(10);

/// Opens a pseudo-terminal and returns its master and its slave.
pub(crate) fn open() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (File::from(master), slave)
}

/// A call of `msb` on a pseudo-terminal.
pub(crate) struct Pty {
    pub(crate) child: Child,
    master: File,
    slave: OwnedFd,
    before: Termios,
    flags: OFlags,
    seen: Vec<u8>,
}

impl Pty {
    pub(crate) fn new(msb: &Msb, arguments: &[&str]) -> Pty {
        Pty::of(&mut msb.command(arguments), false)
    }

    /// As the leader of a session that has this as its controlling terminal, as in a shell.
    pub(crate) fn controlling(msb: &Msb, arguments: &[&str]) -> Pty {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(super::binary()).args(arguments);
        msb.set_environment(&mut command);
        Pty::of(&mut command, false)
    }

    /// With standard error on the terminal too, or in a pipe.
    pub(crate) fn of(command: &mut Command, stderr_too: bool) -> Pty {
        let (master, slave) = open();
        Pty::on((master, slave), command, stderr_too)
    }

    /// On a terminal with settings of its own.
    pub(crate) fn on(pair: (File, OwnedFd), command: &mut Command, stderr_too: bool) -> Pty {
        let (master, slave) = pair;
        let before = tcgetattr(&slave).unwrap();
        let flags = fcntl_getfl(&slave).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap());
        match stderr_too {
            true => command.stderr(slave.try_clone().unwrap()),
            false => command.stderr(Stdio::piped()),
        };
        let child = command.spawn().unwrap();
        // Closes this process's copies of the terminal.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Pty { child, master, slave, before, flags, seen: Vec::new() }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the terminal has shown `text`.
    pub(crate) fn expect(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            self.wait_for_output(text);
            let mut buffer = [0; 4096];
            let count = self.master.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..count]);
        }
        self.seen.clear();
    }

    /// Waits until there is something to read; fails if none comes after the child's end. What guards
    /// the terminal may write a moment later.
    fn wait_for_output(&mut self, text: &str) {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let interval = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let mut ended: Option<(ExitStatus, Instant)> = None;
        while poll(&mut fds, Some(&interval)).unwrap() == 0 {
            if let Some((status, _)) = ended.filter(|(_, at)| at.elapsed() > AFTER_END) {
                let errors = read_stderr(&mut self.child);
                let seen = String::from_utf8_lossy(&self.seen);
                panic!("{status} without {text:?}; on the terminal {seen:?}; {errors}");
            }
            if ended.is_none() {
                ended = self.child.try_wait().unwrap().map(|status| (status, Instant::now()));
            }
        }
    }

    /// Closes the terminal and waits for the end of the call.
    pub(crate) fn hang_up(mut self) {
        drop((self.master, self.slave));
        self.child.wait().unwrap();
    }

    /// Returns the exit code and the rest of what the terminal shows.
    pub(crate) fn wait_and_read(mut self) -> (i32, String) {
        let code = shell_code(self.child.wait().unwrap());
        drop(self.slave);
        // Fails once everything is read, since no process has the terminal open.
        let _ = self.master.read_to_end(&mut self.seen);
        (code, String::from_utf8(self.seen).unwrap())
    }

    /// Returns the exit code and standard error; the terminal's settings must be restored.
    pub(crate) fn wait(mut self) -> (i32, String) {
        let errors = read_stderr(&mut self.child);
        let code = shell_code(self.child.wait().unwrap());
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before));
        assert_eq!(fcntl_getfl(&self.slave).unwrap(), self.flags);
        (code, errors)
    }
}

fn read_stderr(child: &mut Child) -> String {
    child.stderr.take().map(|stderr| std::io::read_to_string(stderr).unwrap()).unwrap_or_default()
}
