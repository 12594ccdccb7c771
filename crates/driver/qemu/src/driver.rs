//! The driver: its probe, and the start of a machine.

use crate::arguments::{AGENT_FD, Acceleration, DISK_FD, FILES_FD, Machine as Description, QMP_FD};
use crate::cpio::Archive;
use crate::jail::{Jailer, SOCKET_FD};
use crate::kernel::Kernel;
use crate::machine::{Parts, Qemu};
use crate::qmp::ShutdownReason;
use msb_driver::{
    BoxFuture, Driver, Guest, Machine, MachineSpec, Relay, Root, apply_limits, create_disk, kvm,
    on_path, probe_disk, remove_limits,
};
use msb_jail::{Jail, JailError, Starting};
use msb_state::{Failure, Isolation, Probe, SandboxDir, bind_in, connect_in};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// QEMU's program. The guest has the host's architecture.
const PROGRAM: &str = "qemu-system-x86_64";
/// Directories of virtiofsd outside `PATH`: on most distributions, and in Debian's package of QEMU.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec", "/usr/lib/qemu"];

/// Memory of QEMU and virtiofsd besides the guest's, in MiB; about 100 of it is not page cache.
const OWN_MIB: u64 = 512;
/// Size limit of the emulator's translated code, in MiB.
const TRANSLATED_MIB: u64 = 1024;

/// What the driver needs to know about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The home, which may have an unpacked kernel.
    pub home: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
    /// A program, with arguments, that runs the command that follows in a jail.
    pub launcher: Vec<PathBuf>,
    /// Measures the rate of the time stamp counter in kHz, if it is constant. Takes milliseconds.
    pub tsc_khz: fn() -> Option<u64>,
}

/// Runs sandboxes as virtual machines of QEMU.
#[derive(Debug)]
pub struct QemuDriver {
    settings: Settings,
    acceleration: Acceleration,
}

/// The programs and the kernel.
struct Tools {
    qemu: PathBuf,
    virtiofsd: PathBuf,
    kernel: Kernel,
}

/// Missing dependencies, and the commands that install them.
#[derive(Debug, Default)]
struct Missing {
    what: Vec<String>,
    packages: Vec<&'static str>,
    no_kernel: bool,
}

impl Missing {
    fn package(&mut self, name: &'static str, what: String) {
        self.packages.push(name);
        self.what.push(what);
    }

    fn kernel(&mut self, what: String) {
        self.no_kernel = true;
        self.what.push(what);
    }

    fn failure(&self) -> Failure {
        let packages = self.packages.join(" ");
        let install = (!packages.is_empty()).then(|| format!("apt-get install {packages}"));
        let fetch = self.no_kernel.then(|| "msb setup kernel".to_owned());
        let commands: Vec<_> = install.into_iter().chain(fetch).collect();
        Failure::no_driver(self.what.join("; ")).hint(commands.join(" && "))
    }
}

impl QemuDriver {
    /// Creates a driver, and decides whether it has hardware isolation.
    pub fn new(settings: Settings) -> Self {
        let acceleration = if kvm(false).is_ok() { Acceleration::Kvm } else { Acceleration::Tcg };
        QemuDriver { settings, acceleration }
    }

    fn tools(&self) -> Result<Tools, Failure> {
        let mut missing = Missing::default();
        let qemu = on_path(PROGRAM, &[]);
        let virtiofsd = on_path("virtiofsd", &VIRTIOFSD);
        if qemu.is_none() {
            // Debian 12's package includes virtiofsd.
            missing.package("qemu-system-x86", format!("{PROGRAM} is not installed"));
        } else if virtiofsd.is_none() {
            missing.package("virtiofsd", "virtiofsd is not installed".to_owned());
        }
        if let Err((why, _)) = probe_disk() {
            missing.package("e2fsprogs", why);
        }
        let kernel = Kernel::find(&self.settings.home)
            .map_err(|why| missing.kernel(format!("no guest kernel was found: {why}")));
        let (Some(qemu), Some(virtiofsd), Ok(kernel), true) =
            (qemu, virtiofsd, kernel, missing.what.is_empty())
        else {
            return Err(missing.failure());
        };
        for program in [&qemu, &virtiofsd] {
            msb_state::check_trusted(program)
                .map_err(|error| Failure::no_driver(error.to_string()))?;
        }
        Ok(Tools { qemu, virtiofsd, kernel })
    }

