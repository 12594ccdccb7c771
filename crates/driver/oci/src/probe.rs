//! The probe of an OCI runtime: it runs the agent once in a container like that of a sandbox.

use crate::cgroup;
use crate::runtime::{CALL_LIMIT, NAMES, Runtime, last_error, watch_init};
use crate::settings::Settings;
use crate::spec::{Container, bounds, counts_apart, save};
use crate::stage::{Stage, take_slot, wants_user_namespace};
use crate::sweep::{Leftovers, sweep};
use command_fds::{CommandFdExt, FdMapping};
use msb_driver::{ChildExit, Controllers, KillOnDrop, TrialLock, TrialRecord, Users};
use msb_jail::Slot;
use msb_state::{
    Failure, SandboxConfig, SandboxDir, check_trusted, create_private_dir, remove_tree,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::time::timeout;

/// The first of the descriptors that are passed.
const FIRST_PASSED: i32 = 3;

/// Why a probe did not succeed.
#[derive(Debug)]
enum ProbeError {
    /// The runtime does not work here.
    Runtime(String),
    /// It could not be tried. Never cached.
    Host(Failure),
}

impl From<String> for ProbeError {
    fn from(why: String) -> ProbeError {
        ProbeError::Runtime(why)
    }
}

impl From<Failure> for ProbeError {
    fn from(failure: Failure) -> ProbeError {
        ProbeError::Host(failure)
    }
}

/// Returns what of the users decides whether a runtime works.
fn users_key(settings: &Settings) -> String {
    let mapped = settings.users == Users::Host && wants_user_namespace();
    if mapped { "Mapped".to_owned() } else { format!("{:?}", settings.users) }
}

/// Returns the first usable runtime; the error has the reason for each other one.
pub(crate) async fn find(settings: &Settings, fresh: bool) -> Result<Runtime, Failure> {
    create_private_dir(&settings.cache).map_err(|error| Failure::boot(error.to_string()))?;
    clear_leftover(settings).await;
    let mut errors = Vec::new();
    for runtime in Runtime::candidates() {
        match check(&runtime, settings, fresh).await {
            Ok(()) => return Ok(runtime),
            Err(ProbeError::Runtime(why)) => {
                errors.push(format!("{}: {why}", runtime.program.display()));
            }
            Err(ProbeError::Host(failure)) => return Err(failure),
        }
    }
    if errors.is_empty() {
        errors.push(format!("none of {} is installed", NAMES.join(", ")));
    }
    Err(Failure::no_driver(format!("no OCI runtime works here ({})", errors.join("; "))))
}

/// Removes what a killed probe left behind. A failure is only traced: the next probe reports it.
pub(crate) async fn clear_leftover(settings: &Settings) {
    if !ProbeDir::path(settings).exists() {
        return;
    }
    if let Ok(Some(dir)) = ProbeDir::try_lock(settings)
        && let Err(error) = dir.clear(settings).await
    {
        tracing::warn!(error, "cannot remove what a probe left behind");
    }
}

/// Returns whether a runtime works here, from the cache or by a probe.
async fn check(runtime: &Runtime, settings: &Settings, fresh: bool) -> Result<(), ProbeError> {
    let record = TrialRecord::new(&runtime.program, users_key(settings));
    let record = record.map_err(|error| error.to_string())?;
    check_trusted(&runtime.program).map_err(|error| error.to_string())?;
    let cache = settings.cache.join("oci-runtimes.json");
    let cached = || Some(record.cached(&cache)?.map_err(ProbeError::Runtime));
    if !fresh && let Some(result) = cached() {
        return result;
    }
    let dir = ProbeDir::lock(settings).await?;
    // Of many processes that start at once, the first one probes for all.
    if !fresh && let Some(result) = cached() {
        return result;
    }
    let result = match probe(runtime, settings, &dir).await {
        Ok(()) => Ok(()),
        Err(ProbeError::Runtime(why)) => Err(why),
        Err(error) => return Err(error),
    };
    record.save(&cache, &result);
    result.map_err(ProbeError::Runtime)
}

/// Runs the agent, which prints its version, in a container like that of a sandbox.
async fn probe(runtime: &Runtime, settings: &Settings, dir: &ProbeDir) -> Result<(), ProbeError> {
    dir.clear(settings).await?;
    let result = run_in_root(runtime, settings, dir).await;
    result.and(Ok(dir.clear(settings).await?))
}

async fn run_in_root(
    runtime: &Runtime,
    settings: &Settings,
    dir: &ProbeDir,
) -> Result<(), ProbeError> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let rootfs = dir.dir.path().join("rootfs");
    create_private_dir(&rootfs).map_err(|error| text(&error))?;
    let root = ProbeRoot::mount(settings, rootfs).map_err(|error| text(&error))?;
    let result = run(runtime, settings, &dir.leftovers(), &root).await;
    result.and(Ok(root.unmount().map_err(|error| text(&error))?))
}

