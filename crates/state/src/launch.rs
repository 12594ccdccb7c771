//! The start of a sandbox, until it is ready.

use crate::bounds::Protection;
use crate::clock::now_ms;
use crate::companions::Companions;
use crate::config::{SandboxConfig, jail_is_required};
use crate::control::{Control, Request, wait_readable};
use crate::dirs::create_private_dir;
use crate::error::{Error, Failure, Result};
use crate::home::{Home, SandboxDir};
use crate::lock::SandboxLock;
use crate::records::{Creator, Started, Stored};
use crate::report::{HostReport, Isolation};
use crate::runner::{log_to, own_lifeline, pass_descriptors, run, runner_command};
use crate::store::{clean_leftovers, discard_unless_running, is_blank, replace};
use crate::volumes::{check_mounts, check_stored, prepare_mounts};
use command_fds::FdMapping;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Time limit for the end of a sandbox that is being replaced.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for the runner's status beyond the boot timeout.
const STATUS_GRACE: Duration = Duration::from_secs(15);
/// Bytes of the runner's log that go into an error.
const LOG_TAIL: u64 = 800;
/// How [`create`] treats an existing sandbox of the name.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    /// Kill and remove it.
    pub replace: bool,
}

/// The record that the runner writes to its status pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StatusRecord {
    /// The agent answers.
    Ready(Ready),
    /// The start failed; everything is cleaned up, and the lock is free.
    Error(Failure),
}

/// A booted sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The driver in use.
    pub driver: String,
    /// Its isolation.
    pub isolation: Isolation,
    /// Its protection.
    #[serde(default)]
    pub protection: Protection,
    /// The runner's pid, for users.
    pub runner_pid: u32,
}

/// A sandbox that is being started. Dropping this does not cancel the start.
#[derive(Debug)]
pub struct Pending {
    status: OwnedFd,
    dir: SandboxDir,
    fresh: bool,
    companions: Companions,
    deadline: Instant,
}

/// Creates a sandbox and starts it, without waiting until it is ready.
pub fn create(
    home: &Home,
    config: SandboxConfig,
    options: CreateOptions,
    companions: &Companions,
) -> Result<Pending> {
    let mut config = config.validated()?;
    let dir = home.sandbox(&config.name);
    let creator = Creator::this_process()?;
    create_private_dir(&home.sandboxes())?;
    // Keeps its volumes until its record names them.
    let volumes = prepare_mounts(home, &mut config.mounts)?;
    let lock = claim_name(&dir, options, companions)?;
    let stored = Stored { config, created_ms: now_ms(), creator };
    dir.write_config(&stored)?;
    drop(volumes);
    launch(home, dir, lock, &stored.config, companions, true)
}

/// Refuses a new sandbox that cannot be created, as far as that is known without its image: for its
/// configuration or its name.
pub fn check_new(home: &Home, config: &SandboxConfig, options: CreateOptions) -> Result<()> {
    config.check()?;
    check_mounts(home, &config.mounts)?;
    if options.replace {
        return Ok(());
    }
    let dir = home.sandbox(&config.name);
    let lock = match SandboxLock::open(&dir.lock()) {
        Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    lock.maintenance()?;
    match lock.is_current() && is_taken(&dir.read_config(), lock.is_running()?) {
        true => Err(Error::AlreadyExists(dir.name().clone())),
        false => Ok(()),
    }
}

/// Refuses a new sandbox whose driver cannot be used or does not support its configuration.
pub fn check_driver(home: &Home, config: &SandboxConfig, companions: &Companions) -> Result<()> {
    let runner = &companions.runner;
    let failed = |error: io::Error| Error::io("run", runner, error);
    let text = serde_json::to_string(config).map_err(|error| failed(error.into()))?;
    let mut command = runner_command(companions);
    command.arg("check").arg("--home").arg(home.path()).arg("--agent").arg(&companions.agent);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // Its output says more than a broken pipe.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    match serde_json::from_slice::<Option<Failure>>(&output.stdout) {
        Ok(None) => Ok(()),
        Ok(Some(failure)) => Err(failure.into()),
        Err(_) => {
            let stderr = String::from_utf8_lossy(&output.stderr);
            Err(Failure::boot(format!("{} check failed: {stderr}", runner.display())).into())
        }
    }
}

