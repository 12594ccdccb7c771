//! The OCI runtime: which one is usable, and how it is called.

use crate::cgroup;
use crate::machine::Settings;
use crate::spec::{AGENT, Container, bounds, counts_apart};
use crate::stage::{Stage, take_slot, wants_user_namespace};
use crate::sweep::{Remains, sweep};
use msb_driver::{Bound, Users};
use msb_jail::Slot;
use msb_state::{
    Failure, SandboxConfig, SandboxDir, check_trusted, create_private_dir, now_ms, remove_tree,
    write_atomically,
};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// In which order the runtimes are looked for: the fastest first.
const NAMES: [&str; 3] = ["crun", "runc", "youki"];
/// Where an ordinary user's search path often does not lead.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// How long a call of the runtime may take.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long a failed trial is remembered: a passed one holds until the next boot, a failure may
/// have been mended meanwhile.
const FAILURE_HOLDS_MS: u64 = 60_000;
/// How long others may be trying runtimes out before that is a failure, and how often to look.
const TURN_LIMIT: Duration = Duration::from_secs(60);
const TURN_PAUSE: Duration = Duration::from_millis(5);

/// A runtime's program.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) program: PathBuf,
}

/// What a trial of a runtime showed, and what it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    program: PathBuf,
    modified: (i64, i64),
    boot: String,
    users: String,
    at_ms: u64,
    error: Option<String>,
}

impl Runtime {
    /// The runtimes to try, best first.
    pub(crate) fn candidates() -> Vec<Runtime> {
        let programs: Vec<PathBuf> = match std::env::var_os("MSB_OCI_RUNTIME") {
            Some(named) if !named.is_empty() => {
                // A bare name that is nowhere to be found stays, for the message.
                vec![search(&named).unwrap_or_else(|| named.into())]
            }
            _ => NAMES.iter().filter_map(|name| search(OsStr::new(name))).collect(),
        };
        programs.into_iter().map(|program| Runtime { program }).collect()
    }

    /// A command of the runtime. The launcher ties its life to the runner's, so that no half-made
    /// container appears after a sweep.
    pub(crate) fn command(&self, launcher: &[PathBuf], root: &Path, log: &Path) -> Command {
        let mut command = match launcher {
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
            [] => Command::new(&self.program),
        };
        command.arg("--root").arg(root).arg("--log").arg(log).args(["--log-format", "json"]);
        command.stdin(Stdio::null());
        command
    }

    /// Whether no other user can put another program in its place.
    pub(crate) fn is_trusted(&self) -> bool {
        check_trusted(&self.program).is_ok()
    }

    /// Whether it works here, as far as remembered, else by trial.
    async fn check(&self, settings: &Settings, fresh: bool) -> Result<(), String> {
        let mut trial = self.describe(settings).map_err(|error| error.to_string())?;
        check_trusted(&self.program).map_err(|error| error.to_string())?;
        let cache = settings.cache.join("oci-runtimes.json");
        let remembered = || {
            let known = known(&cache).into_iter().find(|known| known.holds_for(&trial))?;
            Some(known.error.map_or(Ok(()), Err))
        };
        if !fresh && let Some(result) = remembered() {
            return result;
        }
        let place = Place::take(settings).await?;
        // Of many that begin at once, the first tries it out for all.
        if !fresh && let Some(result) = remembered() {
            return result;
        }
        trial.error = self.try_out(settings, &place).await.err();
        let mut known = known(&cache);
        known.retain(|known| known.program != trial.program);
        known.push(trial.clone());
        // A trial that is not remembered costs a moment at the next start, nothing else.
        if let Ok(bytes) = serde_json::to_vec(&known) {
            let _ = write_atomically(&cache, &bytes);
        }
        trial.error.map_or(Ok(()), Err)
    }

