//! The host's terminal: standard input, and whatever standard output is.

use crate::attach::modes::Modes;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use msb_wire::TtySize;
use rustix::fs::{Mode, OFlags, open};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// There is one terminal, and one attach at a time has it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to the terminal, which has its usual settings still.
#[derive(Debug)]
pub(crate) struct Claim(());

/// The terminal in raw mode. Dropping this gives it the settings back that it had.
#[derive(Debug)]
pub(crate) struct Terminal {
    input: OwnedFd,
    output: OwnedFd,
    settings: Termios,
    /// What the program changed on it; `None` when it is not shown there, or when what it left is
    /// what it wanted to leave.
    modes: Option<Modes>,
    claim: Claim,
}

impl Claim {
    /// An error unless standard input is a terminal that nobody has.
    pub(crate) fn new() -> MicrosandboxResult<Claim> {
        if !isatty(std::io::stdin()) {
            let context = "the standard input of this process is not a terminal";
            return Err(Error::new(ErrorKind::NotATerminal, Origin::Caller, context));
        }
        if TAKEN.swap(true, Ordering::AcqRel) {
            let context = "the terminal is attached to another session";
            return Err(Error::new(ErrorKind::Busy, Origin::Caller, context));
        }
        Ok(Claim(()))
    }

    /// The terminal's size; `None` when it does not know one.
    pub(crate) fn size(&self) -> Option<TtySize> {
        let size = tcgetwinsize(std::io::stdin()).ok()?;
        let (rows, cols) = (size.ws_row, size.ws_col);
        (rows > 0 && cols > 0).then_some(TtySize { rows, cols })
    }

    /// Puts the terminal into raw mode.
    pub(crate) fn raw(self) -> MicrosandboxResult<Terminal> {
        let failed = |error| Error::io("cannot use the terminal", error);
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let input = own(stdin.as_fd(), OFlags::RDONLY)?;
        let output = own(stdout.as_fd(), OFlags::WRONLY)?;
        let settings = tcgetattr(&input).map_err(failed)?;
        let mut raw = settings.clone();
        raw.make_raw();
        let modes = isatty(&output).then(Modes::default);
        let terminal = Terminal { input, output, settings, modes, claim: self };
        // Not `Flush`: what was typed ahead is for the session.
        tcsetattr(&terminal.input, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(terminal)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

impl Terminal {
    /// As [`Claim::size`].
    pub(crate) fn size(&self) -> Option<TtySize> {
        self.claim.size()
    }

    /// Notes what was written to the output.
    pub(crate) fn shown(&mut self, bytes: &[u8]) {
        if let Some(modes) = &mut self.modes {
            modes.shown(bytes);
        }
    }

    /// What brings the terminal into the state that was noted without having been written.
    pub(crate) fn redo(&self) -> Vec<u8> {
        self.modes.as_ref().map(Modes::redo).unwrap_or_default()
    }

    /// The program ended by itself: what it left is what it wanted to leave.
    pub(crate) fn keep_screen(&mut self) {
        self.modes = None;
    }

    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let undo = self.modes.as_ref().map(Modes::undo).unwrap_or_default();
        if !undo.is_empty() {
            // As far as the terminal takes it at once: one that is stopped keeps nobody waiting.
            let _ = rustix::io::write(&self.output, &undo);
        }
        // Neither waits for a terminal that is stopped nor throws away what was typed behind the
        // detach keys. Fails only when the terminal is gone.
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.settings);
    }
}

/// A descriptor that does not block, for as long as this one does not share it with others, who
/// would be surprised: a terminal is opened anew. Where that cannot be, a copy.
fn own(fd: BorrowedFd<'_>, access: OFlags) -> MicrosandboxResult<OwnedFd> {
    if isatty(fd) {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Ok(own) = open(path, flags, Mode::empty()) {
            return Ok(own);
        }
    }
    fd.try_clone_to_owned().map_err(|error| Error::io("cannot copy a descriptor", error))
}
