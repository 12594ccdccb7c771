//! The driver: its probe, and the start of a machine.

use crate::control::Control;
use crate::jail::{Identity, Sockets, jail};
use crate::machine::{Krun, Parts};
use crate::vmm::Vmm;
use msb_driver::{
    BoxFuture, Driver, Guest, Krunfw, Machine, MachineSpec, Root, apply_limits, create_disk,
    find_krunfw, kvm, probe_disk, remove_limits, watch,
};
use msb_jail::Starting;
use msb_state::{Failure, Isolation, Probe, SandboxDir};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The variable that skips the check for hardware virtualisation.
const UNCHECKED: &str = "MSB_KRUN_UNCHECKED";

/// Memory of the VMM itself, in MiB: its program, its tables, the guest's kernel.
const OWN_MIB: u64 = 256;

/// What the driver needs to know about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program that becomes the VMM when it is called with [`Vmm::arguments`].
    pub vmm: PathBuf,
}

/// Runs sandboxes as microVMs of libkrun.
#[derive(Debug)]
pub struct KrunDriver {
    settings: Settings,
}

impl KrunDriver {
    /// Creates a driver.
    pub fn new(settings: Settings) -> Self {
        KrunDriver { settings }
    }

    async fn run(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, Failure> {
        let guest = Guest::of(&spec.config, self.name())?;
        let krunfw = usable().map_err(|(why, remedy)| {
            let failure = Failure::no_driver(format!("driver krun cannot be used: {why}"));
            remedy.into_iter().fold(failure, Failure::hint)
        })?;
        let disk_mib = spec.config.disk_mib.unwrap_or(msb_state::DEFAULT_DISK_MIB);
        create_disk(&spec.dir.disk(), disk_mib).await?;
        let run = spec.dir.run();
        let io = |error: io::Error| Failure::boot_io("create sockets for", &run, error);
        let identity = Identity::take(spec)?;
        let (sockets, listener) = Sockets::create(&run, &identity)?;
        let control = Control::listen(listener).map_err(io)?;
        let vmm = description(&guest, &krunfw, spec)?;
        let program = &self.settings.vmm;
        let mut command = Command::new(program);
        command.args(vmm.arguments()).current_dir("/").stdin(Stdio::null());
        command.stdout(spec.console()?).stderr(spec.console()?);
        identity.own(&spec.console()?).map_err(io)?;
        let disk = spec.dir.disk();
        let owned = File::open(&disk).and_then(|file| identity.own(&file));
        owned.map_err(|error| Failure::boot_io("give the VMM", &disk, error))?;
        let jailed = jail(spec, &guest, &identity, sockets.path())
            .start(command, Vec::new())
            .and_then(Starting::wait);
        let started =
            jailed.map_err(|error| Failure::boot(format!("cannot start the VMM: {error}")))?;
        let vmm = watch(started.pid).map_err(|error| Failure::boot_io("run", program, error))?;
        let protection = apply_limits(spec, &guest, OWN_MIB, &[&started]);
        let slot = identity.into_slot();
        Ok(Box::new(Krun::new(Parts { vmm, control, sockets, slot, protection })))
    }
}

fn description(guest: &Guest, krunfw: &Krunfw, spec: &MachineSpec) -> Result<Vmm, Failure> {
    let cpus =
        u8::try_from(guest.cpus).map_err(|error| Failure::invalid_config(error.to_string()))?;
    Ok(Vmm {
        krunfw: krunfw.path.clone(),
        cpus,
        memory_mib: guest.memory_mib,
        agent: spec.agent.clone(),
        // This kernel creates a dummy network interface by default.
        options: guest
            .options("vsock")
            .into_iter()
            .chain(["dummy.numdummies=0".to_owned()])
            .collect(),
    })
}

fn unchecked() -> bool {
    std::env::var_os(UNCHECKED).is_some_and(|value| value == "1")
}

/// Returns libkrunfw if the driver is usable, else the reason and the remedy.
fn usable() -> Result<Krunfw, (String, Option<String>)> {
    kvm(unchecked()).map_err(|(why, remedy)| {
        let remedy = remedy.unwrap_or_else(|| {
            format!("{UNCHECKED}=1, if this host has hardware virtualization all the same")
        });
        (why, Some(remedy))
    })?;
    probe_disk().map_err(|(why, remedy)| (why, Some(remedy)))?;
    find_krunfw().map_err(|why| (why, None))
}

impl Driver for KrunDriver {
    fn name(&self) -> &'static str {
        "krun"
    }

    fn isolation(&self) -> Isolation {
        if unchecked() { Isolation::Unchecked } else { Isolation::Hardware }
    }

    fn root(&self) -> Root {
        Root::Image
    }

    fn probe(&self, _fresh: bool) -> BoxFuture<'_, Probe> {
        let probe = match usable() {
            Ok(krunfw) => Probe::Usable(format!("KVM; kernel {}", krunfw.path.display())),
            Err((reason, remedy)) => Probe::Unusable { reason, remedy },
        };
        Box::pin(std::future::ready(probe))
    }

    fn start<'a>(
        &'a self,
        spec: &'a MachineSpec,
    ) -> BoxFuture<'a, Result<Box<dyn Machine>, Failure>> {
        Box::pin(self.run(spec))
    }

    fn sweep<'a>(&'a self, dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>> {
        // The VMM died with its runner, and its files are in directories that every sweep removes.
        Box::pin(std::future::ready(remove_limits(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmm_is_described_by_its_arguments() {
        let vmm = Vmm {
            krunfw: "/l".into(),
            cpus: 2,
            memory_mib: 300,
            agent: "/a".into(),
            options: vec!["MSB_MACHINE=vsock".to_owned()],
        };
        let words: Vec<_> =
            vmm.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(
            words.join(" "),
            "vmm --krunfw /l --cpus 2 --memory 300 --agent /a --tell MSB_MACHINE=vsock"
        );
    }
}
