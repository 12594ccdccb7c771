//! The driver and its machines.

use crate::cgroup;
use crate::probe::{clear_leftover, find};
use crate::runtime::{CALL_LIMIT, last_error, watch_init};
use crate::settings::Settings;
use crate::spec::{Container as Description, NAME, bounds, counts_apart, save};
use crate::stage::wants_user_namespace;
use crate::sweep::{Leftovers, sweep};
use command_fds::{CommandFdExt, FdMapping};
use msb_driver::{
    BoxFuture, ChildExit, Controllers, Driver, Exit, Hosts, KillOnDrop, Machine, MachineSpec,
    Users, attach_mounts, kill, oci, prepare_mount_points, unbounded_disk,
};
use msb_state::{
    Bounds, Failure, FailureKind, Isolation, Probe, Protection, SandboxConfig, SandboxDir, bind_in,
    remove_tree,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Descriptors that the agent inherits: its listening socket, the lifeline (a pipe that closes when
/// the runner dies), and the directory of its cgroup.
const LISTENER: i32 = 3;
const LIFELINE: i32 = 4;
const GROUP: i32 = 5;

/// Runs sandboxes as containers.
#[derive(Debug)]
pub struct ContainerDriver {
    settings: Settings,
}

impl ContainerDriver {
    /// Creates a driver.
    pub fn new(settings: Settings) -> Self {
        ContainerDriver { settings }
    }

    async fn run(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, Failure> {
        let runtime = find(&self.settings, false).await?;
        let (bundle, run) = (spec.dir.bundle(), spec.dir.run());
        let id = spec.dir.id();
        let leftovers = leftovers(&spec.dir);
        leftovers.record(&runtime).map_err(|error| Failure::boot_io("write to", &run, error))?;
        let group = if spec.users.runner_is_root() {
            cgroup::create_for_agent(id, spec.users)
        } else {
            None
        };
        let (controllers, apart) = (Controllers::of(spec.users), counts_apart());
        let (bounds, missing) = bounds(&spec.config, spec.users, controllers, apart)?;
        let protection = Protection { jailed: spec.users != Users::Host, missing, bounds };
        save(&self.describe(spec, group.is_some(), controllers, bounds)?, &bundle)?;

        let (lifeline_agent, lifeline) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| Failure::boot_io("make a pipe for", &run, error))?;
        let listener = bind_in(&run, "agent.sock").map_err(|e| Failure::boot(e.to_string()))?;

        let pid_file = bundle.join("pid");
        for stale in [&leftovers.log, &pid_file] {
            remove_if_there(stale)?;
        }
        let mut passed = vec![
            FdMapping { parent_fd: listener.into(), child_fd: LISTENER },
            FdMapping { parent_fd: lifeline_agent, child_fd: LIFELINE },
        ];
        passed.extend(group.map(|parent_fd| FdMapping { parent_fd, child_fd: GROUP }));
        let mut command = runtime.command(&self.settings.launcher, &leftovers.root, &leftovers.log);
        command.args(["run", "--detach", "--preserve-fds", &passed.len().to_string()]);
        command.arg("--pid-file").arg(&pid_file);
        command.arg("--bundle").arg(&bundle).arg(id);
        command.stdout(spec.console()?).stderr(spec.console()?);
        command
            .fd_mappings(passed)
            .map_err(|error| Failure::boot(format!("cannot pass descriptors: {error}")))?;
        let child =
            command.spawn().map_err(|error| Failure::boot_io("run", &runtime.program, error))?;
        // The command keeps the passed descriptors open until it is dropped.
        drop(command);
        let status = KillOnDrop::new(child)
            .wait(CALL_LIMIT)
            .await
            .map_err(|error| Failure::boot(format!("{}: {error}", runtime.program.display())))?;
        if !status.success() {
            let detail = last_error(&leftovers.log).unwrap_or_else(|| status.to_string());
            return Err(Failure::boot(format!("{}: {detail}", runtime.program.display())));
        }
        let init = watch_init(&pid_file)?;
        Ok(Box::new(Container {
            init,
            state: leftovers.root,
            _lifeline: lifeline,
            exit: None,
            protection,
        }))
    }

    fn describe(
        &self,
        spec: &MachineSpec,
        with_group: bool,
        controllers: Controllers,
        bounds: Bounds,
    ) -> Result<oci_spec::runtime::Spec, Failure> {
        let with_groups = spec.users.runner_is_root();
        let id = spec.dir.id();
        let hosts = prepare_root(spec)?;
        let mounts = attach_mounts(spec)?;
        let is_covered = mounts.iter().any(|mount| Path::new("etc/hosts").starts_with(&mount.path));
        Description {
            config: &spec.config,
            users: spec.users,
            rootfs: &spec.rootfs,
            agent: &spec.agent,
            args: arguments(with_group, bounds.pids.filter(|_| spec.users != Users::Host)),
            controllers,
            bounds,
            // The runtime would create it in what is mounted there.
            hosts: hosts.filter(|_| !is_covered),
            cgroup: with_groups.then(|| format!("/{}", cgroup::name(id))),
        }
        .spec()
    }
}

/// Returns the agent's arguments. `processes` is the limit for each user; in a user namespace
/// the kernel counts for each user of that namespace.
fn arguments(with_group: bool, processes: Option<u64>) -> Vec<String> {
    let mut arguments = vec!["--forbid-clone3".to_owned()];
    if let Some(processes) = processes {
        arguments.extend(["--max-processes".to_owned(), processes.to_string()]);
    }
    let passed = [("--listen-fd", Some(LISTENER)), ("--lifeline-fd", Some(LIFELINE))];
    let group = [("--cgroup-fd", with_group.then_some(GROUP))];
    for (option, fd) in passed.into_iter().chain(group) {
        arguments.extend(fd.into_iter().flat_map(|fd| [option.to_owned(), fd.to_string()]));
    }
    arguments
}

/// Prepares the root. Where `/etc/hosts` cannot be written, returns the file to bind there
/// read-only.
fn prepare_root(spec: &MachineSpec) -> Result<Option<PathBuf>, Failure> {
    let text = oci::hosts(&spec.config);
    match prepare_mount_points(&spec.rootfs, spec.config.image.as_path(), spec.users, &text)? {
        Hosts::Written | Hosts::Missing => Ok(None),
        Hosts::Fixed => {
            let hosts = spec.dir.bundle().join("hosts");
            fs::write(&hosts, text).map_err(|error| Failure::boot_io("write", &hosts, error))?;
            Ok(Some(hosts))
        }
    }
}

/// Returns what a sandbox's container can leave behind.
fn leftovers(dir: &SandboxDir) -> Leftovers<'_> {
    Leftovers {
        id: dir.id(),
        root: dir.run().join("oci"),
        runtime: dir.run().join("runtime"),
        log: dir.bundle().join("oci.log"),
    }
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::boot_io("remove", path, error))
        }
        _ => Ok(()),
    }
}

