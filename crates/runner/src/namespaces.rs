//! The namespaces in which a root filesystem is mounted: no mount is visible on the host, and all
//! disappear with the runner.
//!
//! An ordinary user becomes root in a user namespace. Other users exist there only with subordinate
//! ids, which only a helper outside can map: hence two processes.

use crate::mounts::open_mounts;
use crate::process::wait;
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
use rustix::process::{Pid, getegid, geteuid};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// The process that continues.
#[derive(Debug)]
pub(crate) enum Side {
    /// The parent, outside, which only exits with this code.
    Outside(ExitCode),
    /// The child, in the namespaces.
    Inside(Users),
}

/// The child's request: map the ranges.
const MAP: u8 = b'm';
/// The parent's replies.
const MAPPED: u8 = b'y';
const NOT_MAPPED: u8 = b'n';

/// Continues in a child in new namespaces. With `blocking` the parent waits for its exit, else it
/// returns at once. Call it before there are other threads.
pub(crate) fn enter(blocking: bool) -> Result<Side, Failure> {
    let failed = |what: &str, error: io::Error| Failure::boot(format!("cannot {what}: {error}"));
    let pipe =
        || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("create a pipe", error.into()));
    let (requests, request) = pipe()?;
    let (replies, reply) = pipe()?;
    let ids = Ids { user: geteuid().as_raw(), group: getegid().as_raw() };
    match sys::fork().map_err(|error| failed("fork", error))? {
        Forked::Parent(child) => {
            drop((request, replies));
            map_on_request(child, ids, &requests, &reply);
            drop((requests, reply));
            Ok(Side::Outside(if blocking { wait(Pid::from_raw(child)) } else { ExitCode::SUCCESS }))
        }
        Forked::Child => {
            drop((requests, reply));
            if ids.user == 0 {
                drop(request);
                isolate(UnshareFlags::NEWNS)?;
                return Ok(Side::Inside(Users::Host));
            }
            isolate(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
            let users = map(ids, &request, &replies)
                .map_err(|error| failed("become root in a user namespace", error))?;
            halve_user_limits();
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
        Failure::boot(format!("cannot create a {what} namespace: {error}")).hint(
            "allow them (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, \
             kernel.apparmor_restrict_unprivileged_userns) or run as root",
        )
    })?;
    if flags.contains(UnshareFlags::NEWUSER) { Ok(()) } else { make_private() }
}

/// Leaves the user's other programs half of the kernel's per-user limits (namespaces(7),
/// `/proc/sys/user`). Root's containers need no such limit: no other process has their ids.
fn halve_user_limits() {
    for name in ["instances", "watches"] {
        let host = fs::read_to_string(format!("/proc/sys/fs/inotify/max_user_{name}"));
        let Some(count) = host.ok().and_then(|text| text.trim().parse::<u32>().ok()) else {
            continue;
        };
        // A kernel without the limit per namespace still has the one per user.
        let _ = fs::write(format!("/proc/sys/user/max_inotify_{name}"), (count / 2).to_string());
    }
}

fn make_private() -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags)
        .map_err(|error| Failure::boot_io("make private", Path::new("/"), error))
}

/// Runs in the child: has the parent map the ranges if there are any, else maps itself alone.
fn map(ids: Ids, request: &OwnedFd, replies: &OwnedFd) -> io::Result<Users> {
    if ranges(ids.user).is_some() {
        rustix::io::write(request, &[MAP])?;
        let mut reply = [NOT_MAPPED];
        rustix::io::read(replies, &mut reply)?;
        if reply == [MAPPED] {
            return Ok(Users::Range);
        }
    }
    // Required before an ordinary user may map a group.
    std::fs::write("/proc/self/setgroups", "deny")?;
    // The parent may have written one of the two.
    for (file, id) in [("uid_map", ids.user), ("gid_map", ids.group)] {
        let path = format!("/proc/self/{file}");
        if std::fs::read_to_string(&path)?.trim().is_empty() {
            std::fs::write(&path, format!("0 {id} 1\n"))?;
        }
    }
    Ok(Users::RootOnly)
}

