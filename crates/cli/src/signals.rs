//! Signals to this process, and what each of them asks for.
//!
//! Every signal that a command may be waiting for is passed on to it. Not passed on are those that
//! tell this process of its own affairs: its children, sockets and faults, and the job control of
//! its terminal. Signals are blocked and read from a descriptor, so that none is lost between two
//! reads, and each of several real-time signals counts.

use crate::failure::Failure;
use crate::sys;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Signal, getpid, kill_process};
use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Time that a command has to exit after a forwarded SIGTERM or SIGHUP: nobody may be there to
/// signal a second time, as there is with SIGINT.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// Signals that may be kept while a command starts (a count); as many as the agent keeps.
const KEPT: usize = 64;

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// A signal that does not ask this process to end: forward it to the command.
    Pass(i32),
    /// The first signal that does: forward it to the command.
    Forward(i32),
    /// The second signal, or the end of the grace period: kill the command.
    Kill(i32),
    /// The third signal: exit without waiting for anything.
    Exit(i32),
}

impl SignalAction {
    /// Returns the signal's number.
    pub(crate) fn signal(self) -> i32 {
        let (SignalAction::Pass(signal)
        | SignalAction::Forward(signal)
        | SignalAction::Kill(signal)
        | SignalAction::Exit(signal)) = self;
        signal
    }

    /// Whether the signal cancels what comes before a command.
    pub(crate) fn cancels(self) -> bool {
        !matches!(self, SignalAction::Pass(signal) if signal != libc::SIGQUIT)
    }
}

/// The signals that are passed on to a command.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: AsyncFd<SignalFd>,
    state: SignalState,
    /// When the grace period ends, and which signal started it.
    grace: Option<(Instant, i32)>,
    /// Came before there was a command to forward them to.
    kept: VecDeque<SignalAction>,
}

impl Signals {
    /// Handles those signals that are not ignored: `nohup` and `&` ignore some on purpose. Called
    /// before any thread is started, since threads inherit what is blocked.
    pub(crate) fn handle() -> Result<Self, Failure> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = ignored(&status);
        let handled = (1..=libc::SIGRTMAX())
            .filter(|number| is_passed_on(*number) && ignored & (1 << (number - 1)) == 0);
        let set = sys::signal_set(handled);
        let failed = |error: io::Error| Failure::new(format!("cannot handle signals: {error}"));
        set.thread_block().map_err(|errno| failed(errno.into()))?;
        sys::block_internal_signals();
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&set, flags).map_err(|errno| failed(errno.into()))?;
        let fd = sys::watch(fd).map_err(failed)?;
        Ok(Signals { fd, state: SignalState::Idle, grace: None, kept: VecDeque::new() })
    }

    /// Waits for the next action. Cancel-safe: no signal is lost.
    pub(crate) async fn next(&mut self) -> SignalAction {
        match self.kept.pop_front() {
            Some(action) => action,
            None => self.next_new().await,
        }
    }

    async fn next_new(&mut self) -> SignalAction {
        let grace = self.grace;
        let grace_over = async {
            match grace {
                Some((end, signal)) => {
                    sleep_until(end).await;
                    signal
                }
                None => pending().await,
            }
        };
        let (action, state) = tokio::select! {
            number = received(&self.fd) => self.state.on(number),
            number = grace_over => (SignalAction::Kill(number), SignalState::Killed),
        };
        self.state = state;
        match action {
            SignalAction::Pass(_) => {}
            SignalAction::Forward(number) if number != libc::SIGINT => {
                self.grace = Some((Instant::now() + GRACE, number));
            }
            _ => self.grace = None,
        }
        action
    }

    /// Waits for `future`, or fails at the first signal that asks this process to end. Others are
    /// kept for the command.
    pub(crate) async fn interrupt<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                result = &mut future => return Ok(result),
                action = self.next_new() => match action.cancels() {
                    true => return Err(Failure::by_signal(action.signal())),
                    false => self.keep(action),
                },
            }
        }
    }

    /// Waits for `future`, which starts a command. The first signal is kept for it too; the second
    /// one that asks this process to end fails.
    pub(crate) async fn starting<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                result = &mut future => return Ok(result),
                action = self.next_new() => match action {
                    SignalAction::Pass(_) | SignalAction::Forward(_) => self.keep(action),
                    SignalAction::Kill(signal) | SignalAction::Exit(signal) => {
                        return Err(Failure::by_signal(signal));
                    }
                },
            }
        }
    }

    /// Keeps a signal for the command, up to the bound: more would be refused there.
    pub(crate) fn keep(&mut self, action: SignalAction) {
        if self.kept.len() < KEPT {
            self.kept.push_back(action);
        }
    }
}

