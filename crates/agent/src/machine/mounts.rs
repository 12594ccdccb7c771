//! The file systems of a machine.

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{
    MountFlags, UnmountFlags, mount, mount_bind, mount_move, mount_remount, unmount,
};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::Path;

/// Where the root file system is assembled, before the root changes.
/// File system type of tmpfs (statfs(2)).
const TMPFS: u64 = 0x0102_1994;
const STAGE: &str = "/msb";
/// The agent's own directory in the new root.
const OWN: &str = "/.msb";

/// A failed step of the boot.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {at}: {error}")]
pub(crate) struct StepFailed {
    what: &'static str,
    at: String,
    error: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str, at: &str) -> impl FnOnce(E) -> StepFailed {
    move |error| StepFailed { what, at: at.to_owned(), error: error.into() }
}

/// Unmounts the tmpfs that gVisor puts over an empty `/tmp`: files there are the sandbox's, too.
pub fn show_own_tmp() {
    let is_tmpfs =
        rustix::fs::statfs("/tmp").is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS));
    if is_tmpfs {
        // Fails where it is the image's own.
        let _ = unmount("/tmp", UnmountFlags::DETACH);
    }
}

/// Mounts the file systems of the kernel in the initial root.
pub(crate) fn mount_kernel_file_systems() -> Result<(), StepFailed> {
    for (at, kind) in [("/proc", c"proc"), ("/sys", c"sysfs"), ("/dev", c"devtmpfs")] {
        mount_unless_mounted(at, kind, MountFlags::empty(), c"")?;
    }
    Ok(())
}

/// Loads the modules that the driver put into the initramfs, in the order of their names. A kernel
/// with everything built in has none.
pub(crate) fn load_modules() -> Result<(), StepFailed> {
    let Ok(folder) = fs::read_dir("/modules") else { return Ok(()) };
    let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let text = path.display().to_string();
        let module = fs::File::open(&path).map_err(failed("open", &text))?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed("load", &text)(error)),
        }
    }
    Ok(())
}

/// Assembles the root file system and changes to it. `shm_bytes` is the size of `/dev/shm`.
pub(crate) fn mount_root(restricted: bool, shm_bytes: Option<u64>) -> Result<(), StepFailed> {
    mount_unless_mounted(STAGE, c"tmpfs", MountFlags::empty(), c"mode=700")?;
    let at = |name: &str| format!("{STAGE}/{name}");
    let (lower, disk, root) = (at("lower"), at("disk"), at("root"));
    let closed = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount_at("image", &lower, c"virtiofs", closed & !MountFlags::NOSUID, c"")?;
    mount_at("/dev/vda", &disk, c"ext4", MountFlags::NOATIME, c"")?;
    for layer in ["upper", "work"] {
        make_dir(&format!("{disk}/{layer}"))?;
    }
    let layers = format!("lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work");
    let layers = CString::new(layers).map_err(failed("name", &root))?;
    mount_at("overlay", &root, c"overlay", MountFlags::empty(), &layers)?;
    // pivot_root(2) cannot leave an initramfs: its root is covered instead.
    std::env::set_current_dir(&root).map_err(failed("enter", &root))?;
    mount_move(".", "/").map_err(failed("move", &root))?;
    rustix::process::chroot(".").map_err(failed("make the root of", &root))?;
    std::env::set_current_dir("/").map_err(failed("enter", "/"))?;
    mount_in_new_root(restricted, shm_bytes)
}