/// Runs in the parent: maps the ranges if the child requests it.
fn map_on_request(child: i32, ids: Ids, requests: &OwnedFd, reply: &OwnedFd) {
    let mut request = [0];
    if !matches!(rustix::io::read(requests, &mut request), Ok(1)) || request != [MAP] {
        return;
    }
    let mapped = ranges(ids.user).is_some_and(|(users, groups)| {
        run_mapper("newuidmap", child, ids.user, users)
            && run_mapper("newgidmap", child, ids.group, groups)
    });
    // Fails if the child has exited.
    let _ = rustix::io::write(reply, &[if mapped { MAPPED } else { NOT_MAPPED }]);
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

/// A mounted root filesystem, and the ids reserved for it.
#[derive(Debug)]
pub(crate) struct MountedRoot {
    /// Its mount point.
    pub(crate) path: PathBuf,
    _ids: Option<Slot>,
}

/// Mounts the root filesystem that the driver requests, and sets its path and its users in `spec`.
pub(crate) fn mount_root(spec: &mut MachineSpec, root: Root) -> Result<MountedRoot, Failure> {
    let mut ids = None;
    match root {
        Root::Image => mount_image(&spec.dir, spec.config.image.as_path())?,
        Root::Overlay if spec.users == Users::Host && wants_user_namespace() => {
            let slot = take_slot(spec.dir.id())?;
            spec.users = Users::Mapped(slot.start());
            spec.mounts = open_mounts(spec)?;
            (spec.rootfs, spec.agent) = mount_mapped(spec, slot.start())?;
            ids = Some(slot);
        }
        Root::Overlay => {
            spec.mounts = open_mounts(spec)?;
            let (image, own) = (spec.config.image.as_path(), UpperLayer::of(&spec.dir));
            let attributes = if spec.users.runner_is_root() { "" } else { ",userxattr" };
            mount_overlay(image, [image, &own.upper(), &own.work()], &spec.rootfs, attributes)?;
        }
    }
    Ok(MountedRoot { path: spec.rootfs.clone(), _ids: ids })
}

/// Mounts the image read-only.
fn mount_image(dir: &SandboxDir, image: &Path) -> Result<(), Failure> {
    let at = dir.rootfs();
    let failed = |error: rustix::io::Errno| Failure::boot_io("bind image", image, error);
    mount_bind(image, &at).map_err(failed)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount_remount(&at, flags, c"").map_err(failed)
}

/// The upper layer: both directories on one mount, as overlayfs requires.
struct UpperLayer {
    parent: PathBuf,
}

impl UpperLayer {
    fn of(dir: &SandboxDir) -> UpperLayer {
        let (upper, _) = crate::upper::paths(dir);
        UpperLayer { parent: upper.parent().unwrap_or(dir.path()).to_path_buf() }
    }

    fn upper(&self) -> PathBuf {
        self.parent.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.parent.join("work")
    }
}

/// Mounts the root filesystem of a container with its own user namespace. The files of both layers
/// keep the image's ids on disk, whichever ids the sandbox has this time. Returns the paths of the
/// root and of the agent.
fn mount_mapped(spec: &MachineSpec, start: u32) -> Result<(PathBuf, PathBuf), Failure> {
    let image = spec.config.image.as_path();
    let stage = Stage::mount(start, &[image, spec.dir.path(), &spec.agent])?;
    let lower = stage.bind_mapped("image", image)?;
    let own = UpperLayer { parent: stage.bind_mapped("layer", &UpperLayer::of(&spec.dir).parent)? };
    let root = stage.directory("root")?;
    // The overlay acts with its creator's ids, which have to be mapped on the upper layer.
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
    // The overlay holds its own clones.
    stage.unmount_at(&lower)?;
    stage.unmount_at(&own.parent)?;
    Ok((root, agent))
}

/// Mounts the upper layer over the image. `layers` are the lower directory, the upper directory and
/// the work directory.
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
    // By descriptor, since a path may contain separators of the options. Opened in this mount
    // namespace: the kernel refuses layers of another one.
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