async fn run(
    runtime: &Runtime,
    settings: &Settings,
    leftovers: &Leftovers<'_>,
    shown: &ProbeRoot,
) -> Result<(), ProbeError> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let Leftovers { id, root, log, .. } = leftovers;
    let directory = root.parent().ok_or_else(|| "the probe has no directory".to_owned())?;
    leftovers.record(runtime).map_err(|error| text(&error))?;
    let name = "trial".parse().map_err(|error| text(&error))?;
    let config = SandboxConfig::new(name, shown.rootfs.as_path());
    let controllers = Controllers::of(shown.users);
    let (bounds, _) =
        bounds(&config, shown.users, controllers, counts_apart()).map_err(|error| text(&error))?;
    let container = Container {
        controllers,
        bounds,
        config: &config,
        users: shown.users,
        rootfs: &shown.rootfs,
        agent: &shown.agent,
        args: vec!["--version".to_owned()],
        hosts: None,
        cgroup: shown.users.runner_is_root().then(|| format!("/{}", cgroup::name(id))),
    };
    let spec = container.spec().map_err(|error| text(&error))?;
    save(&spec, directory)?;
    let (stderr, pid_file) = (directory.join("stderr"), directory.join("pid"));
    let mut command = runtime.command(&settings.launcher, root, log);
    // As a start calls it, with descriptors; the agent ignores them here.
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| text(&error))?;
    let passed = [read, write].into_iter().zip(FIRST_PASSED..);
    let passed = passed.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.args(["run", "--detach", "--preserve-fds", "2", "--pid-file"]).arg(&pid_file);
    command.arg("--bundle").arg(directory).arg(id);
    command.fd_mappings(passed).map_err(|error| text(&error))?;
    let stderr_file = File::create(&stderr).map_err(|error| text(&error))?;
    command.stdout(Stdio::null()).stderr(stderr_file);
    let child = command.spawn().map_err(|error| text(&error))?;
    let status = KillOnDrop::new(child).wait(CALL_LIMIT).await.map_err(|error| text(&error))?;
    let reason = match status.success() {
        true => match agent_exit(&pid_file).await? {
            ended if ended.code == Some(0) => return Ok(()),
            ended => format!("the agent {}", ended.text),
        },
        false => status.to_string(),
    };
    let printed = fs::read_to_string(&stderr).unwrap_or_default();
    // Usage may follow.
    let printed = printed.lines().map(str::trim).find(|line| !line.is_empty());
    Err(last_error(log).or_else(|| printed.map(str::to_owned)).unwrap_or(reason).into())
}

/// Waits for the exit of the container's process, which the runtime has left to this process.
async fn agent_exit(pid_file: &Path) -> Result<ChildExit, String> {
    let agent = watch_init(pid_file).map_err(|error| error.to_string())?;
    let late = || format!("the agent did not end within {} s", CALL_LIMIT.as_secs());
    timeout(CALL_LIMIT, ChildExit::wait(&agent)).await.map_err(|_| late())
}

