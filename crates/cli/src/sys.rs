//! Signals, as far as no safe interface offers them.

#![allow(unsafe_code, reason = "no safe interface takes every signal's number")]

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::io;
use std::mem::MaybeUninit;
use tokio::io::unix::AsyncFd;

/// Signals that a fault of this process raises.
const FAULTS: [i32; 7] = [
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// Returns the set of these signals.
pub(crate) fn signal_set(numbers: impl IntoIterator<Item = i32>) -> SigSet {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is writable storage of the right type, which this call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for number in numbers {
        // SAFETY: `set` was initialised above; a number that is no signal's is refused.
        unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    }
    // SAFETY: `set` was initialised above.
    let set = unsafe { set.assume_init() };
    // SAFETY: the functions above made a valid set.
    unsafe { SigSet::from_sigset_t_unchecked(set) }
}

/// Registers the descriptor of signals with the runtime.
pub(crate) fn watch(fd: SignalFd) -> io::Result<AsyncFd<SignalFd>> {
    // SAFETY: a `SignalFd` owns one open descriptor for as long as it lives, and the `AsyncFd` owns
    // it from here on.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Blocks the signals between the standard and the real-time ones, which the C library keeps for
/// itself and does not block in any set. Unused here, they would end this process.
pub(crate) fn block_internal_signals() {
    let mask: u64 = (32..libc::SIGRTMIN()).map(|number| 1 << (number - 1)).sum();
    let none = std::ptr::null_mut::<u64>();
    let (how, size) = (libc::SIG_BLOCK, size_of_val(&mask));
    // SAFETY: reads `mask`, which lives and has this size; the old mask is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, none, size) };
}

/// Blocks SIGTTIN in the calling thread: a read of the terminal by a background process then fails
/// with EIO instead of stopping the process.
pub(crate) fn block_sigttin() {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTTIN);
    // Cannot fail with these arguments.
    let _ = set.thread_block();
}

/// Has a fault of this process give the terminal its settings back before it ends the process.
pub(crate) fn restore_terminal_on_faults() {
    for signal in FAULTS {
        let handler = on_fault as extern "C" fn(libc::c_int);
        let action = libc::sigaction {
            sa_sigaction: handler as libc::sighandler_t,
            // On the stack for signals, since the fault may be an overflow of the usual one.
            sa_flags: libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER,
            sa_mask: *signal_set([]).as_ref(),
            sa_restorer: None,
        };
        // SAFETY: reads `action`, which lives; the handler only makes calls that one may make.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// The signal has its default action again, and is not blocked.
extern "C" fn on_fault(signal: libc::c_int) {
    microsandbox::restore_terminal();
    // SAFETY: touches no memory.
    unsafe { libc::raise(signal) };
}
