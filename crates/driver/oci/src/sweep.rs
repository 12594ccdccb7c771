//! Takes apart what a container has left, whatever ended before it was through.

use crate::cgroup;
use crate::machine::Settings;
use crate::runtime::{CALL_LIMIT, Runtime};
use msb_driver::Bound;
use msb_state::{Failure, remove_tree};
use std::path::PathBuf;
use std::{fs, io};

/// A container, as far as its traces go.
#[derive(Debug)]
pub(crate) struct Remains<'a> {
    pub(crate) id: &'a str,
    /// Where the runtime keeps its own state.
    pub(crate) root: PathBuf,
    /// The file that names the runtime's program: another one could not take it apart.
    pub(crate) runtime: PathBuf,
    /// The runtime's log.
    pub(crate) log: PathBuf,
}

impl Remains<'_> {
    /// Notes which runtime makes the container.
    pub(crate) fn record(&self, runtime: &Runtime) -> io::Result<()> {
        fs::write(&self.runtime, runtime.program.as_os_str().as_encoded_bytes())
    }
}

/// Ends every process of a container and removes its control groups and the runtime's state.
pub(crate) async fn sweep(settings: &Settings, remains: &Remains<'_>) -> Result<(), Failure> {
    // First by control group: the runtime then finds it dead and need not wait for it.
    cgroup::remove(remains.id)?;
    if remains.root.join(remains.id).is_dir() {
        delete(settings, remains).await;
    }
    cgroup::remove(remains.id)?;
    remove_tree(&remains.root).map_err(|error| Failure::boot(error.to_string()))
}

/// Has the runtime take its container apart, which ends what a control group did not reach. Its
/// failure is not the sweep's: a container that was only half made is unknown to it.
async fn delete(settings: &Settings, remains: &Remains<'_>) {
    let recorded = fs::read_to_string(&remains.runtime).ok().map(PathBuf::from);
    let runtime = recorded.map(|program| Runtime { program });
    let Some(runtime) =
        runtime.or_else(|| Runtime::candidates().into_iter().find(Runtime::is_trusted))
    else {
        return;
    };
    let mut command = runtime.command(&settings.launcher, &remains.root, &remains.log);
    command.args(["delete", "--force"]).arg(remains.id);
    match command.spawn() {
        Ok(child) => {
            if let Err(error) = Bound::new(child).wait(CALL_LIMIT).await {
                tracing::warn!(%error, "the runtime could not delete the container");
            }
        }
        Err(error) => tracing::warn!(%error, "the runtime could not be run"),
    }
}