/// The users and the root of a probe's container, as a sandbox has them.
#[derive(Debug)]
struct ProbeRoot {
    users: Users,
    rootfs: PathBuf,
    agent: PathBuf,
    stage: Option<(Stage, Slot)>,
}

impl ProbeRoot {
    fn mount(settings: &Settings, rootfs: PathBuf) -> Result<ProbeRoot, Failure> {
        let (users, agent) = (settings.users, settings.agent.clone());
        if users != Users::Host || !wants_user_namespace() {
            return Ok(ProbeRoot { users, rootfs, agent, stage: None });
        }
        let slot = take_slot("trial")?;
        let stage = Stage::mount(slot.start(), &[&rootfs, &agent])?;
        Ok(ProbeRoot {
            users: Users::Mapped(slot.start()),
            rootfs: stage.bind_mapped("root", &rootfs)?,
            agent: stage.bind_file("agent", &agent)?,
            stage: Some((stage, slot)),
        })
    }

    fn unmount(self) -> Result<(), Failure> {
        self.stage.map_or(Ok(()), |(stage, _)| stage.unmount())
    }
}

/// The directory of the probes. The process that holds its lock removes what a killed one left.
#[derive(Debug)]
struct ProbeDir {
    /// Like a sandbox's: a constant id, so its cgroups have constant names.
    dir: SandboxDir,
    _lock: TrialLock,
}

impl ProbeDir {
    fn path(settings: &Settings) -> PathBuf {
        settings.cache.join("trial")
    }

    /// Takes the lock; waits while another process has it.
    async fn lock(settings: &Settings) -> Result<ProbeDir, String> {
        let path = ProbeDir::path(settings);
        ProbeDir::open(&path, TrialLock::take(&path).await?)
    }

    /// Takes the lock; returns `None` if another process has it.
    fn try_lock(settings: &Settings) -> Result<Option<ProbeDir>, String> {
        let path = ProbeDir::path(settings);
        let lock = TrialLock::try_take(&path)?;
        lock.map(|lock| ProbeDir::open(&path, lock)).transpose()
    }

    fn open(path: &Path, lock: TrialLock) -> Result<ProbeDir, String> {
        let dir = SandboxDir::open(path).map_err(|error| error.to_string())?;
        Ok(ProbeDir { dir, _lock: lock })
    }

    fn leftovers(&self) -> Leftovers<'_> {
        let path = self.dir.path();
        Leftovers {
            id: self.dir.id(),
            root: path.join("oci"),
            runtime: path.join("runtime"),
            log: path.join("log"),
        }
    }

    /// Kills and removes leftovers, including processes and cgroups.
    async fn clear(&self, settings: &Settings) -> Result<(), String> {
        sweep(settings, &self.leftovers()).await.map_err(|failure| failure.to_string())?;
        remove_tree(self.dir.path()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn g_killed_probe_is_cleaned_up_live_one_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = Settings {
            cache: scratch.path().join("cache"),
            agent: scratch.path().join("agent"),
            launcher: Vec::new(),
            users: if rustix::process::geteuid().is_root() { Users::Host } else { Users::RootOnly },
        };
        create_private_dir(&settings.cache).unwrap();
        let alive = ProbeDir::try_lock(&settings).unwrap().unwrap();
        create_private_dir(alive.dir.path()).unwrap();
        let alive_id = &alive.dir.id().to_owned();
        if settings.users == Users::Host {
            cgroup::create_for_agent(alive_id, Users::Host);
        }
        let left = || (settings.cache.join("trial").exists(), cgroup::exists(alive_id));
        let before = left();
        assert!(before.0);

        assert!(ProbeDir::try_lock(&settings).unwrap().is_none());
        assert_eq!(
            ProbeDir::lock(&settings).await.unwrap_err(),
            "timed out waiting for another probe"
        );
        clear_leftover(&settings).await;
        assert_eq!(left(), before);

        drop(alive);
        clear_leftover(&settings).await;
        assert_eq!(left(), (false, false));
    }
}
