//! The driver: what it needs, and how a machine is started.

use crate::arguments::{
    AGENT_FD, Acceleration, FILES_FD, INITRAMFS, Machine as Description, QMP_FD,
};
use crate::cpio::Archive;
use crate::kernel::Kernel;
use crate::machine::{Parts, Qemu};
use crate::qmp::Said;
use command_fds::{CommandFdExt, FdMapping};
use msb_driver::{
    BoxFuture, Driver, Failure, Isolation, Machine, MachineSpec, Probe, Root, SandboxDir, bind_in,
    connect_in,
};
use msb_driver_common::{Guest, kvm, make_disk, on_path, probe_disk};
use msb_relay::Hello;
use rustix::fs::{Mode, OFlags, open};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};

/// The emulator. A guest is of the host's kind.
const PROGRAM: &str = "qemu-system-x86_64";
/// Where virtiofsd is, besides `PATH`: on most distributions, and in Debian's package of QEMU.
const VIRTIOFSD: [&str; 2] = ["/usr/libexec", "/usr/lib/qemu"];

/// What the driver needs to know about its surroundings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the state, below which a kernel may have been unpacked.
    pub home: PathBuf,
    /// Where what can be made again is kept.
    pub cache: PathBuf,
    /// A program, with arguments, that runs what follows and ends it with its own parent.
    pub launcher: Vec<PathBuf>,
    /// Measures the rate of the processor's time stamp counter in kHz, if it is steady. Takes
    /// some milliseconds.
    pub tsc_khz: fn() -> Option<u64>,
}

/// Runs sandboxes as virtual machines of QEMU.
#[derive(Debug)]
pub struct QemuDriver {
    settings: Settings,
    acceleration: Acceleration,
}

/// The programs that were found.
struct Tools {
    qemu: PathBuf,
    virtiofsd: PathBuf,
    kernel: Kernel,
}