    fn describe(&self, settings: &Settings) -> std::io::Result<Trial> {
        let found = fs::metadata(&self.program)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Trial {
            program: self.program.clone(),
            modified: (found.mtime(), found.mtime_nsec()),
            boot: boot.trim().to_owned(),
            users: users_of_trial(settings),
            at_ms: now_ms(),
            error: None,
        })
    }

    /// Runs the agent, which says its version, in a container like that of a sandbox.
    async fn try_out(&self, settings: &Settings, place: &Place) -> Result<(), String> {
        place.clear(settings).await?;
        let result = self.run_trial(settings, place).await;
        result.and(place.clear(settings).await)
    }

    async fn run_trial(&self, settings: &Settings, place: &Place) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let remains = place.remains();
        let directory = place.dir.path();
        let rootfs = directory.join("rootfs");
        create_private_dir(&rootfs).map_err(|error| text(&error))?;
        let shown = Shown::new(settings, rootfs).map_err(|error| text(&error))?;
        let result = self.run_shown(settings, &remains, &shown).await;
        result.and(shown.clear().map_err(|error| text(&error)))
    }

    async fn run_shown(
        &self,
        settings: &Settings,
        remains: &Remains<'_>,
        shown: &Shown,
    ) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let Remains { id, root, log, .. } = remains;
        let directory = root.parent().ok_or("the trial has no directory")?;
        remains.record(self).map_err(|error| text(&error))?;
        let name = "trial".parse().map_err(|error| text(&error))?;
        let config = SandboxConfig::new(name, shown.rootfs.as_path());
        let controllers = cgroup::Controllers::of(shown.users);
        let (bounds, _) = bounds(&config, shown.users, controllers, counts_apart())
            .map_err(|error| text(&error))?;
        let container = Container {
            controllers,
            bounds,
            config: &config,
            users: shown.users,
            rootfs: &shown.rootfs,
            agent: &shown.agent,
            args: vec![AGENT.to_owned(), "--version".to_owned()],
            hosts: None,
            cgroup: shown.users.runner_is_root().then(|| format!("/{}", cgroup::name(id))),
        };
        let spec = container.spec().map_err(|error| text(&error))?;
        spec.save(directory.join("config.json")).map_err(|error| text(&error))?;
        let said = directory.join("said");
        let mut command = self.command(&settings.launcher, root, log);
        command.arg("run").arg("--bundle").arg(directory).arg(id);
        let said_file = File::create(&said).map_err(|error| text(&error))?;
        command.stdout(Stdio::null()).stderr(said_file);
        let child = command.spawn().map_err(|error| text(&error))?;
        let status = Bound::new(child).wait(CALL_LIMIT).await.map_err(|error| text(&error))?;
        if status.success() {
            return Ok(());
        }
        Err(last_error(log)
            .or_else(|| fs::read_to_string(&said).ok().filter(|said| !said.trim().is_empty()))
            .unwrap_or_else(|| status.to_string())
            .trim()
            .to_owned())
    }
}

/// What a trial has for its container.
#[derive(Debug)]
struct Shown {
    users: Users,
    rootfs: PathBuf,
    agent: PathBuf,
    stage: Option<(Stage, Slot)>,
}

impl Shown {
    /// The users and the mounts that a sandbox's container has.
    fn new(settings: &Settings, rootfs: PathBuf) -> Result<Shown, Failure> {
        let (users, agent) = (settings.users, settings.agent.clone());
        if users != Users::Host || !wants_user_namespace() {
            return Ok(Shown { users, rootfs, agent, stage: None });
        }
        let slot = take_slot("trial")?;
        let stage = Stage::set(slot.start(), &[&rootfs, &agent])?;
        Ok(Shown {
            users: Users::Mapped(slot.start()),
            rootfs: stage.show("root", &rootfs)?,
            agent: stage.show_file("agent", &agent)?,
            stage: Some((stage, slot)),
        })
    }

    fn clear(self) -> Result<(), Failure> {
        self.stage.map_or(Ok(()), |(stage, _)| stage.clear())
    }
}

/// What of the users decides whether a runtime works.
fn users_of_trial(settings: &Settings) -> String {
    let mapped = settings.users == Users::Host && wants_user_namespace();
    if mapped { "Mapped".to_owned() } else { format!("{:?}", settings.users) }
}

/// Where runtimes are tried out. One process at a time has it, and removes what one that was killed
/// left there.
#[derive(Debug)]
struct Place {
    /// As of a sandbox: its id is always the same, and so are the names of its control groups.
    dir: SandboxDir,
    _lock: File,
}

impl Place {
    fn path(settings: &Settings) -> PathBuf {
        settings.cache.join("trial")
    }

    /// Waits for it.
    async fn take(settings: &Settings) -> Result<Place, String> {
        let turn = async {
            loop {
                if let Some(place) = Place::try_take(settings)? {
                    return Ok(place);
                }
                sleep(TURN_PAUSE).await;
            }
        };
        let late = || "another process does not come to an end with it".to_owned();
        timeout(TURN_LIMIT, turn).await.unwrap_or_else(|_| Err(late()))
    }

