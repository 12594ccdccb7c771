//! Functions that libkrun's file system calls and glibc 2.17 lacks: `copy_file_range` (2.27) and
//! `statx` (2.28). A kernel without them answers `ENOSYS`, for which both callers have a fallback.

use libc::{c_char, c_int, c_long, c_uint, loff_t, size_t, ssize_t};

/// As glibc's, copy_file_range(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut loff_t,
    to: c_int,
    to_at: *mut loff_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: passes the caller's pointers to the kernel unchanged.
    let done: c_long = unsafe {
        libc::syscall(libc::SYS_copy_file_range, from, from_at, to, to_at, length, flags)
    };
    ssize_t::try_from(done).unwrap_or(-1)
}

/// As glibc's, statx(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    found: *mut libc::statx,
) -> c_int {
    // SAFETY: as above.
    let status = unsafe { libc::syscall(libc::SYS_statx, directory, path, flags, mask, found) };
    if status == 0 { 0 } else { -1 }
}
