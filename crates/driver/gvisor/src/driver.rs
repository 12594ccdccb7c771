//! The driver: its probe, and the start of a sandbox.

use crate::bundle::write_bundle;
use crate::machine::Gvisor;
use crate::probe::find;
use crate::runsc::{Runsc, SOCKET};
use crate::settings::Settings;
use crate::spec::describe;
use msb_driver::{
    BoxFuture, Controllers, Driver, Machine, MachineSpec, MissingBounds, Relay, attach_mounts,
    group_name, oci, prepare_mount_points, remove_limits, unbounded_disk,
};
use msb_jail::{Group, GroupLimits};
use msb_state::{
    Bounds, Cpus, DEFAULT_PIDS, Failure, Isolation, Probe, Protection, SandboxConfig, SandboxDir,
    bind_in, memory_mib,
};
use std::io;
use std::os::unix::net::UnixStream;

/// Its public name.
const NAME: &str = "gvisor";

/// Runs sandboxes under gVisor.
#[derive(Debug)]
pub struct GvisorDriver {
    settings: Settings,
}

impl GvisorDriver {
    /// Creates a driver.
    pub fn new(settings: Settings) -> Self {
        GvisorDriver { settings }
    }

    async fn run(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, Failure> {
        self.check(&spec.config)?;
        let program = find(&self.settings, false).await?;
        let run = spec.dir.run();
        let io = |error: io::Error| Failure::boot_io("create sockets for", &run, error);
        let hosts = oci::hosts(&spec.config);
        prepare_mount_points(&spec.rootfs, spec.config.image.as_path(), spec.users, &hosts)?;
        let mounts = attach_mounts(spec)?;
        let pids = spec.config.pids_limit.unwrap_or(DEFAULT_PIDS);
        let arguments = [("--relay-fd", SOCKET.to_string()), ("--max-processes", pids.to_string())];
        let arguments =
            arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let work = spec.dir.bundle().join("gvisor");
        let (group, bounds, mut missing) = limits(spec)?;
        let description = describe(&spec.config, arguments, bounds.memory_bytes, &mounts)?;
        write_bundle(&work, spec.users, &description)?;
        let (ours, theirs) = UnixStream::pair().map_err(io)?;
        let starting = Runsc {
            program: &program,
            launcher: &self.settings.launcher,
            cache: &self.settings.cache,
            users: spec.users,
            rootfs: &spec.rootfs,
            agent: &spec.agent,
            work: &work,
            id: spec.dir.id(),
            require_jail: spec.config.require_jail,
            group: group.as_ref(),
        }
        .start(Some(theirs.into()), (spec.console()?, spec.console()?))?;
        let started = starting.wait().map_err(|error| {
            Failure::boot(format!("cannot start {}: {error}", program.display()))
        })?;
        let listener = bind_in(&run, "agent.sock").map_err(|e| Failure::boot(e.to_string()))?;
        let relay = Relay::start(ours, listener).map_err(io)?;
        let jailed = started.missing.is_empty();
        missing.extend(started.missing);
        let protection = Protection { jailed, missing, bounds };
        Ok(Box::new(Gvisor::new(started.pid, relay, protection).map_err(io)?))
    }
}

/// Memory of the sandbox's kernel and its file server besides the guest's, in MiB.
const OWN_MIB: u64 = 128;
/// Threads of the sandbox's kernel and its file server on the host. A process of the guest has one or
/// two there, its threads no more than it has in the guest.
const OWN_TASKS: u64 = 256;
const TASKS_PER_PROCESS: u64 = 2;

/// Creates the cgroup with the sandbox's limits. Also returns the limits, and the missing ones with
/// the reason. An explicit limit that cannot be enforced is an error.
fn limits(spec: &MachineSpec) -> Result<(Option<Group>, Bounds, Vec<String>), Failure> {
    let config = &spec.config;
    let controllers = Controllers::of(spec.users);
    let missing = MissingBounds::new(NAME, spec.users);
    let (bounds, missing) = bounds(config, controllers, missing)?;
    if controllers == Controllers::default() {
        return Ok((None, bounds, missing));
    }
    let pids = bounds.pids.unwrap_or_default();
    let limits = GroupLimits {
        memory: bounds.memory_bytes.map(|bytes| bytes + (OWN_MIB << 20)),
        cpu_millis: bounds.cpu_millis,
        tasks: controllers.pids.then_some(TASKS_PER_PROCESS * pids + OWN_TASKS),
    };
    match Group::create(&group_name(&spec.dir), limits) {
        Ok(group) => Ok((Some(group), bounds, missing)),
        Err(error) => {
            let missing = MissingBounds::without_cgroups(NAME, error.to_string());
            let (bounds, missing) = self::bounds(config, Controllers::default(), missing)?;
            Ok((None, bounds, missing))
        }
    }
}

fn bounds(
    config: &SandboxConfig,
    controllers: Controllers,
    mut missing: MissingBounds,
) -> Result<(Bounds, Vec<String>), Failure> {
    let memory = missing.check("memory", config.memory_mib.is_some(), controllers.memory)?;
    if config.cpus.is_some() {
        missing.check("cpus", true, controllers.cpu)?;
    }
    // gVisor's kernel limits the processes of each user.
    missing.check("pids_limit for all users together", false, controllers.pids)?;
    let bounds = Bounds {
        pids: Some(u64::from(config.pids_limit.unwrap_or(DEFAULT_PIDS))),
        memory_bytes: memory.then(|| memory_mib(config.memory_mib) << 20),
        cpu_millis: config.cpus.map(Cpus::millis),
        ..Bounds::default()
    };
    Ok((bounds, missing.into_list()))
}

impl Driver for GvisorDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn isolation(&self) -> Isolation {
        Isolation::Gvisor
    }

