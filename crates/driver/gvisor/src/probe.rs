//! The probe: it runs the agent once in a sandbox like that of a user.

use crate::bundle::{create_dir, give, write_bundle};
use crate::runsc::{self, LOG, Runsc};
use crate::settings::Settings;
use crate::spec::describe;
use msb_driver::{ChildExit, TrialLock, TrialRecord, Users, watch};
use msb_jail::Slot;
use msb_state::{Failure, SandboxConfig, create_private_dir, remove_tree};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// Time limit of the trial.
const LIMIT: Duration = Duration::from_secs(30);
/// The directory of the trials in the cache.
const TRIAL: &str = "gvisor-trial";

/// Returns the program if it works here, from the cache or by a trial.
pub(crate) async fn find(settings: &Settings, fresh: bool) -> Result<PathBuf, Failure> {
    let program = runsc::find(&settings.home)?;
    create_private_dir(&settings.cache).map_err(|error| Failure::boot(error.to_string()))?;
    let failed = |error| Failure::boot_io("probe", &program, error);
    let record = TrialRecord::new(&program, format!("{:?}", settings.users)).map_err(failed)?;
    clear_leftover(&settings.cache);
    let cache = settings.cache.join("gvisor.json");
    let result = match record.cached(&cache).filter(|_| !fresh) {
        Some(result) => result,
        None => trial(&program, settings, record, fresh).await?,
    };
    match result {
        Ok(()) => Ok(program),
        Err(error) => {
            Err(Failure::no_driver(format!("{} does not work here: {error}", program.display()))
                .hint("msb setup gvisor installs the version that is tested"))
        }
    }
}

/// Runs a trial and caches its result, unless another process has done so meanwhile.
async fn trial(
    program: &Path,
    settings: &Settings,
    record: TrialRecord,
    fresh: bool,
) -> Result<Result<(), String>, Failure> {
    let (work, cache) = (settings.cache.join(TRIAL), settings.cache.join("gvisor.json"));
    let _lock = TrialLock::take(&work).await.map_err(Failure::boot)?;
    // Of many processes that start at once, the first one tries for all.
    if let Some(result) = record.cached(&cache).filter(|_| !fresh) {
        return Ok(result);
    }
    let remove = || remove_tree(&work).map_err(|error| Failure::boot(error.to_string()));
    remove()?;
    let result = run(program, settings, &work).await;
    let result = result.and(remove()).map_err(|error| error.to_string());
    record.save(&cache, &result);
    Ok(result)
}

/// Removes what a killed trial left behind. A failure is only traced: the next trial reports it.
fn clear_leftover(cache: &Path) {
    let work = cache.join(TRIAL);
    if work.exists()
        && let Ok(Some(_lock)) = TrialLock::try_take(&work)
        && let Err(error) = remove_tree(&work)
    {
        tracing::warn!(%error, "cannot remove what a trial left behind");
    }
}

async fn run(program: &Path, settings: &Settings, work: &Path) -> Result<(), Failure> {
    let slot = match settings.users {
        Users::Host => Slot::take(u64::from(std::process::id()))
            .map(Some)
            .map_err(|error| Failure::boot(error.to_string()))?,
        _ => None,
    };
    let users = slot.as_ref().map_or(settings.users, |slot| Users::Mapped(slot.start()));
    let name = "trial".parse().map_err(|error| Failure::boot(format!("{error}")))?;
    let config = SandboxConfig::new(name, "/");
    let rootfs = work.join("rootfs");
    write_bundle(work, users, &describe(&config, vec!["--version".to_owned()], None, &[])?)?;
    create_dir(&rootfs)?;
    give(&rootfs, users)?;
    let agent = work.join("agent");
    // Of a mode and owner that the jail's root can read.
    fs::copy(&settings.agent, &agent)
        .and_then(|_| fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)))
        .map_err(|error| Failure::boot_io("copy", &settings.agent, error))?;
    let io = |error| Failure::boot_io("write below", work, error);
    let null = || File::options().write(true).open("/dev/null").map_err(io);
    let stderr = File::create(work.join("stderr")).map_err(io)?;
    let starting = Runsc {
        program,
        launcher: &settings.launcher,
        cache: &settings.cache,
        users,
        rootfs: &rootfs,
        agent: &agent,
        work,
        id: "trial",
        require_jail: false,
        group: None,
    }
    .start(None, (null()?.into(), stderr.into()))?;
    let started = starting.wait().map_err(|error| Failure::boot(error.to_string()))?;
    let child = watch(started.pid).map_err(io)?;
    let ended = timeout(LIMIT, ChildExit::wait(&child)).await;
    match ended {
        Ok(ended) if ended.code == Some(0) => Ok(()),
        Ok(ended) => Err(Failure::boot(last_error(work).unwrap_or(ended.text))),
        Err(_) => {
            let _ = msb_driver::kill(&child);
            Err(Failure::boot(format!("it did not end within {} s", LIMIT.as_secs())))
        }
    }
}

/// Returns the last error of `runsc`, or of the program in the sandbox.
pub(crate) fn last_error(work: &Path) -> Option<String> {
    let log = fs::read_to_string(work.join(LOG)).unwrap_or_default();
    let logged = log.lines().rev().find_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = matches!(record.get("level")?.as_str()?, "error" | "fatal");
        is_error.then(|| record.get("msg")?.as_str().map(str::to_owned)).flatten()
    });
    logged.or_else(|| {
        let text = fs::read_to_string(work.join("stderr")).ok()?;
        text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
    })
}