/// What is not there, and the commands that change that.
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
    /// A driver in the given surroundings. Whether it isolates by hardware is settled here.
    pub fn new(settings: Settings) -> Self {
        let acceleration = if kvm(false).is_ok() { Acceleration::Kvm } else { Acceleration::Tcg };
        QemuDriver { settings, acceleration }
    }

    fn tools(&self) -> Result<Tools, Failure> {
        let mut missing = Missing::default();
        let qemu = on_path(PROGRAM, &[]);
        let virtiofsd = on_path("virtiofsd", &VIRTIOFSD);
        if qemu.is_none() {
            // Debian 12's package has virtiofsd in it.
            missing.package("qemu-system-x86", format!("{PROGRAM} is not there"));
        } else if virtiofsd.is_none() {
            missing.package("virtiofsd", "virtiofsd is not there".to_owned());
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
        Ok(Tools { qemu, virtiofsd, kernel })
    }

    fn command(&self, program: &Path) -> Command {
        let mut words = self.settings.launcher.iter();
        let mut command = match words.next() {
            Some(launcher) => Command::new(launcher),
            None => return Command::new(program),
        };
        command.args(words).arg(program);
        command
    }

    async fn run(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, Failure> {
        let guest = Guest::of(&spec.config, self.name())?;
        let tools = self.tools()?;
        let run = spec.dir.run();
        make_disk(&spec.dir.disk()).await?;
        let kernel_file = tools.kernel.file(&self.settings.cache)?;
        let initramfs = spec.dir.path().join(INITRAMFS);
        write_initramfs(&initramfs, &spec.agent, &tools.kernel)
            .map_err(|error| Failure::boot_io("write", &initramfs, error))?;

        let io = |error: io::Error| Failure::boot_io("make sockets for", &run, error);
        let (files, files_qemu) = self.share(&tools.virtiofsd, spec)?;
        let (agent, agent_qemu) = StdStream::pair().map_err(io)?;
        let (qmp, qmp_qemu) = StdStream::pair().map_err(io)?;
        let arguments = Description {
            guest: &guest,
            kernel: &tools.kernel,
            acceleration: self.acceleration,
            tsc_khz: self.settings.tsc_khz,
            kernel_file: &kernel_file,
        }
        .arguments();
        let mut command = self.command(&tools.qemu);
        command.args(arguments).current_dir(spec.dir.path());
        let passed = [
            (OwnedFd::from(agent_qemu), AGENT_FD),
            (files_qemu.into(), FILES_FD),
            (qmp_qemu.into(), QMP_FD),
        ];
        let qemu = spawn(&mut command, passed, spec)?;

        let listener = bind_in(&run, "agent.sock").map_err(|e| Failure::boot(e.to_string()))?;
        let relay = begin_relay(agent, listener).map_err(io)?;
        let said = Said::listen(qmp).map_err(io)?;
        let parts = Parts { qemu, files, relay, said };
        Ok(Box::new(Qemu::new(parts).map_err(io)?))
    }

    /// Starts the program that shows the image, and connects to it.
    fn share(&self, program: &Path, spec: &MachineSpec) -> Result<(Child, StdStream), Failure> {
        let run = spec.dir.run();
        let text = |error: msb_driver::Error| Failure::boot(error.to_string());
        let listener = bind_in(&run, "files.sock").map_err(text)?;
        let stream = connect_in(&run, "files.sock").map_err(text)?;
        let mut command = self.command(program);
        command.args(share_arguments(is_qemus_own(program))).current_dir("/");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let image = open(&spec.rootfs, flags, Mode::empty())
            .map_err(|error| Failure::boot_io("open", &spec.rootfs, error))?;
        let child = spawn(&mut command, [(OwnedFd::from(listener), 3), (image, 4)], spec)?;
        Ok((child, stream))
    }
}

/// Starts a program with descriptors of its own, and its output in the console's log.
fn spawn<const N: usize>(
    command: &mut Command,
    passed: [(OwnedFd, i32); N],
    spec: &MachineSpec,
) -> Result<Child, Failure> {
    let program = PathBuf::from(command.get_program());
    let failed = |error: io::Error| Failure::boot_io("run", &program, error);
    command.stdin(Stdio::null()).stdout(spec.console()?).stderr(spec.console()?);
    let mappings =
        passed.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(mappings.collect())
        .map_err(|error| Failure::boot(format!("cannot pass descriptors: {error}")))?;
    let child = command.spawn().map_err(failed)?;
    // What was passed on stays open in the command until it is changed or dropped.
    *command = Command::new(&program);
    Ok(child)
}

/// Whether it is the older virtiofsd, in C, that came with QEMU until version 8.
fn is_qemus_own(program: &Path) -> bool {
    program.starts_with("/usr/lib/qemu")
}

/// Its arguments. It shows what its descriptor 4 is, whose path may contain what has a meaning in
/// them. (Its working directory would not do: the older one changes that before it looks.)
fn share_arguments(is_qemus_own: bool) -> [&'static str; 6] {
    if is_qemus_own {
        // It cannot refuse to write; the mount that it shows does that.
        let settings = "cache=always,sandbox=chroot,xattr,log_level=warn";
        ["--fd=3", "-f", "-o", settings, "-o", "source=/proc/self/fd/4/."]
    } else {
        let folder = "--shared-dir=/proc/self/fd/4/.";
        ["--fd=3", "--cache=always", "--sandbox=chroot", "--xattr", "--readonly", folder]
    }
}

fn begin_relay(
    port: StdStream,
    listener: std::os::unix::net::UnixListener,
) -> io::Result<tokio::task::JoinHandle<Result<msb_relay::End, msb_relay::RelayError>>> {
    port.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let (port, listener) = (UnixStream::from_std(port)?, UnixListener::from_std(listener)?);
    let mut nonce = [0; msb_relay::NONCE];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hello = Hello { nonce, now_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) };
    Ok(tokio::spawn(msb_relay::host(port, listener, hello)))
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
    archive.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
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

    fn sweep<'a>(&'a self, _dir: &'a SandboxDir) -> BoxFuture<'a, Result<(), Failure>> {
        // Both processes go with the runner that made them, by the kernel's hand, and what they
        // have on disk is in the directories that every sweep removes.
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_what_is_missing_is_told_with_the_command_that_gets_it() {
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
    fn each_virtiofsd_is_spoken_to_in_its_own_way() {
        assert!(share_arguments(true).contains(&"source=/proc/self/fd/4/."));
        assert!(share_arguments(false).contains(&"--readonly"));
        assert!(is_qemus_own(Path::new("/usr/lib/qemu/virtiofsd")));
        assert!(!is_qemus_own(Path::new("/usr/libexec/virtiofsd")));
    }
}