impl Driver for ContainerDriver {
    fn name(&self) -> &'static str {
        NAME
    }

    fn isolation(&self) -> Isolation {
        Isolation::Container
    }

    fn check(&self, config: &SandboxConfig) -> Result<(), Failure> {
        oci::refuse_unsupported(NAME, config)
    }

    fn unbounded(&self) -> Vec<String> {
        let users = match self.settings.users {
            Users::Host if wants_user_namespace() => Users::Mapped(0),
            users => users,
        };
        let Ok(name) = "unbounded".parse() else { return Vec::new() };
        let config = SandboxConfig::new(name, "/");
        // The defaults are never refused.
        let bounds = bounds(&config, users, Controllers::of(users), counts_apart());
        let missing = bounds.map(|(_, missing)| missing).unwrap_or_default();
        missing.into_iter().chain(unbounded_disk(users)).collect()
    }

    fn probe(&self, fresh: bool) -> BoxFuture<'_, Probe> {
        Box::pin(async move {
            match find(&self.settings, fresh).await {
                Ok(runtime) => Probe::Usable(runtime.program.display().to_string()),
                Err(failure) => Probe::Unusable {
                    remedy: match failure.kind {
                        FailureKind::NoDriver => Some("install one: apt-get install runc".into()),
                        _ => failure.hint,
                    },
                    reason: failure.message,
                },
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
        Box::pin(async move {
            sweep(&self.settings, &leftovers(dir)).await?;
            // The runner may have been killed during the probe.
            clear_leftover(&self.settings).await;
            Ok(())
        })
    }
}

/// A running container. Its main process exits when the lifeline is dropped.
struct Container {
    init: AsyncFd<OwnedFd>,
    /// The runtime's state directory.
    state: PathBuf,
    _lifeline: OwnedFd,
    exit: Option<Exit>,
    protection: Protection,
}

impl Container {
    async fn wait(&mut self) -> Exit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let ended = ChildExit::wait(&self.init).await;
        // The end of a PID namespace's first process kills the others, so the runtime has nothing
        // left to delete. Without this state the sweep does not call it, which saves up to a third
        // of a short run.
        if let Err(error) = remove_tree(&self.state) {
            tracing::warn!(%error, "cannot remove the runtime's state");
        }
        let (detail, orderly) = (format!("the agent {}", ended.text), ended.code == Some(0));
        let exit = Exit { detail, orderly };
        self.exit = Some(exit.clone());
        exit
    }
}

impl Machine for Container {
    fn protection(&self) -> Protection {
        self.protection.clone()
    }

    fn exited(&mut self) -> BoxFuture<'_, Exit> {
        Box::pin(self.wait())
    }

    fn kill(&mut self) -> Result<(), Failure> {
        // The kernel kills the other processes of a PID namespace with its first.
        kill(&self.init)
            .map_err(|error| Failure::boot(format!("cannot kill the container: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_driver_names_what_it_cannot_bound() {
        let settings = Settings {
            cache: PathBuf::new(),
            agent: PathBuf::new(),
            launcher: Vec::new(),
            users: Users::RootOnly,
        };
        let named = ContainerDriver::new(settings).unbounded();
        for what in ["memory: ", "disk: "] {
            assert!(named.iter().any(|reason| reason.starts_with(what)), "{what} in {named:?}");
        }
    }
}
