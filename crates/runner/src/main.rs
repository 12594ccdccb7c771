//! `msb-runner`: the process that starts one sandbox, watches it, and cleans up after it.
//!
//! The library starts it and goes on; it lives as long as the sandbox does. It owns the lock of
//! the sandbox's directory, the namespaces in which the root filesystem is assembled, the machine
//! that a driver started, and the control socket. It is not in the way of the data: the library
//! talks to the agent directly.
//!
//! Invariant: the lock is dropped last. Whoever sees it free sees a sandbox of which nothing is
//! left on the host but its directory; whatever kills the runner takes the machine along, and the
//! next call of the library cleans up the rest.

#![deny(unsafe_code)]

mod agent_link;
mod boot;
mod cleanup;
mod cli;
mod console;
mod control;
mod creator;
#[cfg(test)]
mod fuzzing;
mod heart;
mod image;
mod inherited;
mod life;
mod log;
mod namespaces;
mod purge;
mod run;
mod signals;
mod supervise;
#[allow(unsafe_code, reason = "the system calls that have no safe wrapper")]
mod sys;
mod upper;
mod users;
mod vmm;

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    signals::unblock();
    raise_stack_limit();
    if let Some(result) = purge::from_arguments(std::env::args_os()) {
        return cli::conclude(result);
    }
    cli::run(cli::Arguments::parse())
}

/// The host program may run with less stack than the runner needs. The kernel looks at the limit
/// when the stack grows, so that this holds for the process as it is.
fn raise_stack_limit() {
    const ENOUGH: u64 = 8 * 1024 * 1024;
    let less = |limit: Option<u64>| limit.is_some_and(|limit| limit < ENOUGH);
    let mut limit = getrlimit(Resource::Stack);
    if less(limit.current) {
        limit.current = limit.maximum.map(|most| most.min(ENOUGH)).or(Some(ENOUGH));
        // What cannot be raised has to do.
        let _ = setrlimit(Resource::Stack, limit);
        if less(limit.maximum) {
            // Root may do this, others not.
            (limit.current, limit.maximum) = (Some(ENOUGH), Some(ENOUGH));
            let _ = setrlimit(Resource::Stack, limit);
        }
    }
}
