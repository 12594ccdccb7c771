//! What every task of the runner needs: its runtime, its trace, its children's exit codes.

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::process::ExitCode;

/// Returns whether this process is root, of the host or of a user namespace.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Creates the single-threaded runtime.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("cannot start the runtime: {error}"))
}

/// Sends the trace to standard error, which is the runner's log.
pub(crate) fn start_trace() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MSB_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let trace = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // It would report a failed write on standard error and panic when that fails too: a full disk
    // would end every sandbox that has something to trace.
    let trace = trace.log_internal_errors(false);
    // Fails only if it was started before.
    let _ = trace.with_writer(io::stderr).try_init();
}

/// Waits for a child and returns whether it succeeded, as an exit code.
pub(crate) fn wait(child: Option<Pid>) -> ExitCode {
    loop {
        match waitpid(child, WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) => return exit_code(status.exit_status() == Some(0)),
            _ => return ExitCode::FAILURE,
        }
    }
}

/// Returns the exit code for success or failure.
pub(crate) fn exit_code(succeeded: bool) -> ExitCode {
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
