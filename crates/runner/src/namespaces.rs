//! The namespaces in which a root filesystem is assembled, so that no mount is ever seen on the
//! host and all of them go with the runner.
//!
//! An ordinary user becomes root in a user namespace. Other users exist there only if the system
//! has set a range of ids aside, and only a helper outside can map it: hence two processes.

use crate::sys::{self, Forked};
use crate::users::{Range, range_in};
use msb_driver::{MachineSpec, Root, Users};
use msb_driver_oci::{Stage, WITHOUT_USER_NAMESPACE, take_slot, wants_user_namespace};
use msb_jail::{Slot, as_owner};
use msb_state::{Failure, SandboxDir};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Which of the two processes this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one that stays outside, which has nothing more to do than to end with this code.
    Outside(ExitCode),
    /// The one in the namespaces.
    Inside(Users),
}

/// What the child asks of its helper: map the ranges, or nothing.
const MAP: u8 = b'm';
/// What the helper answers.
const MAPPED: u8 = b'y';
const NOT_MAPPED: u8 = b'n';

/// Goes on in a child that is in namespaces of its own. With `wait` the parent stays until its
/// end, else it is free at once. Must be called before there are other threads.
pub(crate) fn enter(wait: bool) -> Result<Side, Failure> {
    let failed = |what: &str, error: io::Error| Failure::boot(format!("cannot {what}: {error}"));
    let pipe =
        || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe", error.into()));
    let (asks, ask) = pipe()?;
    let (answers, answer) = pipe()?;
    let ids = Ids { user: geteuid().as_raw(), group: getegid().as_raw() };
    match sys::fork().map_err(|error| failed("fork", error))? {
        Forked::Parent(child) => {
            drop((ask, answers));
            help(child, ids, &asks, &answer);
            drop((asks, answer));
            Ok(Side::Outside(if wait { code_of(child) } else { ExitCode::SUCCESS }))
        }
        Forked::Child => {
            drop((asks, answer));
            if ids.user == 0 {
                drop(ask);
                isolate(UnshareFlags::NEWNS)?;
                return Ok(Side::Inside(Users::Host));
            }
            isolate(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
            let users = map(ids, &ask, &answers)
                .map_err(|error| failed("become root in a user namespace", error))?;
            halve_counts();
            make_private()?;
            Ok(Side::Inside(users))
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ids {
    user: u32,
    group: u32,
}

fn isolate(flags: UnshareFlags) -> Result<(), Failure> {
    sys::unshare(flags).map_err(|error| {
        let what = if flags.contains(UnshareFlags::NEWUSER) { "user" } else { "mount" };
        Failure::boot(format!("cannot make a {what} namespace: {error}")).hint(
            "allow them (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, \
             kernel.apparmor_restrict_unprivileged_userns) or run as root",
        )
    })?;
    if flags.contains(UnshareFlags::NEWUSER) { Ok(()) } else { make_private() }
}

/// Leaves the user's other programs half of what the kernel counts for each user (namespaces(7),
/// `/proc/sys/user`). A container of root needs no such bound: its ids are nobody else's.
fn halve_counts() {
    for name in ["instances", "watches"] {
        let host = fs::read_to_string(format!("/proc/sys/fs/inotify/max_user_{name}"));
        let Some(count) = host.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
            continue;
        };
        // A kernel without such a limit for each namespace still has the one for each user.
        let _ = fs::write(format!("/proc/sys/user/max_inotify_{name}"), (count / 2).to_string());
    }
}

fn make_private() -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags)
        .map_err(|error| Failure::boot_io("make private", Path::new("/"), error))
}

/// The child's half: has the ranges mapped if there are any, else maps itself alone.
fn map(ids: Ids, ask: &OwnedFd, answers: &OwnedFd) -> io::Result<Users> {
    if ranges(ids.user).is_some() {
        rustix::io::write(ask, &[MAP])?;
        let mut said = [NOT_MAPPED];
        rustix::io::read(answers, &mut said)?;
        if said == [MAPPED] {
            return Ok(Users::Range);
        }
    }
    // The kernel asks for this before an ordinary user may map a group.
    std::fs::write("/proc/self/setgroups", "deny")?;
    // The helper may have got as far as one of the two.
    for (file, id) in [("uid_map", ids.user), ("gid_map", ids.group)] {
        let path = format!("/proc/self/{file}");
        if std::fs::read_to_string(&path)?.trim().is_empty() {
            std::fs::write(&path, format!("0 {id} 1\n"))?;
        }
    }
    Ok(Users::RootOnly)
}

/// The parent's half: does what the child asks, until it asks no more.
fn help(child: i32, ids: Ids, asks: &OwnedFd, answer: &OwnedFd) {
    let mut asked = [0];
    if !matches!(rustix::io::read(asks, &mut asked), Ok(1)) || asked != [MAP] {
        return;
    }
    let mapped = ranges(ids.user).is_some_and(|(users, groups)| {
        run_mapper("newuidmap", child, ids.user, users)
            && run_mapper("newgidmap", child, ids.group, groups)
    });
    // If the child is gone there is nobody to tell.
    let _ = rustix::io::write(answer, &[if mapped { MAPPED } else { NOT_MAPPED }]);
}

fn ranges(user: u32) -> Option<(Range, Range)> {
    Some((range_in("/etc/subuid", user)?, range_in("/etc/subgid", user)?))
}

fn run_mapper(program: &str, child: i32, id: u32, range: Range) -> bool {
    let arguments = [child.to_string(), "0".into(), id.to_string(), "1".into(), "1".into()]
        .into_iter()
        .chain([range.start.to_string(), range.count.to_string()]);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn code_of(child: i32) -> ExitCode {
    let pid = rustix::process::Pid::from_raw(child);
    loop {
        match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return ExitCode::SUCCESS,
            Err(rustix::io::Errno::INTR) => {}
            _ => return ExitCode::FAILURE,
        }
    }
}

/// A root filesystem that is mounted, and what it needs as long as it is.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    /// Where it is.
    pub(crate) path: PathBuf,
    _ids: Option<Slot>,
}