/// Starts an existing sandbox with its files, without waiting until it is ready.
pub fn start(home: &Home, name: &crate::Name, companions: &Companions) -> Result<Pending> {
    let dir = home.sandbox(name);
    loop {
        let lock = match SandboxLock::open(&dir.lock()) {
            Ok(lock) => lock,
            Err(Error::Io { error: source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(name.clone()));
            }
            Err(error) => return Err(error),
        };
        lock.maintenance()?;
        if !lock.is_current() {
            continue;
        }
        let Some(mut stored) = dir.read_config()? else {
            return Err(Error::NotFound(name.clone()));
        };
        if !lock.try_running()? {
            return Err(Error::Running(name.clone()));
        }
        clean_leftovers(&dir, &lock, companions)?;
        stored.config = stored.config.validated()?;
        check_stored(home, &stored.config.mounts)?;
        stored.config.require_jail |= jail_is_required()?;
        stored.creator = Creator::this_process()?;
        dir.write_config(&stored)?;
        return launch(home, dir, lock, &stored.config, companions, false);
    }
}

/// Reports the drivers and the jail's walls of this host.
pub fn doctor(home: &Home, companions: &Companions) -> Result<HostReport> {
    let mut command = runner_command(companions);
    command.arg("probe").arg("--home").arg(home.path()).arg("--agent").arg(&companions.agent);
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| Error::io("run", &companions.runner, error))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Failure::boot(format!("{} probe failed: {stderr}", companions.runner.display())).into()
    })
}

/// Claims a name for a new sandbox: takes both locks, and removes an earlier sandbox if allowed.
fn claim_name(
    dir: &SandboxDir,
    options: CreateOptions,
    companions: &Companions,
) -> Result<SandboxLock> {
    let deadline = Instant::now() + REPLACE_TIMEOUT;
    loop {
        create_private_dir(dir.path())?;
        let lock = match SandboxLock::open(&dir.lock()) {
            Ok(lock) => lock,
            // Removed between the two steps.
            Err(Error::Io { error: source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(error),
        };
        lock.maintenance()?;
        if !lock.is_current() {
            continue;
        }
        let stored = dir.read_config();
        if lock.try_running()? {
            if is_taken(&stored, false) && !options.replace {
                return Err(Error::AlreadyExists(dir.name().clone()));
            }
            clean_leftovers(dir, &lock, companions)?;
            if is_blank(dir)? {
                return Ok(lock);
            }
            replace(dir, companions)?;
            continue;
        }
        if is_taken(&stored, true) && !options.replace {
            return Err(Error::AlreadyExists(dir.name().clone()));
        }
        drop(lock);
        kill_running(dir, deadline)?;
    }
}

/// Whether a sandbox keeps its name from a new one, by its record and whether it runs.
fn is_taken(stored: &Result<Option<Stored>>, running: bool) -> bool {
    match stored {
        Ok(Some(stored)) => stored.config.detached || (running && !stored.creator.is_gone()),
        Ok(None) => running,
        // It may be of a later version.
        Err(_) => true,
    }
}

/// Kills a running sandbox and waits until its lock is free.
fn kill_running(dir: &SandboxDir, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::TimedOut(dir.name().clone(), REPLACE_TIMEOUT));
    }
    match Control::connect(dir) {
        Ok(control) => control.request(&Request::Kill, Some(left)).map(drop),
        Err(Error::NotRunning(_)) => {
            // It holds the lock but does not listen: it is starting or ending, without an event to
            // wait for.
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn launch(
    home: &Home,
    dir: SandboxDir,
    lock: SandboxLock,
    config: &SandboxConfig,
    companions: &Companions,
    fresh: bool,
) -> Result<Pending> {
    prepare(home, &dir)?;
    let status = spawn_runner(&dir, &lock, config.detached, companions);
    match status {
        Ok(status) => {
            lock.end_maintenance()?;
            let deadline = Instant::now() + config.boot_timeout() + STATUS_GRACE;
            Ok(Pending { status, dir, fresh, companions: companions.clone(), deadline })
        }
        Err(error) => {
            drop(lock);
            if fresh {
                // Report the first error.
                let _ = discard_unless_running(&dir, companions);
            }
            Err(error)
        }
    }
}

fn prepare(home: &Home, dir: &SandboxDir) -> Result<()> {
    dir.write_started(&Started { at_ms: now_ms(), machine: None, protection: None })?;
    let outcome = dir.outcome();
    match fs::remove_file(&outcome) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &outcome, error));
        }
        _ => {}
    }
    for path in [dir.rootfs(), dir.bundle()] {
        fs::create_dir_all(&path).map_err(|error| Error::io("create directory", &path, error))?;
    }
    home.prepare_run(dir)
}

