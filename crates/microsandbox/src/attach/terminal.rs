//! The host's terminal: standard input and standard output of this process.

use crate::attach::guard::Guard;
use crate::attach::modes::Modes;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use msb_wire::{TtyModes, TtySize};
use rustix::fs::{Mode, OFlags, open};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The process has one terminal, used by one attach at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// What gives the terminal its settings back, while it is in raw mode. Held for moments only.
static SAVED: Mutex<Option<Saved>> = Mutex::new(None);
/// What takes back what the program changed on the screen. Held while something is written there.
static UNDO: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// How often a signal handler looks for one of them to be free (a count). The thread that holds it
/// may be the one that was interrupted.
const TRIES: usize = 1000;

/// The exclusive right to use the terminal, whose settings are unchanged.
#[derive(Debug)]
pub(crate) struct Claim(());

/// The terminal in raw mode. Dropping this restores its settings.
#[derive(Debug)]
pub(crate) struct Terminal {
    input: Arc<OwnedFd>,
    output: Arc<OwnedFd>,
    /// What the program changed on it; `None` when it is not shown there, or when what it left is
    /// what it wanted to leave.
    modes: Option<Modes>,
    /// `None` if it is unavailable.
    guard: Option<Guard>,
    claim: Claim,
}

/// What the terminal gets back.
#[derive(Debug)]
struct Saved {
    input: Arc<OwnedFd>,
    output: Arc<OwnedFd>,
    settings: Termios,
}

impl Saved {
    fn restore_screen(&self, undo: &[u8]) {
        if !undo.is_empty() {
            // As far as the terminal takes it at once: one that is stopped keeps nobody waiting.
            let _ = rustix::io::write(&self.output, undo);
        }
    }

    fn restore_settings(&self) {
        // Neither waits for a terminal that is stopped nor throws away what was typed behind the
        // detach keys. Fails only when the terminal is gone.
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.settings);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], in a signal handler.
fn lock_briefly<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    for _ in 0..TRIES {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => rustix::thread::sched_yield(),
        }
    }
    None
}

/// Gives an attached terminal its settings back, for a process that is about to end.
///
/// An attach does this by itself however it ends. What it cannot see is a signal that ends the
/// process at once. A program that handles such a signal calls this in its handler: it only makes
/// system calls that a handler may make (signal-safety(7)), and does nothing without an attach.
pub fn restore_terminal() {
    let Some(saved) = lock_briefly(&SAVED) else { return };
    let Some(saved) = saved.as_ref() else { return };
    // Nothing is shown while it is held.
    let undo = lock_briefly(&UNDO);
    saved.restore_screen(undo.as_deref().map_or(&[], Vec::as_slice));
    saved.restore_settings();
}

impl Claim {
    /// Fails unless standard input is a terminal that no other attach uses.
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

    /// Returns the terminal's size; `None` if it is unknown.
    pub(crate) fn size(&self) -> Option<TtySize> {
        let size = tcgetwinsize(std::io::stdin()).ok()?;
        let (rows, cols) = (size.ws_row, size.ws_col);
        (rows > 0 && cols > 0).then_some(TtySize { rows, cols })
    }

    /// The terminal's settings, for the command's terminal. None when it is in raw mode already:
    /// those are the settings of a program around this call, and not of its user.
    pub(crate) fn modes(&self) -> Option<TtyModes> {
        let settings = tcgetattr(std::io::stdin()).ok()?;
        if !settings
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
        {
            return None;
        }
        Some(TtyModes::of(&settings))
    }

    /// Puts the terminal into raw mode.
    pub(crate) fn raw(self) -> MicrosandboxResult<Terminal> {
        let failed = |error| Error::io("cannot use the terminal", error);
        let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
        let input = Arc::new(own(stdin.as_fd(), OFlags::RDONLY)?);
        let output = Arc::new(own(stdout.as_fd(), OFlags::WRONLY)?);
        let guard = Guard::start(input.as_fd(), output.as_fd());
        let guard =
            guard.inspect_err(|error| tracing::debug!(%error, "nothing guards the terminal")).ok();
        let settings = tcgetattr(&input).map_err(failed)?;
        let mut raw = settings.clone();
        raw.make_raw();
        let modes = isatty(&output).then(Modes::default);
        let (restored_input, restored_output) = (Arc::clone(&input), Arc::clone(&output));
        let terminal = Terminal { input, output, modes, guard, claim: self };
        lock(&UNDO).clear();
        *lock(&SAVED) = Some(Saved { input: restored_input, output: restored_output, settings });
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
    /// Returns the terminal's size, as [`Claim::size`].
    pub(crate) fn size(&self) -> Option<TtySize> {
        self.claim.size()
    }

    /// Writes as much as the output takes at once.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let mut undo = lock(&UNDO);
        let mut ahead = self.modes.clone();
        if let Some(modes) = &mut ahead {
            modes.shown(bytes);
            let needed = modes.undo();
            if *undo != needed {
                // Before the write: this process may be killed right after it.
                let either = [undo.as_slice(), &needed].concat();
                self.guard.iter().for_each(|guard| guard.tell(&either));
            }
        }
        let written = rustix::io::write(&self.output, bytes)?;
        if written == bytes.len() {
            self.modes = ahead;
        } else if let Some(modes) = &mut self.modes {
            modes.shown(bytes.get(..written).unwrap_or(bytes));
        }
        let needed = self.modes.as_ref().map(Modes::undo);
        if let Some(needed) = needed.filter(|needed| *undo != *needed) {
            self.guard.iter().for_each(|guard| guard.tell(&needed));
            *undo = needed;
        }
        Ok(written)
    }

    /// Notes what was shown on another terminal.
    pub(crate) fn shown(&mut self, bytes: &[u8]) {
        if let Some(modes) = &mut self.modes {
            modes.shown(bytes);
        }
    }

    /// Returns the sequences for mode changes in output that was not written to this terminal.
    pub(crate) fn redo(&self) -> Vec<u8> {
        self.modes.as_ref().map(Modes::redo).unwrap_or_default()
    }

    /// Keeps the screen as it is: the program exited by itself.
    pub(crate) fn keep_screen(&mut self) {
        self.modes = None;
        lock(&UNDO).clear();
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
        if let Some(saved) = lock(&SAVED).take() {
            saved.restore_screen(&lock(&UNDO));
            saved.restore_settings();
        }
    }
}

/// Returns a non-blocking descriptor. A terminal is reopened, so that the flag does not affect
/// other processes that share the open file description; if that fails, the descriptor is
/// duplicated.
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
