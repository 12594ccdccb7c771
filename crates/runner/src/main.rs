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
use std::process::ExitCode;

fn main() -> ExitCode {
    signals::unblock();
    cli::run(cli::Arguments::parse())
}