fn spawn_runner(
    dir: &SandboxDir,
    lock: &SandboxLock,
    detached: bool,
    companions: &Companions,
) -> Result<OwnedFd> {
    let runner = &companions.runner;
    let (status, status_write) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| Error::io("make a pipe to", runner, error))?;
    let mut fds = vec![
        FdMapping { parent_fd: lock.duplicate()?, child_fd: 3 },
        FdMapping { parent_fd: status_write, child_fd: 4 },
    ];
    let mut command = runner_command(companions);
    command.arg("run").arg("--dir").arg(dir.path()).arg("--agent").arg(&companions.agent);
    if !detached {
        let creator = own_lifeline()
            .map_err(|error| Error::io("open a descriptor of this process for", runner, error))?;
        fds.push(FdMapping { parent_fd: creator, child_fd: 5 });
        command.arg("--attached");
    }
    log_to(&mut command, &dir.runner_log())?;
    pass_descriptors(&mut command, companions, fds)?;
    if run(command, runner, None)? == Some(true) {
        Ok(status)
    } else {
        Err(Failure::boot(format!("the runner did not start: {}", log_tail(dir))).into())
    }
}

/// Returns the end of the runner's log.
fn log_tail(dir: &SandboxDir) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(dir.runner_log())?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if !text.trim().is_empty() => text,
        _ => "it left no message".to_owned(),
    }
}

impl Pending {
    /// Returns the sandbox's directory.
    pub fn dir(&self) -> &SandboxDir {
        &self.dir
    }

    /// Waits for the runner's status.
    pub fn wait(self) -> Result<Ready> {
        let mut record = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match wait_readable(self.status.as_fd(), Some(self.deadline)) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let failure = Failure::boot("timed out waiting for the runner");
                    return Err(self.failed(failure));
                }
                Err(error) => return Err(Error::io("wait for", self.dir.path(), error)),
                Ok(()) => {}
            }
            match rustix::io::read(&self.status, &mut chunk) {
                Ok(0) => return self.finish(&record),
                Ok(length) => record.extend(chunk.iter().take(length)),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::io("read the status of", self.dir.path(), error)),
            }
            if record.ends_with(b"\n") {
                return self.finish(&record);
            }
        }
    }

    /// Returns the result from the bytes read from the descriptor up to a newline or its end, for
    /// callers that wait by themselves. After a failure it blocks for the cleanup.
    pub fn finish(self, record: &[u8]) -> Result<Ready> {
        match serde_json::from_slice(record) {
            Ok(StatusRecord::Ready(ready)) => Ok(ready),
            Ok(StatusRecord::Error(failure)) => Err(self.failed(failure)),
            Err(_) => {
                let message = format!(
                    "sandbox {}: the runner died during the start: {}",
                    self.dir.name(),
                    log_tail(&self.dir)
                );
                Err(self.failed(Failure::boot(message)))
            }
        }
    }

    fn failed(self, failure: Failure) -> Error {
        if self.fresh {
            // A sandbox that was never ready leaves nothing behind. Report the failure of the
            // start; a later call sweeps what cannot be removed now.
            let _ = discard_unless_running(&self.dir, &self.companions);
        }
        failure.into()
    }
}

impl AsFd for Pending {
    /// Readable when the runner has written its status; see [`Pending::finish`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirs::retire;

    #[test]
    fn g_name_can_be_claimed_during_its_removal() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path()).unwrap();
        create_private_dir(&home.sandboxes()).unwrap();
        let dir = home.sandbox(&"claimed".parse().unwrap());
        let no_companions =
            Companions { runner: "/nonexistent".into(), agent: "/nonexistent".into() };
        let claim_and_remove = || {
            for _ in 0..500 {
                let lock =
                    claim_name(&dir, CreateOptions { replace: true }, &no_companions).unwrap();
                retire(dir.path()).unwrap();
                drop(lock);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(claim_and_remove);
            }
        });
    }
}
