//! The driver: its probe, and the start of a sandbox.

use crate::machine::Gvisor;
use crate::probe::find;
use crate::runsc::{BUNDLE, Runsc, SOCKET};
use crate::spec::describe;
use msb_driver::{
    BoxFuture, Driver, Machine, MachineSpec, Relay, Root, Users, prepare_mount_points,
};
use msb_state::{Bounds, DEFAULT_PIDS, Failure, Isolation, Probe, Protection, SandboxDir, bind_in};
use oci_spec::runtime::Spec;
use rustix::fs::{Gid, Uid};
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What the driver needs to know about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache directory.
    pub cache: PathBuf,
    /// The agent's binary.
    pub agent: PathBuf,
    /// A program, with arguments, that runs the command that follows in a jail.
    pub launcher: Vec<PathBuf>,
    /// The users of this process.
    pub users: Users,
}

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
        write_bundle(&work, spec.users, &describe(&spec.config, arguments)?)?;
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
        }
        .start(Some(theirs.into()), (spec.console()?, spec.console()?))?;
        let started = starting.wait().map_err(|error| {
            Failure::boot(format!("cannot start {}: {error}", program.display()))
        })?;
        let listener = bind_in(&run, "agent.sock").map_err(|e| Failure::boot(e.to_string()))?;
        let relay = Relay::start(ours, listener).map_err(io)?;
        let missing = started.missing;
        let protection =
            Protection { jailed: missing.is_empty(), missing, bounds: Bounds::default() };
        Ok(Box::new(Gvisor::new(started.pid, relay, protection).map_err(io)?))
    }
}

/// Creates the working directory with the configuration, for the root of the jail.
pub(crate) fn write_bundle(work: &Path, users: Users, spec: &Spec) -> Result<(), Failure> {
    let bundle = work.join(BUNDLE);
    let failed = |error: io::Error| Failure::boot_io("write", &bundle, error);
    fs::create_dir_all(&bundle).map_err(failed)?;
    let file = bundle.join("config.json");
    spec.save(&file)
        .map_err(|error| Failure::boot(format!("cannot write {}: {error}", file.display())))?;
    for path in [work, &bundle, &file] {
        give(path, users)?;
    }
    Ok(())
}

/// Gives a file to the root of the jail.
pub(crate) fn give(path: &Path, users: Users) -> Result<(), Failure> {
    let Users::Mapped(start) = users else { return Ok(()) };
    let (user, group) = (Uid::from_raw(start), Gid::from_raw(start));
    rustix::fs::chown(path, Some(user), Some(group))
        .map_err(|error| Failure::boot_io("change the owner of", path, error))
}

impl Driver for GvisorDriver {
    fn name(&self) -> &'static str {
        "gvisor"
    }

    fn isolation(&self) -> Isolation {
        Isolation::Gvisor
    }

    fn root(&self) -> Root {
        Root::Overlay
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

    fn sweep<'a>(&'a self, _dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>> {
        // Its processes died with their runner, and every sweep removes the bundle.
        Box::pin(std::future::ready(Ok(())))
    }
}
