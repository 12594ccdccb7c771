//! Removes what a container left behind.

use crate::cgroup;
use crate::runtime::{CALL_LIMIT, Runtime};
use crate::settings::Settings;
use msb_driver::KillOnDrop;
use msb_state::{Failure, remove_tree};
use std::path::PathBuf;
use std::{fs, io};

/// What a container can leave behind.
#[derive(Debug)]
pub(crate) struct Leftovers<'a> {
    pub(crate) id: &'a str,
    /// The runtime's state directory.
    pub(crate) root: PathBuf,
    /// The file that names the runtime's program: another runtime cannot delete its container.
    pub(crate) runtime: PathBuf,
    /// The runtime's log.
    pub(crate) log: PathBuf,
}

impl Leftovers<'_> {
    /// Records which runtime makes the container.
    pub(crate) fn record(&self, runtime: &Runtime) -> io::Result<()> {
        fs::write(&self.runtime, runtime.program.as_os_str().as_encoded_bytes())
    }
}

/// Kills every process of a container and removes its cgroups and the runtime's state.
pub(crate) async fn sweep(settings: &Settings, leftovers: &Leftovers<'_>) -> Result<(), Failure> {
    // Kill by cgroup first: the runtime then finds the container dead and does not wait for it.
    cgroup::remove(leftovers.id)?;
    if leftovers.root.join(leftovers.id).is_dir() {
        delete(settings, leftovers).await;
    }
    cgroup::remove(leftovers.id)?;
    remove_tree(&leftovers.root).map_err(|error| Failure::boot(error.to_string()))
}

/// Calls the runtime's `delete`, which kills what no cgroup reached. A failure is only traced: the
/// runtime does not know a half-made container.
async fn delete(settings: &Settings, leftovers: &Leftovers<'_>) {
    let recorded = fs::read_to_string(&leftovers.runtime).ok().map(PathBuf::from);
    let runtime = recorded.map(|program| Runtime { program });
    let Some(runtime) =
        runtime.or_else(|| Runtime::candidates().into_iter().find(Runtime::is_trusted))
    else {
        return;
    };
    let mut command = runtime.command(&settings.launcher, &leftovers.root, &leftovers.log);
    command.args(["delete", "--force"]).arg(leftovers.id);
    match command.spawn() {
        Ok(child) => {
            if let Err(error) = KillOnDrop::new(child).wait(CALL_LIMIT).await {
                tracing::warn!(%error, "the runtime could not delete the container");
            }
        }
        Err(error) => tracing::warn!(%error, "cannot run the runtime"),
    }
}
