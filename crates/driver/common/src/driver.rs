//! The traits of a driver and of its machines.

use crate::guest::Guest;
use crate::open_mount::OpenMount;
use msb_state::{DriverChoice, Failure, Isolation, Probe, Protection, SandboxConfig, SandboxDir};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

/// A future that a trait can return. The runner has one thread only.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The specification of a machine.
#[derive(Debug)]
pub struct MachineSpec {
    /// The sandbox's configuration.
    pub config: SandboxConfig,
    /// The sandbox's directory. The driver may use `bundle` and the directory of the sockets, where
    /// it provides the agent's as `agent.sock`.
    pub dir: SandboxDir,
    /// The root filesystem, as [`Driver::root`] requests it.
    pub rootfs: PathBuf,
    /// The agent's binary on the host.
    pub agent: PathBuf,
    /// Its users.
    pub users: Users,
    /// Its mounts, parents first, where the host's kernel mounts its root.
    pub mounts: Vec<OpenMount>,
    /// The write end of a pipe for the output of the machine and its agent.
    pub console: OwnedFd,
}

impl MachineSpec {
    /// Returns a duplicate of [`MachineSpec::console`], for a process.
    pub fn console(&self) -> Result<OwnedFd, Failure> {
        let copy = self.console.try_clone();
        copy.map_err(|error| Failure::boot(format!("cannot duplicate the console: {error}")))
    }
}

/// The form of the root filesystem that a driver needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The image with the upper layer, mounted writable.
    Overlay,
    /// The image alone, read-only; the upper layer is on a disk of the guest.
    Image,
}

/// The users that exist in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// The host's users: the runner is the host's root.
    Host,
    /// Root and a range of users in the sandbox's user namespace, mapped to host ids from this one
    /// on: the runner is the host's root.
    Mapped(u32),
    /// Root and a range of users, in an ordinary user's user namespace.
    Range,
    /// Root alone, in an ordinary user's user namespace.
    RootOnly,
}

impl Users {
    /// Returns whether the runner is the host's root.
    pub fn runner_is_root(self) -> bool {
        matches!(self, Users::Host | Users::Mapped(_))
    }
}

/// How a machine exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code or the signal of its main process, for users.
    pub detail: String,
    /// Whether it exited by itself after a shutdown by its agent.
    pub orderly: bool,
}

/// A backend that runs sandboxes.
pub trait Driver {
    /// Returns its public name.
    fn name(&self) -> &'static str;

    /// Returns its isolation.
    fn isolation(&self) -> Isolation;

    /// Returns the resources that it cannot limit on this host, each with the reason.
    fn unbounded(&self) -> Vec<String> {
        Vec::new()
    }

    /// Refuses a configuration that its machines do not support. Starts nothing.
    fn check(&self, config: &SandboxConfig) -> Result<(), Failure> {
        Guest::of(config, self.name()).map(drop)
    }

    /// Returns the form of the root filesystem that its machines need.
    fn root(&self) -> Root {
        Root::Overlay
    }

    /// Probes whether it is usable. With `fresh`, cached results are ignored.
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Probe>;

    /// Starts a machine. The caller waits for its agent. Dropping the future cancels the start;
    /// [`Driver::sweep`] then removes what it left.
    fn start<'a>(
        &'a self,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, Failure>>;

    /// Kills and removes everything that machines of this sandbox left on the host. Idempotent.
    fn sweep<'a>(&'a self, dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>>;
}

