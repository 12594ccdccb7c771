//! The one system call that no safe interface offers: the signal mask of a thread.

#![allow(unsafe_code, reason = "rustix has no safe signal mask")]

use std::mem::MaybeUninit;

/// Blocks SIGTTIN in the calling thread: a read of the terminal by a background process then fails
/// with EIO instead of stopping the process.
pub(crate) fn block_sigttin() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is writable storage of the right type, which this call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `set` was initialised above, and the signal's number is valid.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGTTIN) };
    // SAFETY: `set` is initialised and only read; the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
}