/// Whether a command gets the signal.
fn is_passed_on(number: i32) -> bool {
    let own = [
        // Cannot be caught.
        libc::SIGKILL,
        libc::SIGSTOP,
        // Faults of this process.
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
        // Its children, pipes and sockets.
        libc::SIGCHLD,
        libc::SIGPIPE,
        libc::SIGURG,
        // Its access to the terminal. Handled, the kernel would send them again and again.
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    // Those between are the C library's.
    let exists = number < 32 || number >= libc::SIGRTMIN();
    exists && !own.contains(&number)
}

/// Waits for the next signal.
async fn received(fd: &AsyncFd<SignalFd>) -> i32 {
    loop {
        let Ok(mut guard) = fd.readable().await else { return pending().await };
        match fd.get_ref().read_signal() {
            Ok(Some(info)) if is_suspend_key(&info) => {
                // As every program in a shell's job: the shell is back, and the command runs on.
                let _ = kill_process(getpid(), Signal::STOP);
            }
            Ok(Some(info)) => return i32::try_from(info.ssi_signo).unwrap_or_default(),
            Ok(None) => guard.clear_ready(),
            Err(_) => return pending().await,
        }
    }
}

/// Whether Ctrl-Z was typed, in difference to a SIGTSTP that a program sent.
fn is_suspend_key(info: &libc::signalfd_siginfo) -> bool {
    info.ssi_signo == libc::SIGTSTP.unsigned_abs() && info.ssi_code == libc::SI_KERNEL
}

/// What the signals so far have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalState {
    Idle,
    Forwarded,
    Killed,
}

impl SignalState {
    fn on(self, signal: i32) -> (SignalAction, SignalState) {
        match self {
            _ if !matches!(signal, libc::SIGINT | libc::SIGTERM | libc::SIGHUP) => {
                (SignalAction::Pass(signal), self)
            }
            SignalState::Idle => (SignalAction::Forward(signal), SignalState::Forwarded),
            SignalState::Forwarded => (SignalAction::Kill(signal), SignalState::Killed),
            SignalState::Killed => (SignalAction::Exit(signal), SignalState::Killed),
        }
    }
}

/// Returns the mask of ignored signals in the text of `/proc/self/status`.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_signal_is_forwarded_second_kills_third_exits() {
        let (action, next) = SignalState::Idle.on(15);
        assert_eq!(action, SignalAction::Forward(15));
        let (action, next) = next.on(2);
        assert_eq!(action, SignalAction::Kill(2));
        let (action, next) = next.on(2);
        assert_eq!(action, SignalAction::Exit(2));
        assert_eq!(next.on(1).0, SignalAction::Exit(1));
        for state in [SignalState::Idle, SignalState::Forwarded, SignalState::Killed] {
            assert_eq!(state.on(libc::SIGUSR1), (SignalAction::Pass(libc::SIGUSR1), state));
        }
    }

    #[test]
    fn ignored_signals_are_read_from_the_kernels_mask() {
        assert_eq!(ignored("Name:\tmsb\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored("nothing"), 0);
    }
}
