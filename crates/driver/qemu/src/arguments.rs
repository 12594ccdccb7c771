//! QEMU's command line.

use crate::kernel::Kernel;
use msb_driver::{Guest, IMAGE_TAG, PORT_NAME};
use std::ffi::OsString;

/// Descriptors that QEMU inherits.
pub(crate) const AGENT_FD: i32 = 3;
pub(crate) const FILES_FD: i32 = 4;
pub(crate) const QMP_FD: i32 = 5;
pub(crate) const DISK_FD: i32 = 6;

/// How a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceleration {
    Kvm,
    Tcg,
}

/// What goes into a command line.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) guest: &'a Guest,
    pub(crate) kernel: &'a Kernel,
    pub(crate) acceleration: Acceleration,
    /// Measures the rate of the processor's time stamp counter in kHz, if it is steady.
    pub(crate) tsc_khz: fn() -> Option<u64>,
    /// The sandbox's id, by which `ps` shows whose machine it is.
    pub(crate) id: &'a str,
}

/// Where kernel and initramfs are in QEMU's jail.
pub(crate) const KERNEL: &str = "/kernel";
pub(crate) const INITRAMFS: &str = "/initramfs";
/// The set of descriptors that has the disk, and the path that QEMU opens for it.
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
        if self.is_small() {
            all.pair("-global", "virtio-mmio.force-legacy=false");
            all.pair("-device", "virtconsole,chardev=console");
        } else {
            all.pair("-serial", "chardev:console");
        }
        all.pair("-device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
        all.pair("-device", format!("virtio-blk-{bus},drive=disk"));
        let files = format!("vhost-user-fs-{bus},chardev=files,tag={IMAGE_TAG},queue-size=1024");
        all.pair("-device", files);
        // A guest that took QEMU over could call little; it never needs to start a program.
        let denied = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        all.pair("-sandbox", denied);
        all.0
    }

    /// Whether it is the small machine without firmware, which needs a kernel that knows it.
    fn is_small(&self) -> bool {
        matches!(self.kernel, Kernel::Krunfw(_))
    }

    fn machine(&self) -> &'static str {
        if self.is_small() {
            // Without a serial port of the old kind, whose driver that kernel does not have.
            "microvm,acpi=off,isa-serial=off,memory-backend=memory"
        } else {
            "q35,memory-backend=memory"
        }
    }

    fn bus(&self) -> &'static str {
        if self.is_small() { "device" } else { "pci" }
    }

    /// The kernel's. What is no option of its own becomes the first process's environment. Nothing
    /// may come behind `--`: QEMU appends the devices of the small machine.
    fn command_line(&self) -> String {
        let mut words = vec!["quiet".to_owned(), "panic=-1".to_owned()];
        let mut add = |text: &[&str]| words.extend(text.iter().map(|word| (*word).to_owned()));
        if self.is_small() {
            // A reset by the triple fault, the only one that this machine has; no dummy interface,
            // which this kernel otherwise makes.
            add(&["console=hvc0", "reboot=t", "dummy.numdummies=0"]);
        } else {
            add(&["console=ttyS0", "cryptomgr.notests"]);
        }
        if self.acceleration == Acceleration::Tcg {
            // Emulated code is translated again at each new address. And on a busy host the timer
            // may not tick while the kernel looks whether it does, which would be a panic.
            add(&["norandmaps", "no_timer_check"]);
            // That machine has no clock to compare it with; QEMU hands the host's through.
            if self.is_small()
                && let Some(khz) = (self.tsc_khz)()
            {
                words.extend(["tsc=reliable".to_owned(), format!("tsc_early_khz={khz}")]);
            }
        }
        words.extend(self.guest.words("serial"));
        words.join(" ")
    }
}

/// The disk. What the guest flushes stays in the
/// host's memory: the disk is as lasting as the sandbox, which a crash of the host ends.
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
        let guest = Guest { cpus: 2, memory_mib: 300, hostname: "box".to_owned(), security };
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
    fn a_libkrunfw_kernel_runs_in_the_small_machine() {
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
            "MSB_MACHINE=serial MSB_HOSTNAME=box",
            r#""filename":"/dev/fdset/1""#,
            "-sandbox on",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("-netdev"), "{line}");
        assert!(!line.contains(" -- "), "{line}");
    }

    #[test]
    fn a_distributions_kernel_runs_in_a_pc_and_hardware_keeps_its_addresses_random() {
        let kernel = Kernel::Image { path: "/k".into(), modules: Vec::new() };
        let line = text(&kernel, Acceleration::Kvm);
        for part in ["-machine q35", "virtio-blk-pci", "-accel kvm", "-cpu host", "console=ttyS0"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("norandmaps") && !line.contains("tsc"), "{line}");
    }
}