    fn unbounded(&self) -> Vec<String> {
        let users = self.settings.users;
        let Ok(name) = "unbounded".parse() else { return Vec::new() };
        let missing = MissingBounds::new(NAME, users);
        // The defaults are never refused.
        let config = SandboxConfig::new(name, "/");
        let found = bounds(&config, Controllers::of(users), missing).unwrap_or_default();
        found.1.into_iter().chain(unbounded_disk(users)).collect()
    }

    fn check(&self, config: &SandboxConfig) -> Result<(), Failure> {
        oci::refuse_unsupported(NAME, config)
    }

    fn probe(&self, fresh: bool) -> BoxFuture<'_, Probe> {
        Box::pin(async move {
            match find(&self.settings, fresh).await {
                Ok(program) => Probe::Usable(format!("{}, systrap", program.display())),
                Err(failure) => Probe::Unusable { reason: failure.message, remedy: failure.hint },
            }
        })
    }

    fn start<'a>(
        &'a self,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, Failure>> {
        Box::pin(self.run(spec))
    }

    fn sweep<'a>(&'a self, dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>> {
        // Its processes died with their runner, and every sweep removes the bundle.
        Box::pin(std::future::ready(remove_limits(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_driver::Users;

    #[test]
    fn j4_missing_limits_are_named_or_refused() {
        let mut config = SandboxConfig::new("n".parse().unwrap(), "/");
        let of = |config: &SandboxConfig| {
            let missing = MissingBounds::new(NAME, Users::RootOnly);
            bounds(config, Controllers::default(), missing)
        };
        let (found, missing) = of(&config).unwrap();
        assert_eq!((found.pids, found.memory_bytes), (Some(u64::from(DEFAULT_PIDS)), None));
        let why = "an ordinary user has no cgroups";
        let together = format!("pids_limit for all users together: {why}");
        assert_eq!(missing, [format!("memory: {why}"), together]);
        config.pids_limit = Some(64);
        assert_eq!(of(&config).unwrap().0.pids, Some(64));
        config.memory_mib = Some(64);
        let text = of(&config).unwrap_err().to_string();
        assert!(text.ends_with("leave memory out, or run as root"), "{text}");
    }
}
