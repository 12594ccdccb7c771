//! The driver: its probe, and the start of a sandbox.

use crate::bundle::write_bundle;
use crate::machine::Gvisor;
use crate::probe::find;
use crate::runsc::{Runsc, SOCKET};
use crate::settings::Settings;
use crate::spec::{describe, refuse_unsupported};
use msb_driver::{
    BoxFuture, Driver, Machine, MachineSpec, Relay, group_name, prepare_mount_points, remove_limits,
};
use msb_jail::{Group, GroupLimits};
use msb_state::{
    Bounds, Cpus, DEFAULT_PIDS, Failure, Isolation, Probe, Protection, SandboxConfig, SandboxDir,
    bind_in, memory_mib,
};
use std::io;
use std::os::unix::net::UnixStream;

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
        let program = find(&self.settings, false).await?;
        let run = spec.dir.run();
        let io = |error: io::Error| Failure::boot_io("create sockets for", &run, error);
        let name = spec.config.hostname.as_deref().unwrap_or(spec.config.name.as_str());
        let hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost {name}\n");
        prepare_mount_points(&spec.rootfs, spec.config.image.as_path(), spec.users, &hosts)?;
        let pids = spec.config.pids_limit.unwrap_or(DEFAULT_PIDS);
        let arguments = [("--relay-fd", SOCKET.to_string()), ("--max-processes", pids.to_string())];
        let arguments =
            arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let work = spec.dir.bundle().join("gvisor");
        let (group, bounds, mut missing) = limits(spec)?;
        let description = describe(&spec.config, arguments, bounds.memory_bytes)?;
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

/// Creates the cgroup with the sandbox's limits. Also returns the limits, and the missing ones with
/// the reason. An explicit limit that cannot be enforced is an error.
fn limits(spec: &MachineSpec) -> Result<(Option<Group>, Bounds, Vec<String>), Failure> {
    let config = &spec.config;
    let memory = memory_mib(config.memory_mib) << 20;
    let cpu_millis = config.cpus.map(Cpus::millis);
    let pids = Some(u64::from(config.pids_limit.unwrap_or(DEFAULT_PIDS)));
    let asked = [("memory", config.memory_mib.is_some()), ("cpus", cpu_millis.is_some())];
    let group = match spec.users.runner_is_root() {
        true => {
            let limits = GroupLimits { memory: Some(memory + (OWN_MIB << 20)), cpu_millis };
            Group::create(&group_name(&spec.dir), limits).map_err(|error| error.to_string())
        }
        false => Err("an ordinary user has no cgroups".to_owned()),
    };
    match group {
        Ok(group) => {
            let bounds =
                Bounds { pids, memory_bytes: Some(memory), cpu_millis, ..Bounds::default() };
            Ok((Some(group), bounds, Vec::new()))
        }
        Err(why) => match asked.into_iter().find(|(_, asked)| *asked) {
            Some((name, _)) => {
                let text = format!("cannot bound {name} with driver gvisor: {why}");
                let hint = format!("leave {name} out, or run as root with cgroups");
                Err(Failure::invalid_config(text).hint(hint))
            }
            None => {
                let bounds = Bounds { pids, ..Bounds::default() };
                Ok((None, bounds, vec![format!("memory: {why}")]))
            }
        },
    }
}

impl Driver for GvisorDriver {
    fn name(&self) -> &'static str {
        "gvisor"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Gvisor
    }

    fn check(&self, config: &SandboxConfig) -> Result<(), Failure> {
        refuse_unsupported(config)
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
