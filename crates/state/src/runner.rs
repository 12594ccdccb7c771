//! How `msb-runner` is called: its environment, its log, and the descriptors that it inherits.

use crate::companions::Companions;
use crate::control::wait_readable;
use crate::error::{Error, Result};
use command_fds::{CommandFdExt, FdMapping};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The variables of the host program's environment that the runner sees.
const ENVIRONMENT: &[&str] = &[
    "PATH",
    "LD_LIBRARY_PATH",
    "MSB_CONTAINER_USERNS",
    "MSB_OCI_RUNTIME",
    "MSB_ID_RANGE",
    "MSB_JAIL_LOG",
    "MSB_IMAGE_MAX_BYTES",
    "MSB_IMAGE_MAX_ENTRIES",
    "MSB_IMAGE_MAX_RATIO",
    "MSB_KERNEL",
    "MSB_KRUN_UNCHECKED",
    "MSB_LIBKRUNFW",
    "MSB_LOG",
    "MSB_RUNSC",
];

/// Size at which a log is truncated, in bytes.
const LOG_LIMIT: u64 = 1024 * 1024;

/// Returns a command of the runner, with a minimal environment.
pub(crate) fn runner_command(companions: &Companions) -> Command {
    let mut command = Command::new(&companions.runner);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    for key in ENVIRONMENT {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command
}

/// Sends what the runner prints to a log.
pub(crate) fn log_to(command: &mut Command, path: &Path) -> Result<()> {
    let log = open_log(path)?;
    let copy = log.try_clone().map_err(|error| Error::io("duplicate", path, error))?;
    command.stdout(log).stderr(copy);
    Ok(())
}

/// Opens a log to append to; truncates one that has grown large.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    let too_long = fs::metadata(path).is_ok_and(|found| found.len() > LOG_LIMIT);
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.open(path).map_err(|error| Error::io("open", path, error))?;
    if too_long {
        file.set_len(0).map_err(|error| Error::io("shorten", path, error))?;
    }
    Ok(file)
}

/// Passes descriptors to the runner. They stay open in the command until it is dropped.
pub(crate) fn pass_descriptors(
    command: &mut Command,
    companions: &Companions,
    fds: Vec<FdMapping>,
) -> Result<()> {
    let failed =
        |error| Error::io("pass descriptors to", &companions.runner, io::Error::other(error));
    command.fd_mappings(fds).map(drop).map_err(failed)
}

/// Waits for a child's exit and returns whether it reported success; kills it and returns `None`
/// on timeout. Its own children survive that.
pub(crate) fn run(
    mut command: Command,
    program: &Path,
    limit: Option<Duration>,
) -> Result<Option<bool>> {
    let failed = |error: io::Error| Error::io("wait for", program, error);
    let mut child = command.spawn().map_err(|error| Error::io("run", program, error))?;
    drop(command);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Without pidfd_open (before Linux 5.3) there is no limit.
    if let (Some(limit), Some(pid)) = (limit, pid)
        && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
    {
        match wait_readable(process.as_fd(), Some(Instant::now() + limit)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(None);
            }
            exited => exited.map_err(failed)?,
        }
    }
    match child.wait() {
        Ok(status) => Ok(Some(status.success())),
        // The host program ignores SIGCHLD, or reaps every child itself.
        Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => Ok(Some(true)),
        Err(error) => Err(failed(error)),
    }
}

/// Returns a descriptor that polls readable once this process has ended.
///
/// A pidfd, since neither a pid nor a pipe is enough: the first is reused, and the second stays
/// open in a forked child of the host program. Without pidfd_open (before Linux 5.3, or under an
/// older valgrind) it is a pipe.
pub(crate) fn own_lifeline() -> std::result::Result<OwnedFd, Errno> {
    static LIFELINE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Err(Errno::NOSYS) => {}
        result => return result,
    }
    if LIFELINE.get().is_none() {
        // Another thread's pipe is equivalent.
        let _ = LIFELINE.set(pipe_with(PipeFlags::CLOEXEC)?);
    }
    let (read, _) = LIFELINE.get().ok_or(Errno::IO)?;
    fcntl_dupfd_cloexec(read, 3)
}
