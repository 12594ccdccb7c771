//! QEMU's command line.

use crate::kernel::Kernel;
use msb_driver::{Guest, IMAGE_TAG, PORT_NAME};
use std::ffi::OsString;

/// Descriptors that QEMU inherits.
pub(crate) const AGENT_FD: i32 = 3;
pub(crate) const FILES_FD: i32 = 4;
pub(crate) const QMP_FD: i32 = 5;
pub(crate) const DISK_FD: i32 = 6;

/// The accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceleration {
    Kvm,
    Tcg,
}

/// The parameters of a command line.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) guest: &'a Guest,
    pub(crate) kernel: &'a Kernel,
    pub(crate) acceleration: Acceleration,
    /// Measures the rate of the time stamp counter in kHz, if it is constant.
    pub(crate) tsc_khz: fn() -> Option<u64>,
    /// The sandbox's id, which `ps` shows.
    pub(crate) id: &'a str,
}

/// The kernel and the initramfs in QEMU's jail.
pub(crate) const KERNEL: &str = "/kernel";
pub(crate) const INITRAMFS: &str = "/initramfs";
/// The descriptor set of the disk, and the path that QEMU opens for it.
const DISK_SET: u32 = 1;
const DISK: &str = "/dev/fdset/1";

impl Machine<'_> {
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut all = Arguments(Vec::new());
        let memory = self.guest.memory_mib;
        all.add("-nodefaults").add("-no-user-config").add("-no-reboot");
        all.pair("-name", self.id);
        all.pair("-display", "none").pair("-m", memory.to_string());
        all.pair("-smp", self.guest.cpus.to_string());
        // Shared, since virtiofsd reads requests from it and writes files into it.
        all.pair("-object", format!("memory-backend-memfd,id=memory,size={memory}M,share=on"));
        match self.acceleration {
            Acceleration::Kvm => all.pair("-accel", "kvm").pair("-cpu", "host"),
            Acceleration::Tcg => all.pair("-accel", "tcg").pair("-cpu", "max"),
        };
        all.pair("-machine", self.machine()).pair("-kernel", KERNEL);
        all.pair("-initrd", INITRAMFS).pair("-append", self.command_line());
        all.pair("-chardev", "stdio,id=console,signal=off");
        all.pair("-chardev", format!("socket,id=agent,fd={AGENT_FD}"));
        all.pair("-chardev", format!("socket,id=files,fd={FILES_FD}"));
        all.pair("-chardev", format!("socket,id=qmp,fd={QMP_FD}"));
        all.pair("-mon", "chardev=qmp,mode=control");
        all.pair("-add-fd", format!("fd={DISK_FD},set={DISK_SET}"));
        all.pair("-blockdev", disk());
        let bus = self.bus();
        all.pair("-device", format!("virtio-serial-{bus}"));
        if self.is_microvm() {
            all.pair("-global", "virtio-mmio.force-legacy=false");
            all.pair("-device", "virtconsole,chardev=console");
        } else {
            all.pair("-serial", "chardev:console");
        }
        all.pair("-device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
        all.pair("-device", format!("virtio-blk-{bus},drive=disk"));
        let files = format!("vhost-user-fs-{bus},chardev=files,tag={IMAGE_TAG},queue-size=1024");
        all.pair("-device", files);
        // Limits a compromised QEMU, which never needs to start a program.
        let denied = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        all.pair("-sandbox", denied);
        all.0
    }

    /// Returns whether it is a microvm without firmware, which needs a kernel that supports it.
    fn is_microvm(&self) -> bool {
        matches!(self.kernel, Kernel::Krunfw(_))
    }

    fn machine(&self) -> &'static str {
        if self.is_microvm() {
            // That kernel has no driver for an ISA serial port.
            "microvm,acpi=off,isa-serial=off,memory-backend=memory"
        } else {
            "q35,memory-backend=memory"
        }
    }

    fn bus(&self) -> &'static str {
        if self.is_microvm() { "device" } else { "pci" }
    }

    /// Returns the kernel's command line. Unknown options become the first process's environment.
    /// Nothing may follow `--`: QEMU appends the devices of a microvm.
    fn command_line(&self) -> String {
        let mut words = vec!["quiet".to_owned(), "panic=-1".to_owned()];
        let mut add = |text: &[&str]| words.extend(text.iter().map(|word| (*word).to_owned()));
        if self.is_microvm() {
            // A microvm resets by triple fault only; this kernel creates a dummy network interface
            // by default.
            add(&["console=hvc0", "reboot=t", "dummy.numdummies=0"]);
        } else {
            add(&["console=ttyS0", "cryptomgr.notests"]);
        }
        if self.acceleration == Acceleration::Tcg {
            // Code is translated again at each new address; and on a busy host the kernel's check
            // of the timer may fail, which is a panic.
            add(&["norandmaps", "no_timer_check"]);
            // A microvm has no clock for calibration; the guest reads the host's counter.
            if self.is_microvm()
                && let Some(khz) = (self.tsc_khz)()
            {
                words.extend(["tsc=reliable".to_owned(), format!("tsc_early_khz={khz}")]);
            }
        }
        words.extend(self.guest.options("serial"));
        words.join(" ")
    }
}

/// Returns the disk. A flush of the guest does not reach the host's disk, since the disk need not
/// survive a crash of the host.
fn disk() -> String {
    let cache = serde_json::json!({ "direct": false, "no-flush": true });
    serde_json::json!({
        "driver": "raw",
        "node-name": "disk",
        "discard": "unmap",
        "cache": cache,
        "file": {
            "driver": "file",
            "filename": DISK,
            "discard": "unmap",
            "cache": cache,
        },
    })
    .to_string()
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, word: impl Into<OsString>) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) -> &mut Self {
        self.add(option).add(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use msb_driver::Krunfw;

    fn text(kernel: &Kernel, acceleration: Acceleration) -> String {
        let security = msb_state::Security::Default;
        let hostname = "box".to_owned();
        let guest = Guest { cpus: 2, memory_mib: 300, shm_bytes: 64 << 20, hostname, security };
        let machine = Machine {
            guest: &guest,
            kernel,
            acceleration,
            tsc_khz: || Some(2_300_000),
            id: "box-1",
        };
        let all = machine.arguments();
        all.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn libkrunfw_kernel_runs_in_a_microvm() {
        let kernel = Kernel::Krunfw(Krunfw { path: "/k".into() });
        let line = text(&kernel, Acceleration::Tcg);
        for part in [
            "-machine microvm,acpi=off",
            "-smp 2",
            "size=300M",
            "virtio-serial-device",
            "tsc_early_khz=2300000",
            "norandmaps",
            "reboot=t",
            "MSB_MACHINE=serial MSB_HOSTNAME=box MSB_SHM=67108864",
            r#""filename":"/dev/fdset/1""#,
            "-sandbox on",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("-netdev"), "{line}");
        assert!(!line.contains(" -- "), "{line}");
    }

    #[test]
    fn distribution_kernel_runs_in_a_pc_with_kaslr() {
        let kernel = Kernel::Image { path: "/k".into(), modules: Vec::new() };
        let line = text(&kernel, Acceleration::Kvm);
        for part in ["-machine q35", "virtio-blk-pci", "-accel kvm", "-cpu host", "console=ttyS0"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("norandmaps") && !line.contains("tsc"), "{line}");
    }
}
