//! The standard streams of a command: pipes or a terminal.

use crate::accounts::Account;
use crate::resources::Resources;
use crate::sys;
use msb_wire::{OutputStream, StdinMode, TtyModes, TtySize};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Winsize};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

/// The agent's ends of a process's standard streams.
#[derive(Debug)]
pub(super) struct AgentEnds {
    pub(super) outputs: [Option<Rc<AsyncFd<OwnedFd>>>; 2],
    pub(super) stdin: Option<Rc<AsyncFd<OwnedFd>>>,
}

impl AgentEnds {
    /// Returns the end of an output; `None` once it is closed.
    pub(super) fn output(&self, stream: OutputStream) -> Option<Rc<AsyncFd<OwnedFd>>> {
        let [stdout, stderr] = &self.outputs;
        match stream {
            OutputStream::Stdout => stdout.clone(),
            OutputStream::Stderr => stderr.clone(),
        }
    }

    /// Closes an output.
    pub(super) fn close_output(&mut self, stream: OutputStream) {
        let [stdout, stderr] = &mut self.outputs;
        match stream {
            OutputStream::Stdout => *stdout = None,
            OutputStream::Stderr => *stderr = None,
        }
    }
}

/// The standard streams of a new process.
pub(super) struct Streams {
    /// What become its descriptors 0, 1 and 2.
    pub(super) child: [OwnedFd; 3],
    pub(super) agent: AgentEnds,
    /// The terminal's master side.
    pub(super) terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

impl Streams {
    /// Creates pipes. Fails with an errno.
    pub(super) fn pipes(
        mode: StdinMode,
        account: &Account,
        resources: &Resources,
    ) -> Result<Streams, i32> {
        let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(Errno::raw_os_error);
        let (stdout, child_stdout) = pair()?;
        let (stderr, child_stderr) = pair()?;
        let (child_stdin, stdin) = match mode {
            StdinMode::Null => (resources.null().map_err(Errno::raw_os_error)?, None),
            StdinMode::Pipe => {
                let (child, agent) = pair()?;
                (child, Some(watch(agent)?))
            }
        };
        if mode == StdinMode::Pipe {
            allow_reopen(&child_stdin, account);
        }
        allow_reopen(&child_stdout, account);
        allow_reopen(&child_stderr, account);
        Ok(Streams {
            child: [child_stdin, child_stdout, child_stderr],
            agent: AgentEnds { outputs: [Some(watch(stdout)?), Some(watch(stderr)?)], stdin },
            terminal: None,
        })
    }

    /// Opens a terminal. Fails with an errno.
    pub(super) fn terminal(
        size: TtySize,
        modes: Option<&TtyModes>,
        account: &Account,
        resources: &Resources,
    ) -> Result<Streams, i32> {
        let number = |errno: Errno| errno.raw_os_error();
        let master = resources.terminal().map_err(number)?;
        rustix::pty::unlockpt(&master).map_err(number)?;
        let slave = resources.other_side(&master).map_err(number)?;
        set_size(&master, size)?;
        if let Some(modes) = modes {
            set_modes(&slave, modes).map_err(number)?;
        }
        // Refused in a user namespace with one id, where nothing needs it.
        let owner = rustix::fs::Uid::from_raw(account.uid);
        let _ = rustix::fs::fchown(&slave, Some(owner), None);
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(number);
        let child = [copy(&slave)?, copy(&slave)?, slave];
        let master = watch(master)?;
        Ok(Streams {
            child,
            agent: AgentEnds {
                outputs: [Some(Rc::clone(&master)), None],
                stdin: Some(Rc::clone(&master)),
            },
            terminal: Some(master),
        })
    }
}

/// Lets a command reopen its end of a pipe by `/dev/stdout`, as its user or as one that it switches
/// to (`su`). Other processes cannot reach it: the path leads through the process's own directory
/// in `/proc` (proc_pid_fd(5)).
fn allow_reopen(pipe: &OwnedFd, account: &Account) {
    // Refused in a user namespace with one id, where nothing needs it.
    let _ = rustix::fs::fchown(pipe, Some(rustix::fs::Uid::from_raw(account.uid)), None);
    let _ = rustix::fs::fchmod(pipe, Mode::from_raw_mode(0o666));
}

fn watch(fd: OwnedFd) -> Result<Rc<AsyncFd<OwnedFd>>, i32> {
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(Errno::raw_os_error)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(Errno::raw_os_error)?;
    sys::watch(fd).map(Rc::new).map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Sets a terminal's size. The kernel sends SIGWINCH to the foreground group.
pub(super) fn set_size(terminal: &OwnedFd, size: TtySize) -> Result<(), i32> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(Errno::raw_os_error)
}

/// Gives a terminal the settings of the user's.
fn set_modes(terminal: &OwnedFd, modes: &TtyModes) -> rustix::io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(terminal)?;
    modes.apply(&mut settings)?;
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &settings)
}