/// A machine that a driver started. It dies with the runner.
pub trait Machine {
    /// Waits until its agent accepts connections; fails if it never will, with the reason.
    fn ready(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns its walls and limits.
    fn protection(&self) -> Protection {
        Protection::default()
    }

    /// Waits for its exit. Cancel-safe, and can be called again.
    fn exited(&mut self) -> BoxFuture<'_, Exit>;

    /// Kills it with everything in it. Succeeds if it has exited.
    fn kill(&mut self) -> Result<(), Failure>;
}

/// Returns the driver for a choice.
///
/// `auto` considers strong isolation only, by hardware or by gVisor: a weaker one has to be requested
/// by name.
pub async fn choose<'a>(
    choice: &DriverChoice,
    drivers: &'a [Box<dyn Driver>],
) -> Result<&'a dyn Driver, Failure> {
    let mut passed_over = Vec::new();
    for driver in drivers {
        match choice {
            DriverChoice::Named(name) if name != driver.name() => continue,
            DriverChoice::Auto if !driver.isolation().is_strong() => {
                passed_over.push(format!(
                    "{} isolates by {} only",
                    driver.name(),
                    driver.isolation()
                ));
                continue;
            }
            _ => {}
        }
        match driver.probe(false).await {
            Probe::Usable(_) => return Ok(driver.as_ref()),
            Probe::Unusable { reason, remedy } => {
                if *choice != DriverChoice::Auto {
                    let failure = Failure::no_driver(format!(
                        "driver {} cannot be used: {reason}",
                        driver.name()
                    ));
                    return Err(match remedy {
                        Some(remedy) => failure.hint(remedy),
                        None => failure,
                    });
                }
                passed_over.push(format!("{}: {reason}", driver.name()));
            }
        }
    }
    let names: Vec<_> = drivers.iter().map(|driver| driver.name()).collect();
    Err(match choice {
        DriverChoice::Named(name) => Failure::no_driver(format!(
            "driver {name:?} is not known; known are {}",
            names.join(", ")
        )),
        DriverChoice::Auto => Failure::no_driver(format!(
            "no driver with strong isolation can be used ({})",
            passed_over.join("; ")
        ))
        .hint("ask for a weaker one by name: --driver container or MSB_DRIVER=container"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_state::FailureKind;
    use std::task::{Context, Poll, Waker};

    struct Fake(&'static str, Isolation, bool);

    impl Driver for Fake {
        fn name(&self) -> &'static str {
            self.0
        }

        fn isolation(&self) -> Isolation {
            self.1
        }

        fn probe(&self, _fresh: bool) -> BoxFuture<'_, Probe> {
            let probe = if self.2 {
                Probe::Usable("fake".into())
            } else {
                Probe::Unusable { reason: "broken".into(), remedy: Some("mend it".into()) }
            };
            Box::pin(std::future::ready(probe))
        }

        fn start<'a>(
            &'a self,
            _spec: &'a MachineSpec,
        ) -> BoxFuture<'a, Result<Box<dyn Machine>, Failure>> {
            Box::pin(std::future::ready(Err(Failure::boot("fake"))))
        }

        fn sweep<'a>(&'a self, _dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn chosen(
        choice: &str,
        drivers: &[(&'static str, Isolation, bool)],
    ) -> Result<String, Failure> {
        let drivers: Vec<Box<dyn Driver>> = drivers
            .iter()
            .map(|(name, isolation, usable)| Box::new(Fake(name, *isolation, *usable)) as _)
            .collect();
        let choice = DriverChoice::from(choice.to_owned());
        let mut future = Box::pin(choose(&choice, &drivers));
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map(|driver| driver.name().to_owned()),
            Poll::Pending => panic!("the fakes are always ready"),
        }
    }

    #[test]
    fn j9_auto_never_takes_weaker_isolation() {
        let drivers =
            [("a", Isolation::Hardware, false), ("container", Isolation::Container, true)];
        let failure = chosen("auto", &drivers).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NoDriver);
        assert!(failure.message.contains("a: broken"), "{failure}");
        assert!(failure.to_string().contains("MSB_DRIVER=container"), "{failure}");
        assert_eq!(chosen("auto", &[("a", Isolation::Hardware, true)]).unwrap(), "a");
        assert!(chosen("auto", &[("a", Isolation::Unchecked, true)]).is_err());
        let drivers = [("q", Isolation::Emulated, true), ("g", Isolation::Gvisor, true)];
        assert_eq!(chosen("auto", &drivers).unwrap(), "g");
    }

    #[test]
    fn named_driver_is_used_or_its_error_reported() {
        let drivers = [("a", Isolation::Hardware, true), ("c", Isolation::Container, false)];
        assert_eq!(chosen("a", &drivers).unwrap(), "a");
        let failure = chosen("c", &drivers).unwrap_err();
        assert_eq!(failure.to_string(), "driver c cannot be used: broken; mend it");
        assert!(chosen("x", &drivers).unwrap_err().message.contains("known are a, c"));
    }
}