    /// Starts a program in a jail, with passed descriptors and its output in the console's log.
    fn start(
        &self,
        jail: &Jail,
        program: &Path,
        arguments: &[OsString],
        passed: Vec<(OwnedFd, i32)>,
        spec: &MachineSpec,
    ) -> Result<Starting, Failure> {
        let mut launcher = self.settings.launcher.iter();
        let program_launcher = launcher.next().ok_or_else(|| {
            Failure::boot(format!("cannot run {}: msb-runner was not found", program.display()))
        })?;
        let mut command = Command::new(program_launcher);
        command.args(launcher).arg(program).args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(spec.console()?).stderr(spec.console()?);
        jail.start(command, passed).map_err(|error| jail_failure(program, &error))
    }

    async fn run(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, Failure> {
        let guest = Guest::of(&spec.config, self.name())?;
        let tools = self.tools()?;
        let run = spec.dir.run();
        let disk_mib = spec.config.disk_mib.unwrap_or(msb_state::DEFAULT_DISK_MIB);
        create_disk(&spec.dir.disk(), disk_mib).await?;
        let kernel_file = tools.kernel.file(&self.settings.cache)?;
        let initramfs = spec.dir.bundle().join("initramfs");
        write_initramfs(&initramfs, &spec.agent, &tools.kernel)
            .map_err(|error| Failure::boot_io("write", &initramfs, error))?;

        let io = |error: io::Error| Failure::boot_io("create sockets for", &run, error);
        let jailer = Jailer::new(spec, &self.settings.cache)?;
        let (server, files_qemu) = self.share(&tools.virtiofsd, &jailer, spec)?;
        let (agent, agent_qemu) = StdStream::pair().map_err(io)?;
        let (qmp, qmp_qemu) = StdStream::pair().map_err(io)?;
        let disk = spec.dir.disk();
        let disk_file = fs::OpenOptions::new().read(true).write(true).open(&disk);
        let disk_file = disk_file.map_err(|error| Failure::boot_io("open", &disk, error))?;
        let arguments = Description {
            guest: &guest,
            kernel: &tools.kernel,
            acceleration: self.acceleration,
            tsc_khz: self.settings.tsc_khz,
            id: spec.dir.id(),
        }
        .arguments();
        let passed = vec![
            (OwnedFd::from(agent_qemu), AGENT_FD),
            (files_qemu.into(), FILES_FD),
            (qmp_qemu.into(), QMP_FD),
            (disk_file.into(), DISK_FD),
        ];
        let booted = (kernel_file.as_path(), initramfs.as_path());
        let jail = jailer.emulator(&tools.qemu, booted, &guest, self.acceleration)?;
        let emulator = self.start(&jail, &tools.qemu, &arguments, passed, spec)?;
        // Both make their jails at the same time.
        let files = server.wait().map_err(|error| jail_failure(&tools.virtiofsd, &error))?;
        let qemu = emulator.wait().map_err(|error| jail_failure(&tools.qemu, &error))?;
        let own_mib = match self.acceleration {
            Acceleration::Kvm => OWN_MIB,
            Acceleration::Tcg => OWN_MIB + TRANSLATED_MIB,
        };
        let protection = apply_limits(spec, &guest, own_mib, &[&files, &qemu]);

        let listener = bind_in(&run, "agent.sock").map_err(|e| Failure::boot(e.to_string()))?;
        let relay = Relay::start(agent, listener).map_err(io)?;
        let reason = ShutdownReason::listen(qmp).map_err(io)?;
        let slot = jailer.into_slot();
        let (qemu, files) = (qemu.pid, files.pid);
        let parts = Parts { qemu, files, relay, reason, slot, protection };
        Ok(Box::new(Qemu::new(parts).map_err(io)?))
    }

    /// Starts virtiofsd for the image, and connects to it.
    fn share(
        &self,
        program: &Path,
        jailer: &Jailer<'_>,
        spec: &MachineSpec,
    ) -> Result<(Starting, StdStream), Failure> {
        let run = spec.dir.run();
        let text = |error: msb_state::Error| Failure::boot(error.to_string());
        let listener = bind_in(&run, "files.sock").map_err(text)?;
        let stream = connect_in(&run, "files.sock").map_err(text)?;
        // Named by the sandbox's id, which `ps` shows.
        let image = Path::new("/").join(spec.dir.id());
        let is_qemus_own = is_qemus_own(program);
        let jail = jailer.server(program, is_qemus_own, &image)?;
        let arguments = share_arguments(is_qemus_own, &image);
        let passed = vec![(OwnedFd::from(listener), SOCKET_FD)];
        Ok((self.start(&jail, program, &arguments, passed, spec)?, stream))
    }
}

fn jail_failure(program: &Path, error: &JailError) -> Failure {
    Failure::boot(format!("cannot start {}: {error}", program.display()))
}

/// Returns whether it is the older virtiofsd, in C, of QEMU before version 8.
fn is_qemus_own(program: &Path) -> bool {
    program.starts_with("/usr/lib/qemu")
}

/// Returns virtiofsd's arguments, to serve `image`.
fn share_arguments(is_qemus_own: bool, image: &Path) -> Vec<OsString> {
    let socket = format!("--fd={SOCKET_FD}");
    // Keep the jail's limit.
    let files = "--rlimit-nofile=0".to_owned();
    let image = image.display();
    let arguments = if is_qemus_own {
        // It has no read-only option; the mount is read-only. It keeps the capabilities that open
        // every file.
        let capabilities = "-chown:-dac_override:-fsetid:-setgid:-setuid:-mknod:-setfcap\
                            :+dac_read_search";
        let settings = format!(
            "cache=always,sandbox=chroot,xattr,log_level=warn,modcaps={capabilities},\
             source={image}"
        );
        vec![socket, files, "-f".to_owned(), "-o".to_owned(), settings]
    } else {
        let folder = format!("--shared-dir={image}");
        let rest = ["--cache=always", "--sandbox=none", "--xattr", "--readonly"];
        rest.map(str::to_owned).into_iter().chain([socket, files, folder]).collect()
    };
    arguments.into_iter().map(OsString::from).collect()
}

fn write_initramfs(path: &Path, agent: &Path, kernel: &Kernel) -> io::Result<()> {
    let file = io::BufWriter::new(fs::File::create(path)?);
    let mut archive = Archive::new(file);
    archive.file("init", &fs::read(agent)?)?;
    if let Kernel::Image { modules, .. } = kernel
        && !modules.is_empty()
    {
        archive.directory("modules")?;
        for (number, module) in modules.iter().enumerate() {
            archive.file(&format!("modules/{number:03}.ko"), &fs::read(module)?)?;
        }
    }
    let file = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    // QEMU has its own id; other users cannot enter the sandbox's directory.
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

impl Driver for QemuDriver {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn isolation(&self) -> Isolation {
        match self.acceleration {
            Acceleration::Kvm => Isolation::Hardware,
            Acceleration::Tcg => Isolation::Emulated,
        }
    }

    fn root(&self) -> Root {
        Root::Image
    }

    fn probe(&self, _fresh: bool) -> BoxFuture<'_, Probe> {
        let probe = match self.tools() {
            Ok(tools) => {
                let how = match (self.acceleration, kvm(false)) {
                    (Acceleration::Tcg, Err((why, _))) => format!("emulating, since {why}"),
                    (Acceleration::Tcg, Ok(())) => "emulating".to_owned(),
                    (Acceleration::Kvm, _) => "with KVM".to_owned(),
                };
                let (qemu, kernel) = (tools.qemu.display(), tools.kernel.name());
                Probe::Usable(format!("{qemu} {how}; kernel {kernel}"))
            }
            Err(failure) => Probe::Unusable { reason: failure.message, remedy: failure.hint },
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
        // Both processes died with their runner, and their files are in directories that every
        // sweep removes.
        Box::pin(std::future::ready(remove_limits(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_missing_packages_are_named_with_the_command() {
        let mut missing = Missing::default();
        missing.kernel("no kernel".to_owned());
        let failure = missing.failure();
        assert_eq!(failure.message, "no kernel");
        assert_eq!(failure.hint.as_deref(), Some("msb setup kernel"));
        missing.package("qemu-system-x86", "no QEMU".to_owned());
        missing.package("e2fsprogs", "no mkfs".to_owned());
        let failure = missing.failure();
        assert_eq!(failure.message, "no kernel; no QEMU; no mkfs");
        let all = "apt-get install qemu-system-x86 e2fsprogs && msb setup kernel";
        assert_eq!(failure.hint.as_deref(), Some(all));
    }

    #[test]
    fn each_virtiofsd_gets_its_own_arguments() {
        let text = |is_qemus_own| {
            let all = share_arguments(is_qemus_own, Path::new("/box"));
            all.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert!(text(true).ends_with(":-setfcap:+dac_read_search,source=/box"), "{}", text(true));
        assert!(text(false).contains("--readonly --fd=3"), "{}", text(false));
        assert!(is_qemus_own(Path::new("/usr/lib/qemu/virtiofsd")));
        assert!(!is_qemus_own(Path::new("/usr/libexec/virtiofsd")));
    }
}
