//! The sandboxes of a home: get, list, remove, clean up.

use crate::companions::Companions;
use crate::config::SandboxConfig;
use crate::control::{Control, Reply, Request};
use crate::dirs::{is_retired, set_aside};
use crate::error::{Error, Failure, Result};
use crate::home::{Home, SandboxDir};
use crate::lock::SandboxLock;
use crate::name::Name;
use crate::records::{Outcome, Started, Status, Stored};
use crate::runner::{log_to, pass_descriptors, run, runner_command};
use crate::socket::connect_in;
use command_fds::FdMapping;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

/// Time limit of a forced removal for the end of the sandbox.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for the runner's cleanup of a killed sandbox.
const SWEEP_LIMIT: Duration = Duration::from_secs(60);
/// Time limit of a removal for the runner to remove the files.
const PURGE_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of other calls for the removal of leftover files.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(1);
/// Size above which the host program leaves the removal of a file to the runner, in bytes.
const LARGE_FILE: u64 = 256 * 1024 * 1024;

/// A sandbox as read from disk.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its directory.
    pub dir: SandboxDir,
    /// Its state.
    pub status: Status,
    /// Its configuration.
    pub config: SandboxConfig,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Its last start.
    pub started: Option<Started>,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
}

impl Info {
    /// Connects to the agent of a running sandbox.
    pub fn connect_agent(&self) -> Result<UnixStream> {
        self.dir.connect_agent()
    }
}

impl SandboxDir {
    /// Connects to the agent of a running sandbox.
    pub fn connect_agent(&self) -> Result<UnixStream> {
        match connect_in(&self.run(), "agent.sock") {
            Err(Error::Io { error: source, .. }) if crate::control::is_absent(&source) => {
                Err(Error::NotRunning(self.name().clone()))
            }
            result => result,
        }
    }
}

/// Reads a sandbox, and cleans it up if its runner was killed.
pub fn get(home: &Home, name: &Name, companions: Option<&Companions>) -> Result<Info> {
    let dir = home.sandbox(name);
    loop {
        let lock = open_existing(&dir)?;
        let running = lock.is_running()?;
        if !running && let Some(companions) = companions {
            tidy(&dir, &lock, companions)?;
        }
        let stored = dir.read_config()?;
        let (started, outcome) = (dir.read_started()?, dir.read_outcome()?);
        if running != lock.is_running()? || !lock.is_current() {
            // It changed in the meantime.
            continue;
        }
        let Stored { config, created_ms, .. } =
            stored.ok_or_else(|| Error::NotFound(name.clone()))?;
        let status = match (&started, &outcome) {
            _ if running => Status::Running,
            (None, _) => Status::Created,
            (Some(_), Some(outcome)) => outcome.status(),
            (Some(_), None) => Status::Crashed,
        };
        let outcome = outcome.filter(|_| !running);
        return Ok(Info { dir, status, config, created_ms, started, outcome });
    }
}

/// Lists all sandboxes by name, and cleans up those whose runner was killed. A sandbox that cannot
/// be read is listed with its error.
pub fn list(home: &Home, companions: Option<&Companions>) -> Result<Vec<(Name, Result<Info>)>> {
    let mut found = Vec::new();
    for name in names(home, companions)? {
        match get(home, &name, companions) {
            // Removed in the meantime, or not complete.
            Err(Error::NotFound(_)) => {}
            result => found.push((name, result)),
        }
    }
    Ok(found)
}

/// Cleans up every sandbox whose runner was killed.
pub fn sweep(home: &Home, companions: &Companions) -> Result<()> {
    list(home, Some(companions))?.into_iter().try_for_each(|(_, info)| info.map(drop))
}

