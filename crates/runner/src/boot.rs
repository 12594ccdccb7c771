//! From the driver's choice to the agent's first answer.

use crate::agent_link::AgentLink;
use crate::cli::cache_of;
use crate::console::Console;
use crate::namespaces::{MountedRoot, mount_root};
use crate::upper::{self, DiskBound};
use msb_driver::{Driver, Machine, MachineSpec, Root, choose};
use msb_state::{Failure, Protection, Ready, SandboxDir};
use std::time::Duration;
use tokio::time::timeout;

/// How long an agent that hung up may take to end.
const EXIT_LIMIT: Duration = Duration::from_millis(500);

/// Starts the machine and waits until its agent answers.
///
/// What of the root filesystem has to be taken apart again goes into `mounted`. The machine goes
/// into `slot` as soon as there is one, because one that does not come up has to
/// be killed. Not to be resumed once it is dropped: the driver's sweep then removes what is half
/// made.
pub(crate) async fn come_up(
    drivers: &[Box<dyn Driver>],
    spec: &mut MachineSpec,
    console: &Console,
    slot: &mut Option<Box<dyn Machine>>,
    mounted: &mut Option<MountedRoot>,
) -> Result<(AgentLink, Ready), Failure> {
    let driver = choose(&spec.config.driver, drivers).await?;
    let disk = match driver.root() {
        Root::Overlay => Some(upper::prepare(&spec.dir, &spec.config, &cache_of(&spec.dir))?),
        Root::Image => None,
    };
    *mounted = Some(mount_root(spec, driver.root())?);
    let machine = slot.insert(driver.start(spec).await?);
    let link = match machine.ready().await {
        Ok(()) => connect(&spec.dir, machine.as_mut()).await,
        Err(what) => Err(what),
    };
    let link = match link {
        Ok(link) => link,
        Err(what) => {
            return Err(Failure::boot(format!("{what}; {}", console.last_words().await)));
        }
    };
    let mut protection = machine.protection();
    if spec.config.require_jail && !protection.jailed {
        return Err(without_wall(&protection));
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

/// Every wall was required, and some are missing.
fn without_wall(protection: &Protection) -> Failure {
    let missing = match protection.missing.as_slice() {
        [] => "the driver has no jail".to_owned(),
        walls => walls.join("; "),
    };
    Failure::no_driver(format!("cannot start without every wall of the jail: {missing}")).hint(
        "msb doctor lists the walls; leave --require-jail and MSB_REQUIRE_JAIL out to go without",
    )
}

/// Waits for the agent's answer, or says what came instead.
async fn connect(dir: &SandboxDir, machine: &mut dyn Machine) -> Result<AgentLink, String> {
    let refusal = tokio::select! {
        // The answer may have been given before the end; then the end is not the start's.
        biased;
        link = AgentLink::connect(dir) => match link {
            Ok(link) => return Ok(link),
            Err(error) => error,
        },
        exit = machine.exited() => return Err(format!("{} before it answered", exit.detail)),
    };
    // A broken connection is mostly the first that is seen of its end.
    match timeout(EXIT_LIMIT, machine.exited()).await {
        Ok(exit) => Err(format!("{} before it answered", exit.detail)),
        Err(_) => Err(format!("the agent does not answer as it should: {refusal}")),
    }
}