    /// `None` when somebody else has it.
    fn try_take(settings: &Settings) -> Result<Option<Place>, String> {
        let path = Place::path(settings);
        let dir = SandboxDir::open(&path).map_err(|error| error.to_string())?;
        let lock = File::create(path.with_extension("lock")).map_err(|error| error.to_string())?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Place { dir, _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn remains(&self) -> Remains<'_> {
        let path = self.dir.path();
        Remains {
            id: self.dir.id(),
            root: path.join("oci"),
            runtime: path.join("runtime"),
            log: path.join("log"),
        }
    }

    /// Ends and removes what is there, processes and control groups as well.
    async fn clear(&self, settings: &Settings) -> Result<(), String> {
        sweep(settings, &self.remains()).await.map_err(|failure| failure.to_string())?;
        remove_tree(self.dir.path()).map_err(|error| error.to_string())
    }
}

/// The trials that are remembered.
fn known(cache: &Path) -> Vec<Trial> {
    fs::read(cache).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

impl Trial {
    fn holds_for(&self, now: &Trial) -> bool {
        let fresh = self.error.is_none() || now.at_ms.saturating_sub(self.at_ms) < FAILURE_HOLDS_MS;
        let same = (&self.program, self.modified, &self.boot, &self.users)
            == (&now.program, now.modified, &now.boot, &now.users);
        fresh && same
    }
}

/// Finds the first runtime that works, or says about each why it does not.
pub(crate) async fn find(settings: &Settings, fresh: bool) -> Result<Runtime, Failure> {
    create_private_dir(&settings.cache).map_err(|error| Failure::boot(error.to_string()))?;
    clear_leftover(settings).await;
    let mut troubles = Vec::new();
    for runtime in Runtime::candidates() {
        match runtime.check(settings, fresh).await {
            Ok(()) => return Ok(runtime),
            Err(trouble) => troubles.push(format!("{}: {trouble}", runtime.program.display())),
        }
    }
    if troubles.is_empty() {
        troubles.push(format!("none of {} is installed", NAMES.join(", ")));
    }
    Err(Failure::no_driver(format!("no OCI runtime works here ({})", troubles.join("; "))))
}

/// Removes what a trial that was killed has left. That it cannot is told by the next trial, which it
/// stands in the way of, and by nobody else.
pub(crate) async fn clear_leftover(settings: &Settings) {
    if !Place::path(settings).exists() {
        return;
    }
    if let Ok(Some(place)) = Place::try_take(settings)
        && let Err(error) = place.clear(settings).await
    {
        tracing::warn!(error, "what a trial left cannot be removed");
    }
}

/// The last error in a runtime's log.
pub(crate) fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = record.get("level")?.as_str()?.eq_ignore_ascii_case("error");
        is_error.then(|| record.get("msg")?.as_str().map(str::to_owned)).flatten()
    })
}

fn search(program: &OsStr) -> Option<PathBuf> {
    let named = Path::new(program);
    if named.components().count() > 1 || named.is_absolute() {
        return named.is_file().then(|| named.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(std::env::split_paths(SYSTEM_DIRECTORIES))
        .filter(|directory| directory.is_absolute())
        .collect();
    directories.into_iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(error: Option<&str>, at_ms: u64) -> Trial {
        Trial {
            program: "/x".into(),
            modified: (1, 2),
            boot: "b".into(),
            users: "Host".into(),
            at_ms,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_passed_trial_holds_for_the_boot_and_a_failed_one_for_a_minute() {
        let later = trial(None, 1_000_000);
        assert!(trial(None, 0).holds_for(&later));
        assert!(!trial(Some("broken"), 0).holds_for(&later));
        assert!(trial(Some("broken"), 990_000).holds_for(&later));
        let mut rebooted = later.clone();
        rebooted.boot = "c".into();
        assert!(!trial(None, 0).holds_for(&rebooted));
        let mut upgraded = later;
        upgraded.modified = (9, 9);
        assert!(!trial(None, 0).holds_for(&upgraded));
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn g_what_a_killed_trial_left_is_removed_and_a_live_one_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = Settings {
            cache: scratch.path().join("cache"),
            agent: scratch.path().join("agent"),
            launcher: Vec::new(),
            users: if rustix::process::geteuid().is_root() { Users::Host } else { Users::RootOnly },
        };
        create_private_dir(&settings.cache).unwrap();
        let alive = Place::try_take(&settings).unwrap().unwrap();
        create_private_dir(alive.dir.path()).unwrap();
        let alive_id = &alive.dir.id().to_owned();
        if settings.users == Users::Host {
            cgroup::create_for_agent(alive_id, Users::Host);
        }
        let left = || (settings.cache.join("trial").exists(), cgroup::exists(alive_id));
        let before = left();
        assert!(before.0);

        assert!(Place::try_take(&settings).unwrap().is_none());
        assert!(Place::take(&settings).await.unwrap_err().contains("does not come to an end"));
        clear_leftover(&settings).await;
        assert_eq!(left(), before);

        drop(alive);
        clear_leftover(&settings).await;
        assert_eq!(left(), (false, false));
    }

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("log");
        let lines = "{\"level\":\"error\",\"msg\":\"first\"}\n\
            {\"level\":\"error\",\"msg\":\"last\"}\n{\"level\":\"warning\",\"msg\":\"no\"}\nx\n";
        fs::write(&log, lines).unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("last"));
        assert_eq!(last_error(&scratch.path().join("none")), None);
    }
}