/// Removes a sandbox; a running one only with `force`.
pub fn remove(home: &Home, name: &Name, force: bool, companions: &Companions) -> Result<()> {
    let dir = home.sandbox(name);
    // The creator of an attached sandbox, or of one that is killed during its start, removes it as
    // well.
    let mut ended = false;
    let gone = |ended| if ended { Ok(()) } else { Err(Error::NotFound(name.clone())) };
    loop {
        let lock = match open_existing(&dir) {
            Err(Error::NotFound(_)) => return gone(ended),
            opened => opened?,
        };
        lock.maintenance()?;
        if !lock.is_current() {
            continue;
        }
        if !lock.is_running()? {
            let unmade = dir.read_config().is_ok_and(|stored| stored.is_none());
            discard(&dir, &lock, companions)?;
            return if unmade { gone(ended) } else { Ok(()) };
        }
        if !force {
            return Err(Error::Running(name.clone()));
        }
        drop(lock);
        match Control::connect(&dir) {
            Ok(control) => match control.request(&Request::Kill, Some(REMOVE_TIMEOUT))? {
                Reply::Ended { .. } => ended = true,
                reply => {
                    return Err(Failure::boot(format!("the runner answered {reply:?}")).into());
                }
            },
            // It is starting or ending, without an event to wait for.
            Err(Error::NotRunning(_)) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
}

fn names(home: &Home, companions: Option<&Companions>) -> Result<Vec<Name>> {
    let path = home.sandboxes();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    let mut names: Vec<Name> = Vec::new();
    let mut retired = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_retired(&name) {
            retired.push(entry.path());
        }
        names.extend(name.parse::<Name>().ok());
    }
    // Leftovers of killed removals; concurrent ones are not waited for.
    retired.retain(|path| !remove_known(path));
    if let Some(companions) = companions.filter(|_| !retired.is_empty()) {
        let _ = purge(&retired, false, LEFTOVER_LIMIT, companions);
    }
    names.sort();
    Ok(names)
}

fn open_existing(dir: &SandboxDir) -> Result<SandboxLock> {
    match SandboxLock::open(&dir.lock()) {
        Err(Error::Io { error: source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Err(Error::NotFound(dir.name().clone()))
        }
        result => result,
    }
}

fn is_there(path: &std::path::Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Cleans up a sandbox that is not running, unless another process does.
fn tidy(dir: &SandboxDir, lock: &SandboxLock, companions: &Companions) -> Result<()> {
    let orphaned = match dir.read_config() {
        Ok(Some(stored)) => !stored.config.detached && stored.creator.is_gone(),
        Ok(None) => true,
        // An unreadable record may be of a later version: keep it.
        Err(_) => false,
    };
    if !orphaned && !is_there(&dir.run()) {
        return Ok(());
    }
    if !lock.try_maintenance()? {
        return Ok(());
    }
    let unchanged = lock.is_current() && !lock.is_running()?;
    let result = match unchanged {
        true if orphaned => discard(dir, lock, companions),
        true => clean_leftovers(dir, lock, companions),
        false => Ok(()),
    };
    lock.end_maintenance()?;
    result
}

/// Runs the runner's sweep, which kills and removes what a sandbox left on the host. The caller
/// holds the maintenance lock.
pub(crate) fn clean_leftovers(
    dir: &SandboxDir,
    lock: &SandboxLock,
    companions: &Companions,
) -> Result<()> {
    if !is_there(&dir.run()) {
        return Ok(());
    }
    run_on_directory("sweep", dir, lock, companions)
}

fn run_on_directory(
    command_name: &str,
    dir: &SandboxDir,
    lock: &SandboxLock,
    companions: &Companions,
) -> Result<()> {
    let mut command = runner_command(companions);
    command.arg(command_name).arg("--dir").arg(dir.path());
    log_to(&mut command, &dir.runner_log())?;
    let fds = vec![FdMapping { parent_fd: lock.duplicate()?, child_fd: 3 }];
    pass_descriptors(&mut command, companions, fds)?;
    let why = match run(command, &companions.runner, Some(SWEEP_LIMIT))? {
        Some(true) => return Ok(()),
        Some(false) => io::Error::other("the runner failed; see runner.log in it"),
        None => io::Error::new(io::ErrorKind::TimedOut, "timed out waiting for the runner"),
    };
    Err(Error::io("clean up", dir.path(), why))
}

/// Removes a sandbox that is not running. The caller holds the maintenance lock.
fn discard(dir: &SandboxDir, lock: &SandboxLock, companions: &Companions) -> Result<()> {
    clean_leftovers(dir, lock, companions)?;
    let Some(aside) = set_aside(dir.path())? else { return Ok(()) };
    if remove_known(&aside) {
        return Ok(());
    }
    match purge(&[aside], true, PURGE_LIMIT, companions)? {
        Some(true) => Ok(()),
        Some(false) => {
            let error = io::Error::other("the runner cannot remove its files");
            Err(Error::io("remove", dir.path(), error))
        }
        None => Err(Error::StillRemoving(dir.name().clone(), PURGE_LIMIT)),
    }
}

/// Removes a directory that was set aside, and that guests may have filled.
pub(crate) fn remove_aside(aside: &Path, companions: &Companions) -> Result<()> {
    let why = match purge(&[aside.to_path_buf()], true, PURGE_LIMIT, companions)? {
        Some(true) => return Ok(()),
        Some(false) => io::Error::other("the runner cannot remove its files"),
        None => io::Error::new(io::ErrorKind::TimedOut, "it takes long, and continues"),
    };
    Err(Error::io("remove", aside, why))
}

/// Frees the name of a sandbox that is not running. Its files are removed now if that is quick,
/// else by a later call. The caller holds the maintenance lock.
pub(crate) fn replace(dir: &SandboxDir, companions: &Companions) -> Result<()> {
    if let Some(aside) = set_aside(dir.path())?
        && !remove_known(&aside)
    {
        let _ = purge(&[aside], false, LEFTOVER_LIMIT, companions);
    }
    Ok(())
}

/// Returns whether the directory of a sandbox has only its lock.
pub(crate) fn is_blank(dir: &SandboxDir) -> Result<bool> {
    let failed = |error| Error::io("read", dir.path(), error);
    for entry in fs::read_dir(dir.path()).map_err(failed)? {
        if Some(entry.map_err(failed)?.file_name().as_os_str()) != dir.lock().file_name() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a retired directory by the names that the library uses. Returns false if more is left.
///
/// The host program enters no directory that a guest can have filled, and waits for no large file:
/// the runner does.
fn remove_known(aside: &Path) -> bool {
    const FILES: [&str; 14] = [
        "lock",
        "config.json",
        "config.json.new",
        "started.json",
        "started.json.new",
        "outcome.json",
        "outcome.json.new",
        "agent.log",
        "agent.log.old",
        "runner.log",
        "run",
        "disk",
        "layers.img",
        "layers.new",
    ];
    for name in ["upper", "work", "layers", "rootfs", "bundle", "log"] {
        let _ = fs::remove_dir(aside.join(name));
    }
    for name in FILES {
        let path = aside.join(name);
        let large = |found: fs::Metadata| found.blocks().saturating_mul(512) > LARGE_FILE;
        if !fs::symlink_metadata(&path).is_ok_and(large) {
            let _ = fs::remove_file(path);
        }
    }
    match fs::remove_dir(aside) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Runs the runner's purge of retired directories and returns whether it succeeded; `None` on
/// timeout, when the removal continues.
///
/// Without `wait` it skips those that another process is removing.
fn purge(
    retired: &[PathBuf],
    wait: bool,
    limit: Duration,
    companions: &Companions,
) -> Result<Option<bool>> {
    let mut command = runner_command(companions);
    command.arg("purge").args(wait.then_some("--wait")).arg("--").args(retired);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    run(command, &companions.runner, Some(limit))
}

/// Removes a sandbox whose start failed.
pub(crate) fn discard_unless_running(dir: &SandboxDir, companions: &Companions) -> Result<()> {
    let lock = open_existing(dir)?;
    lock.maintenance()?;
    if lock.is_current() && !lock.is_running()? {
        discard(dir, &lock, companions)?;
    }
    Ok(())
}