/// Shows the driver the root filesystem as it wants to have it, and says in `spec` where that is,
/// and which users it has.
pub(crate) fn mount_root(spec: &mut MachineSpec, root: Root) -> Result<MountedRoot, Failure> {
    let mut ids = None;
    match root {
        Root::Image => mount_image(&spec.dir, spec.config.image.as_path())?,
        Root::Overlay if spec.users == Users::Host && wants_user_namespace() => {
            let slot = take_slot(spec.dir.id())?;
            spec.users = Users::Mapped(slot.start());
            (spec.rootfs, spec.agent) = mount_mapped(spec, slot.start())?;
            ids = Some(slot);
        }
        Root::Overlay => {
            let (image, own) = (spec.config.image.as_path(), OwnLayer::of(&spec.dir));
            let attributes = if spec.users.runner_is_root() { "" } else { ",userxattr" };
            mount_overlay(image, [image, &own.upper(), &own.work()], &spec.rootfs, attributes)?;
        }
    }
    Ok(MountedRoot { path: spec.rootfs.clone(), _ids: ids })
}

/// Shows the image, which nobody behind this mount can write to, whatever they are asked to.
fn mount_image(dir: &SandboxDir, image: &Path) -> Result<(), Failure> {
    let at = dir.rootfs();
    let failed = |error: rustix::io::Errno| Failure::boot_io("show image", image, error);
    mount_bind(image, &at).map_err(failed)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount_remount(&at, flags, c"").map_err(failed)
}

/// Where a sandbox's own layer is: both directories on one mount, as the overlay demands.
struct OwnLayer {
    parent: PathBuf,
}

impl OwnLayer {
    fn of(dir: &SandboxDir) -> OwnLayer {
        let (upper, _) = crate::upper::paths(dir);
        OwnLayer { parent: upper.parent().unwrap_or(dir.path()).to_path_buf() }
    }

    fn upper(&self) -> PathBuf {
        self.parent.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.parent.join("work")
    }
}

/// Assembles the root filesystem for a container with a user namespace of its own. The files of
/// both layers keep the image's ids on disk, whichever ids the sandbox has this time. Returns where
/// the root is, and where the agent is.
fn mount_mapped(spec: &MachineSpec, start: u32) -> Result<(PathBuf, PathBuf), Failure> {
    let image = spec.config.image.as_path();
    let stage = Stage::mount(start, &[image, spec.dir.path(), &spec.agent])?;
    let lower = stage.bind_mapped("image", image)?;
    let own = OwnLayer { parent: stage.bind_mapped("layer", &OwnLayer::of(&spec.dir).parent)? };
    let root = stage.directory("root")?;
    // The overlay acts as its maker, who has to exist on the upper layer.
    let make = || mount_overlay(image, [&lower, &own.upper(), &own.work()], &root, "");
    let made = as_owner(start, make)
        .map_err(|error| Failure::boot(format!("cannot act as user {start}: {error}")))?;
    made.map_err(|failure| {
        let hint = failure.hint.clone().unwrap_or_default();
        failure.hint(format!(
            "{hint}; for layers with mapped owners, Linux 5.19; else {WITHOUT_USER_NAMESPACE}"
        ))
    })?;
    let agent = stage.bind_file("agent", &spec.agent)?;
    // The overlay has clones of its own.
    stage.unmount_at(&lower)?;
    stage.unmount_at(&own.parent)?;
    Ok((root, agent))
}

/// Mounts a sandbox's own layer over the image, which stays as it is. The layers are the lower one,
/// the upper one, and the directory that the overlay works in.
fn mount_overlay(
    image: &Path,
    layers: [&Path; 3],
    at: &Path,
    attributes: &str,
) -> Result<(), Failure> {
    let open_layer = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map_err(|error| Failure::boot_io("open", path, error))
    };
    // By descriptor, because a path may contain what has a meaning in the options. They must be
    // opened here, in the mount namespace: the kernel takes no layers from another one.
    let [lower, upper, work] = layers.map(open_layer);
    let (lower, upper, work) = (lower?, upper?, work?);
    let options = format!(
        "lowerdir=/proc/self/fd/{},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}{attributes}",
        lower.as_raw_fd(),
        upper.as_raw_fd(),
        work.as_raw_fd(),
    );
    let options = CString::new(options).map_err(|error| Failure::boot(error.to_string()))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount("overlay", at, "overlay", flags, options.as_c_str()).map_err(|error| {
        let image = image.display();
        let error = io::Error::from(error);
        Failure::boot(format!("cannot mount an overlay over image {image}: {error}")).hint(
            "the state must be on a filesystem that can hold the upper layer of an overlay, such \
             as ext4, xfs, btrfs or tmpfs; see MSB_HOME",
        )
    })
}