fn mount_in_new_root(restricted: bool, shm_bytes: Option<u64>) -> Result<(), StepFailed> {
    let closed = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let device = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_unless_mounted("/proc", c"proc", closed, c"")?;
    let system = if restricted { closed | MountFlags::RDONLY } else { closed };
    mount_unless_mounted("/sys", c"sysfs", system, c"")?;
    if restricted {
        create_devices()?;
    } else {
        mount_unless_mounted("/dev", c"devtmpfs", device, c"mode=755")?;
        for name in MEMORY_DEVICES {
            // Not every kernel has it.
            let _ = fs::remove_file(Path::new("/dev").join(name));
        }
    }
    mount_unless_mounted(
        "/dev/pts",
        c"devpts",
        device,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    let size = shm_bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let shm = CString::new(format!("mode=1777{size}")).map_err(failed("name", "/dev/shm"))?;
    mount_unless_mounted("/dev/shm", c"tmpfs", closed, &shm)?;
    mount_unless_mounted(OWN, c"tmpfs", closed, c"mode=755,size=1m")?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let link = Path::new("/dev").join(name);
        match std::os::unix::fs::symlink(target, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("link", &link.display().to_string())(error));
            }
            _ => {}
        }
    }
    // Not every kernel has message queues and cgroups. Without cgroups sessions have none.
    let _ = mount_unless_mounted("/dev/mqueue", c"mqueue", closed, c"");
    // Commands have cgroup namespaces, which they cannot leave (cgroup-v2.rst, `nsdelegate`).
    if mount_unless_mounted("/.msb/cgroup", c"cgroup2", closed, c"nsdelegate").is_ok() {
        // Every mount sets the option again.
        let flags = closed | MountFlags::RDONLY;
        let _ = mount("cgroup2", "/sys/fs/cgroup", c"cgroup2", flags, c"nsdelegate");
    }
    Ok(())
}

/// Devices that give root access to the machine's memory and ports.
const MEMORY_DEVICES: [&str; 3] = ["mem", "kmem", "port"];
/// The devices of a container, and their numbers (devices.txt of the kernel).
const CONTAINER_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
/// Files of the kernel that change the machine.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];

/// Creates a `/dev` with a container's devices. Commands cannot create others.
fn create_devices() -> Result<(), StepFailed> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount_unless_mounted("/dev", c"tmpfs", flags, c"mode=755,size=64m,nr_inodes=4096")?;
    for (name, major, minor) in CONTAINER_DEVICES {
        let at = format!("/dev/{name}");
        let number = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &at, FileType::CharacterDevice, mode, number)
            .map_err(failed("create", &at))?;
        rustix::fs::chmod(&at, mode).map_err(failed("open", &at))?;
    }
    Ok(())
}

/// Protects files of the kernel that root can write without any capability, as in a container.
pub(crate) fn protect_kernel_files() -> Result<(), StepFailed> {
    let closed = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for at in MASKED.into_iter().filter(|at| Path::new(at).exists()) {
        mount_bind("/dev/null", at).map_err(failed("hide", at))?;
    }
    for at in READ_ONLY.into_iter().filter(|at| Path::new(at).exists()) {
        mount_bind(at, at).map_err(failed("bind", at))?;
        let flags = closed | MountFlags::BIND | MountFlags::RDONLY;
        mount_remount(at, flags, c"").map_err(failed("protect", at))?;
    }
    Ok(())
}

/// Mounts an `/etc/hosts` with the machine's name over that of the image, which stays unchanged.
pub(crate) fn mount_hosts(name: &[u8]) -> Result<(), StepFailed> {
    let (own, target) = (format!("{OWN}/hosts"), "/etc/hosts");
    let text = [b"127.0.0.1\tlocalhost ".as_slice(), name, b"\n::1\tlocalhost ", name, b"\n"];
    fs::write(&own, text.concat()).map_err(failed("write", &own))?;
    make_dir("/etc")?;
    let there = fs::OpenOptions::new().append(true).create(true).open(target);
    there.map_err(failed("create", target))?;
    mount_bind(&own, target).map_err(failed("mount", target))
}

/// Mounts a file system, unless the kernel or an earlier step has done so.
fn mount_unless_mounted(
    at: &str,
    kind: &CStr,
    flags: MountFlags,
    data: &CStr,
) -> Result<(), StepFailed> {
    let source = kind.to_string_lossy().into_owned();
    match mount_at(&source, at, kind, flags, data) {
        Err(StepFailed { error, .. }) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        result => result,
    }
}

/// Creates a mount point and mounts a file system on it.
fn mount_at(
    source: &str,
    at: &str,
    kind: &CStr,
    flags: MountFlags,
    data: &CStr,
) -> Result<(), StepFailed> {
    make_dir(at)?;
    mount(source, at, kind, flags, data).map_err(failed("mount", at))
}

fn make_dir(at: &str) -> Result<(), StepFailed> {
    match fs::create_dir(at) {
        Err(error) if !Path::new(at).is_dir() => Err(failed("create", at)(error)),
        _ => Ok(()),
    }
}
