//! What a driver must do.

use msb_state::{DriverChoice, Failure, Isolation, Probe, Protection, SandboxConfig, SandboxDir};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;

/// A future that a trait can return. It stays on the runner's only thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What a machine is made from.
#[derive(Debug)]
pub struct MachineSpec {
    /// What was asked for.
    pub config: SandboxConfig,
    /// Where the sandbox keeps its state. The driver may use `bundle` and the directory of the
    /// sockets, in which the agent's is to appear as `agent.sock`.
    pub dir: SandboxDir,
    /// What the driver asked for by [`Driver::root`].
    pub rootfs: PathBuf,
    /// The agent's binary on the host.
    pub agent: PathBuf,
    /// Which users can exist in it.
    pub users: Users,
    /// Where what the machine and its agent print goes: a pipe that is always read.
    pub console: OwnedFd,
}

impl MachineSpec {
    /// One more end of the pipe [`MachineSpec::console`], for a process.
    pub fn console(&self) -> Result<OwnedFd, Failure> {
        let copy = self.console.try_clone();
        copy.map_err(|error| Failure::boot(format!("cannot duplicate the console: {error}")))
    }
}

/// What a driver wants to be shown as the root filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The image and the sandbox's own layer, assembled and writable.
    Overlay,
    /// The image alone, read-only; the guest keeps the sandbox's own layer on a disk.
    Image,
}

/// Which users exist where the runner runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// All of the host's: the runner is the host's root.
    Host,
    /// Root and a range of others, in a user namespace of the sandbox that maps them to host ids
    /// from this one on: the runner is the host's root.
    Mapped(u32),
    /// Root and a range of others, in a user namespace of an ordinary user.
    Range,
    /// Root alone, in a user namespace of an ordinary user.
    RootOnly,
}

impl Users {
    /// Whether the runner is the host's root.
    pub fn runner_is_root(self) -> bool {
        matches!(self, Users::Host | Users::Mapped(_))
    }
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// For people: the exit code or the signal of its main process.
    pub detail: String,
    /// Whether it ended by itself and in order, as an agent does that was asked to.
    pub orderly: bool,
}

/// A way to run a sandbox.
pub trait Driver {
    /// The name by which it is asked for.
    fn name(&self) -> &'static str;

    /// What it isolates with.
    fn isolation(&self) -> Isolation;

    /// What it cannot bound on this host, each with the reason.
    fn unbounded(&self) -> Vec<String> {
        Vec::new()
    }

    /// What its machines are to be shown.
    fn root(&self) -> Root {
        Root::Overlay
    }

    /// Looks whether it can be used. With `fresh`, nothing that was remembered counts.
    fn probe(&self, fresh: bool) -> BoxFuture<'_, Probe>;

    /// Starts a machine. It is up when its agent answers, which the caller finds out. Dropping
    /// the future gives the start up; [`Driver::sweep`] then removes what it left.
    fn start<'a>(
        &'a self,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, Failure>>;

    /// Ends and removes everything on the host that machines of this sandbox left behind,
    /// whatever was killed before. Nothing there is fine.
    fn sweep<'a>(&'a self, dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>>;
}

/// A machine that a driver started. Its life ends, at the latest, with the runner's.
pub trait Machine {
    /// Waits until its agent can be connected to; the error says in words why it never will.
    fn ready(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// How it is held: its walls and its bounds.
    fn protection(&self) -> Protection {
        Protection::default()
    }

    /// Waits for its end. May be called again, and given up, at any time.
    fn exited(&mut self) -> BoxFuture<'_, Exit>;

    /// Ends it now, with everything in it. One that has ended is fine.
    fn kill(&mut self) -> Result<(), Failure>;
}

/// Finds the driver for a choice.
///
/// `auto` looks only among those with a hardware boundary: weaker isolation is had by name.
pub async fn choose<'a>(
    choice: &DriverChoice,
    drivers: &'a [Box<dyn Driver>],
) -> Result<&'a dyn Driver, Failure> {
    let mut passed_over = Vec::new();
    for driver in drivers {
        match choice {
            DriverChoice::Named(name) if name != driver.name() => continue,
            DriverChoice::Auto if driver.isolation() != Isolation::Hardware => {
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
            "no driver with hardware isolation can be used ({})",
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
    }

    #[test]
    fn a_named_driver_is_taken_or_its_trouble_is_told() {
        let drivers = [("a", Isolation::Hardware, true), ("c", Isolation::Container, false)];
        assert_eq!(chosen("a", &drivers).unwrap(), "a");
        let failure = chosen("c", &drivers).unwrap_err();
        assert_eq!(failure.to_string(), "driver c cannot be used: broken; mend it");
        assert!(chosen("x", &drivers).unwrap_err().message.contains("known are a, c"));
    }
}
