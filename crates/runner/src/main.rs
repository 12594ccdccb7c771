//! `msb-runner`: the process that starts one sandbox, watches it, and cleans up after it.
//!
//! The library starts it, and it lives as long as the sandbox. It owns the lock of the sandbox's
//! directory, the namespaces of its root filesystem, the machine that a driver started, and the
//! control socket. It is not on the data path: the library connects to the agent directly.
//!
//! Invariant: the lock is released last. A free lock means that nothing of the sandbox is left on
//! the host but its directory; the machine dies with the runner, and the next call of the library
//! cleans up the rest.

#![deny(unsafe_code)]

mod agent_link;
mod boot;
mod cleanup;
mod cli;
mod console;
mod control;
mod copy;
mod creator;
mod disk_image;
mod drivers;
#[cfg(test)]
mod fuzzing;
mod heartbeat;
mod idle;
mod image;
mod inherited;
mod life;
mod log;
mod mounts;
mod namespaces;
mod process;
mod purge;
mod run;
mod signals;
mod supervise;
#[allow(unsafe_code, reason = "system calls that have no safe wrapper")]
mod sys;
mod terminal;
mod upper;
mod users;
mod vmm;

use clap::Parser;
use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit, umask};
use std::process::ExitCode;

fn main() -> ExitCode {
    sys::unblock_signals();
    // What is stored does not depend on the host program's.
    umask(Mode::WGRP | Mode::WOTH);
    raise_stack_limit();
    if let Some(result) = purge::from_arguments(std::env::args_os()) {
        return cli::conclude(result);
    }
    cli::run(cli::Arguments::parse())
}

/// Raises the stack limit: the host program may run with less than the runner needs. The kernel
/// checks the limit when the stack grows, so this takes effect at once.
fn raise_stack_limit() {
    const ENOUGH: u64 = 8 * 1024 * 1024;
    let less = |limit: Option<u64>| limit.is_some_and(|limit| limit < ENOUGH);
    let mut limit = getrlimit(Resource::Stack);
    if less(limit.current) {
        limit.current = limit.maximum.map(|most| most.min(ENOUGH)).or(Some(ENOUGH));
        // Best effort.
        let _ = setrlimit(Resource::Stack, limit);
        if less(limit.maximum) {
            // Only root may do this.
            (limit.current, limit.maximum) = (Some(ENOUGH), Some(ENOUGH));
            let _ = setrlimit(Resource::Stack, limit);
        }
    }
}
