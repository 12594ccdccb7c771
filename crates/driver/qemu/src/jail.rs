//! The jails of QEMU and virtiofsd.

use crate::arguments::{AGENT_FD, Acceleration, DISK_FD, FILES_FD, INITRAMFS, KERNEL, QMP_FD};
use msb_driver::{Guest, MachineSpec, Users, largest_file};
use msb_jail::{
    Bind, Ids, Jail, Limits, OWN_ALL, Proc, Program, ProgramFiles, READ_ALL, Slot, Source,
};
use msb_state::Failure;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Directories of QEMU's firmware on common distributions.
const FIRMWARE: [&str; 5] = [
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/qemu-firmware",
    "/usr/share/seavgabios",
    "/usr/share/ipxe/qemu",
];
/// Directories of QEMU's modules, of which a machine may need some.
const MODULES: [&str; 3] = ["/usr/lib64/qemu", "/usr/lib/qemu", "/usr/lib/x86_64-linux-gnu/qemu"];

/// virtiofsd's descriptor with its socket.
pub(crate) const SOCKET_FD: i32 = 3;

/// Capabilities with which QEMU's own virtiofsd starts: it keeps the first two, changes its root
/// (`CAP_SYS_CHROOT`) and drops the others (`CAP_SETPCAP`).
const STARTING: [u32; 4] = [READ_ALL, OWN_ALL, 18, 8];

/// Creates the jails of a sandbox, with its user ids.
#[derive(Debug)]
pub(crate) struct Jailer<'a> {
    spec: &'a MachineSpec,
    cache: &'a Path,
    slot: Option<Slot>,
}

impl<'a> Jailer<'a> {
    pub(crate) fn new(spec: &'a MachineSpec, cache: &'a Path) -> Result<Jailer<'a>, Failure> {
        let slot = match spec.users {
            Users::Host => Slot::for_name(spec.config.name.as_str()),
            _ => Ok(None),
        };
        let slot = slot.map_err(|error| Failure::boot(error.to_string()))?;
        Ok(Jailer { spec, cache, slot })
    }

    /// Returns the reserved ids, to be kept as long as the machine.
    pub(crate) fn into_slot(self) -> Option<Slot> {
        self.slot
    }

    /// Returns the jail of QEMU.
    pub(crate) fn emulator(
        &self,
        program: &Path,
        (kernel, initramfs): (&Path, &Path),
        guest: &Guest,
        acceleration: Acceleration,
    ) -> Result<Jail, Failure> {
        let with_kvm = acceleration == Acceleration::Kvm;
        let ids = match &self.slot {
            Some(slot) => Ok(Ids::single(slot)),
            None => Ids::nested_single(with_kvm),
        };
        let mut jail = self.jail(program, ids, Program::Emulator)?;
        for (path, target) in [(kernel, KERNEL), (initramfs, INITRAMFS)] {
            jail.binds.push(Bind::at(Source::Path(path.into()), Path::new(target)));
        }
        for folder in FIRMWARE.iter().map(Path::new).filter(|folder| folder.is_dir()) {
            jail.binds.push(Bind::read(folder));
        }
        for module in modules() {
            jail.binds.push(Bind::program(&module));
        }
        if with_kvm {
            jail.devices.push("/dev/kvm".into());
        }
        jail.descriptors = vec![AGENT_FD, FILES_FD, QMP_FD, DISK_FD];
        let file_size = Some(largest_file(self.spec, guest));
        jail.limits = Limits { files: Some(1024), file_size, ..self.limits() };
        Ok(jail)
    }

    /// Returns the jail of virtiofsd, with the image at `target`.
    pub(crate) fn server(
        &self,
        program: &Path,
        is_qemus_own: bool,
        target: &Path,
    ) -> Result<Jail, Failure> {
        let ids = match &self.slot {
            Some(slot) => Ok(Ids::all(slot)),
            None => Ids::nested_all(),
        };
        let mut jail = self.jail(program, ids, Program::FileServer)?;
        jail.unmapped = self.slot.as_ref().map(Ids::unmapped);
        let image = Source::Path(self.spec.rootfs.clone().into());
        // An ordinary user's runner is in the user namespace already.
        let idmapped = self.slot.is_some();
        jail.binds.push(Bind { idmapped, ..Bind::at(image, target) });
        // It reopens files through /proc/self/fd; QEMU's own one also reads a setting.
        jail.proc = if is_qemus_own { Proc::Settings } else { Proc::Own };
        jail.descriptors = vec![SOCKET_FD];
        jail.capabilities = if is_qemus_own { STARTING.to_vec() } else { vec![READ_ALL, OWN_ALL] };
        // A guest holds a descriptor for each file that it caches.
        jail.limits = Limits { files: Some(SERVER_FILES), ..self.limits() };
        Ok(jail)
    }

    fn jail(&self, program: &Path, ids: io::Result<Ids>, kind: Program) -> Result<Jail, Failure> {
        let failed = |error| Failure::boot_io("jail", program, error);
        let files = ProgramFiles::of(program, Some(self.cache)).map_err(failed)?;
        let mut jail = Jail::new(ids.map_err(failed)?, kind);
        jail.binds.extend(files.binds());
        jail.environment.push(files.environment());
        jail.devices = vec!["/dev/null".into(), "/dev/urandom".into()];
        jail.require = self.spec.config.require_jail;
        Ok(jail)
    }

    fn limits(&self) -> Limits {
        // An ordinary user's processes may share the id, and would be counted as well.
        let processes = self.slot.as_ref().map(|_| PROCESSES);
        Limits { processes, ..Limits::default() }
    }
}

/// Limit of the threads of QEMU and virtiofsd together, which have the same id.
const PROCESSES: u64 = 1024;
/// Limit of virtiofsd's descriptors, its own default.
const SERVER_FILES: u64 = 1_000_000;

/// Returns the accelerators' modules.
fn modules() -> Vec<PathBuf> {
    let folders = MODULES.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = folders.flatten().flatten().map(|entry| entry.path());
    files
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("accel-") && path.extension() == Some(OsStr::new("so"))
        })
        .collect()
}
