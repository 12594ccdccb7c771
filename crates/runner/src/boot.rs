//! The start: from the choice of a driver to the agent's hello.

use crate::agent_link;
use crate::console::Console;
use crate::drivers::cache_of;
use crate::namespaces::{MountedRoot, mount_root};
use crate::upper::{self, DiskBound};
use msb_client::Connection;
use msb_driver::{Driver, Machine, MachineSpec, Root, choose};
use msb_state::{Failure, Protection, Ready};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long the exit of a machine may take after its agent hung up.
const EXIT_LIMIT: Duration = Duration::from_millis(500);

/// Starts the machine and waits for the agent's hello.
///
/// `mounted` receives the root filesystem that has to be unmounted, and `slot` the machine as soon
/// as it exists: one that fails to boot has to be killed. When the future is dropped, the driver's
/// sweep removes an incomplete machine.
pub(crate) async fn boot(
    drivers: &[Box<dyn Driver>],
    spec: &mut MachineSpec,
    console: &Console,
    slot: &mut Option<Box<dyn Machine>>,
    mounted: &mut Option<MountedRoot>,
) -> Result<(Arc<Connection>, Ready), Failure> {
    let driver = choose(&spec.config.driver, drivers).await?;
    let disk = match driver.root() {
        Root::Overlay => Some(upper::prepare(&spec.dir, &spec.config, &cache_of(&spec.dir))?),
        Root::Image => None,
    };
    *mounted = Some(mount_root(spec, driver.root())?);
    let machine = slot.insert(driver.start(spec).await?);
    let link = match machine.ready().await {
        Ok(()) => connect(spec, machine.as_mut()).await,
        Err(what) => Err(what),
    };
    let link = match link {
        Ok(link) => link,
        Err(what) => {
            return Err(Failure::boot(format!("{what}; {}", console.tail().await)));
        }
    };
    let mut protection = machine.protection();
    if spec.config.require_jail && !protection.jailed {
        return Err(missing_walls(&protection));
    }
    match disk {
        Some(DiskBound::Bytes(bytes)) => protection.bounds.disk_bytes = Some(bytes),
        Some(DiskBound::None(why)) => protection.missing.push(format!("disk bound: {why}")),
        None => {}
    }
    let ready = Ready {
        driver: driver.name().to_owned(),
        isolation: driver.isolation(),
        protection,
        runner_pid: std::process::id(),
    };
    Ok((link, ready))
}

/// Returns the error for a sandbox that requires every wall.
fn missing_walls(protection: &Protection) -> Failure {
    let missing = match protection.missing.as_slice() {
        [] => "the driver has no jail".to_owned(),
        walls => walls.join("; "),
    };
    Failure::no_driver(format!("cannot start without every wall of the jail: {missing}")).hint(
        "msb doctor lists the walls; leave --require-jail and MSB_REQUIRE_JAIL out to go without",
    )
}

/// Waits for the agent's hello; the error has what happened instead.
async fn connect(spec: &MachineSpec, machine: &mut dyn Machine) -> Result<Arc<Connection>, String> {
    let limit = spec.config.boot_timeout();
    let connected =
        async { agent_link::connect(&spec.dir, limit)?.await.map_err(std::io::Error::other) };
    let refusal = tokio::select! {
        // Prefer a hello that came before the exit.
        biased;
        link = connected => match link {
            Ok(link) => return Ok(link),
            Err(error) => error,
        },
        exit = machine.exited() => return Err(format!("{} before it answered", exit.detail)),
    };
    // A broken connection is often the first sign of the machine's exit.
    match timeout(EXIT_LIMIT, machine.exited()).await {
        Ok(exit) => Err(format!("{} before it answered", exit.detail)),
        Err(_) => Err(format!("the agent does not answer as it should: {refusal}")),
    }
}
