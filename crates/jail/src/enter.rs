//! The child's side: enters a jail.
//!
//! The process that enters, the launcher, clones the jailed process as its sibling: a direct child
//! of the parent that asked for the jail, which can reap it and with which it dies. The launcher
//! maps the ids, reports the pid, and exits.
//!
//! ```text
//!   launcher                          jailed process
//!   clone ---------------------------> waits
//!   maps the ids, sends "go" --------> changes root and ids, drops its rights, sets the
//!                                      parent-death signal
//!   checks its parent, sends "go" <--- sends "go", waits
//!   exits                              sets the filter, executes the program
//! ```
//! If the parent dies before the death signal is set, the launcher notices, or dies of its own
//! death signal; without the second "go" the jailed process exits.

use crate::channel::{Channel, Message};
use crate::describe::{Ids, Jail};
use crate::error::JailError;
use crate::idmap::{open_proc, write_maps};
use crate::paths;
use crate::root::Prepared;
use crate::seccomp::{Filters, LOG_VARIABLE};
use crate::sys::{self, Cloned};
use crate::walls::{self, NAMESPACES, Namespace};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Upper bound of the number of capabilities.
const CAPABILITIES: u32 = 64;
const GO: [u8; 1] = *b"g";

/// A process in its jail, without a seccomp filter yet.
#[derive(Debug)]
pub struct Entered {
    channel: Channel,
    filters: Option<Filters>,
    jail: Jail,
}

impl Entered {
    /// Sets the filter and reports to the parent that the jail holds.
    pub fn finish(mut self) -> Result<(), JailError> {
        self.restrict()?;
        self.channel.send(&Message::Ready);
        Ok(())
    }

    /// Sets the filter and executes a program. Returns only on error.
    fn exec(mut self, program: &OsString, arguments: &[OsString]) -> JailError {
        let error = match self.restrict() {
            Ok(()) => {
                self.channel.send(&Message::Ready);
                let error = Command::new(program)
                    .args(arguments)
                    .env_clear()
                    .envs(std::mem::take(&mut self.jail.environment))
                    .exec();
                JailError::new(&format!("run {}", program.display()), error)
            }
            Err(error) => error,
        };
        self.channel.send(&Message::from(&error));
        error
    }

    fn restrict(&mut self) -> Result<(), JailError> {
        let Some(filters) = self.filters.take() else { return Ok(()) };
        match filters.set() {
            Err(error) if self.jail.require => Err(error),
            Err(error) => {
                self.channel.send(&Message::Missing(format!("seccomp: {error}")));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Enters the jail that the parent describes, and executes a program in it. Returns only on error,
/// which has been reported to the parent.
pub fn launch(command: &[OsString]) -> JailError {
    let [program, arguments @ ..] = command else {
        return JailError::of("cannot enter the jail: no program given".to_owned());
    };
    match start(&[], true) {
        Ok(entered) => entered.exec(program, arguments),
        Err(error) => error,
    }
}

/// Reports to the parent why this process does not enter its jail.
pub fn refuse(why: &str) {
    if let Ok(mut channel) = Channel::inherited() {
        // An unread description would reset the connection before the message is read.
        let _ = channel.receive();
        channel.send(&Message::Error(why.to_owned()));
    }
}

/// Enters the jail that the parent describes. This process must have one thread only; it continues
/// in a sibling. The descriptors in `keep` stay open besides those of the description.
///
/// An error has been reported to the parent.
pub fn enter(keep: &[BorrowedFd<'_>]) -> Result<Entered, JailError> {
    start(keep, false)
}

fn start(keep: &[BorrowedFd<'_>], exec: bool) -> Result<Entered, JailError> {
    let mut channel = Channel::inherited()?;
    let result: Result<_, JailError> = (|| {
        let (parent, jail) = channel.receive()?;
        let filters = create(&mut channel, parent, &jail, keep, exec)?;
        Ok((filters, jail))
    })();
    match result {
        Ok((filters, jail)) => Ok(Entered { channel, filters, jail }),
        Err(error) => {
            channel.send(&Message::from(&error));
            Err(error)
        }
    }
}

/// Creates the jail and its process, in which it returns.
fn create(
    channel: &mut Channel,
    parent: i32,
    jail: &Jail,
    keep: &[BorrowedFd<'_>],
    exec: bool,
) -> Result<Option<Filters>, JailError> {
    die_with(parent)?;
    raise_files(jail);
    let log = std::env::var_os(LOG_VARIABLE).is_some_and(|value| value == "1");
    let filters = jail.program.map(|program| Filters::new(program, exec, log)).transpose()?;
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| JailError::new("create a socket", error))?;
    // Look for missing namespaces only if not all can be created at once.
    let everything = Shell::new(channel, jail, Vec::new())?;
    let (shell, cloned) = match sys::clone(everything.flags()) {
        Ok(cloned) => (everything, cloned),
        Err(_) => {
            drop(everything);
            let shell = Shell::new(channel, jail, walls::missing_namespaces())?;
            let flags = shell.flags();
            let cloned =
                sys::clone(flags).map_err(|error| JailError::new("create a process", error))?;
            (shell, cloned)
        }
    };
    match cloned {
        Cloned::Parent(pid) => {
            drop(theirs);
            channel.send(&Message::Pid(pid));
            let mapped = shell.has(libc::CLONE_NEWUSER);
            if let Err(error) = accompany(pid, parent, mapped.then_some(&shell.ids), &ours) {
                // The jailed process exits when the socket closes.
                channel.send(&Message::from(&error));
                sys::exit(1);
            }
            sys::exit(0)
        }
        Cloned::Child => {
            drop(ours);
            wait_for_go(&theirs)?;
            confine(channel, jail, shell)?;
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|error| JailError::new("set the death signal", error.into()))?;
            send_go(&theirs)?;
            wait_for_go(&theirs)?;
            drop(theirs);
            let mut numbers: Vec<i32> = keep.iter().map(AsRawFd::as_raw_fd).collect();
            numbers.extend(&jail.descriptors);
            for number in &jail.descriptors {
                pass_on(*number)?;
            }
            numbers.push(channel.number());
            close_all_but(numbers).map_err(|error| JailError::new("close descriptors", error))?;
            Ok(filters)
        }
    }
}

/// The namespaces, ids and root of the jail, as far as this host has them.
struct Shell {
    missing: Vec<libc::c_int>,
    ids: Ids,
    root: Option<Prepared>,
}

impl Shell {
    fn new(
        channel: &mut Channel,
        jail: &Jail,
        missing: Vec<(Namespace, String)>,
    ) -> Result<Shell, JailError> {
        let mut walls = MissingWalls { channel, require: jail.require };
        for (Namespace { name, remedy, .. }, error) in &missing {
            walls.report(format!("{name}: {error}; {remedy}"))?;
        }
        let missing = missing.into_iter().map(|(namespace, _)| namespace.flag).collect();
        let mut shell = Shell { missing, ids: jail.ids.clone(), root: None };
        if !shell.has(libc::CLONE_NEWNS) {
            return Ok(shell);
        }
        match walls::root() {
            Ok(()) => {
                let (root, unmapped) = Prepared::new(jail, shell.has(libc::CLONE_NEWUSER))?;
                shell.root = Some(root);
                if let Some((ids, why)) = unmapped {
                    shell.ids = ids;
                    walls.report(why)?;
                }
            }
            Err(why) => walls.report(why)?,
        }
        Ok(shell)
    }

    fn has(&self, flag: libc::c_int) -> bool {
        !self.missing.contains(&flag)
    }

    fn flags(&self) -> libc::c_int {
        let flags = NAMESPACES.iter().map(|namespace| namespace.flag);
        flags.filter(|flag| self.has(*flag)).fold(libc::CLONE_PARENT, |all, flag| all | flag)
    }
}

/// Reports missing walls, which are an error where all are required.
struct MissingWalls<'a> {
    channel: &'a mut Channel,
    require: bool,
}

impl MissingWalls<'_> {
    fn report(&mut self, wall: String) -> Result<(), JailError> {
        if self.require {
            return Err(JailError::of(format!("cannot enter the jail: {wall}")));
        }
        self.channel.send(&Message::Missing(wall));
        Ok(())
    }
}

fn die_with(parent: i32) -> Result<(), JailError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| JailError::new("set the death signal", error.into()))?;
    // If the parent ended before the line above, no signal comes.
    if is_child_of(parent) { Ok(()) } else { Err(orphaned()) }
}

fn is_child_of(parent: i32) -> bool {
    getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent)
}

fn orphaned() -> JailError {
    JailError::of("cannot enter the jail: the parent is gone".to_owned())
}

/// Runs in the launcher: maps the ids and sees the jailed process through.
fn accompany(
    pid: i32,
    parent: i32,
    ids: Option<&Ids>,
    other: &UnixStream,
) -> Result<(), JailError> {
    if let Some(ids) = ids {
        let map = || write_maps(open_proc()?.as_fd(), pid, &ids.users, &ids.groups);
        map().map_err(|error| JailError::new("map the ids of the jail", error))?;
    }
    send_go(other)?;
    wait_for_go(other)?;
    if !is_child_of(parent) {
        return Err(orphaned());
    }
    send_go(other)
}

fn send_go(other: &UnixStream) -> Result<(), JailError> {
    let sent = rustix::net::send(other, &GO, rustix::net::SendFlags::NOSIGNAL);
    sent.map(drop).map_err(|_| peer_gone())
}

fn wait_for_go(other: &UnixStream) -> Result<(), JailError> {
    let mut word = [0];
    loop {
        match rustix::io::read(other, &mut word) {
            Ok(1) if word == GO => return Ok(()),
            Err(Errno::INTR) => {}
            _ => return Err(peer_gone()),
        }
    }
}

fn peer_gone() -> JailError {
    JailError::of("cannot enter the jail: the other process is gone".to_owned())
}

/// Changes root and ids, and drops all rights.
fn confine(channel: &mut Channel, jail: &Jail, shell: Shell) -> Result<(), JailError> {
    if shell.has(libc::CLONE_NEWUTS) {
        // Hide the host's name.
        rustix::system::sethostname(b"jail")
            .map_err(|error| JailError::new("set the host name", error.into()))?;
    }
    let mapped = shell.has(libc::CLONE_NEWUSER);
    let Shell { ids, root, .. } = shell;
    let whole = root.is_some();
    if let Some(root) = root {
        root.enter()?;
    }
    set_limits(jail).map_err(|error| JailError::new("set limits", error.into()))?;
    let (user, group) = if mapped { (ids.user, ids.group) } else { ids.outside() };
    drop_rights(user, group, jail).map_err(|error| JailError::new("drop rights", error.into()))?;
    if let Some(why) = (!jail.mounts).then(|| paths::restrict(jail, whole)).flatten() {
        let remedy = "use Linux 5.13 or later with landlock among its LSMs";
        MissingWalls { channel, require: jail.require }
            .report(format!("Landlock: {why}; {remedy}"))?;
    }
    Ok(())
}

fn set_limits(jail: &Jail) -> rustix::io::Result<()> {
    let limits = jail.limits;
    let all = [
        (Resource::Core, Some(0)),
        (Resource::Nofile, limits.files),
        (Resource::Nproc, limits.processes),
        (Resource::Fsize, limits.file_size),
        (Resource::Memlock, limits.locked_memory),
    ];
    for (resource, limit) in all {
        let Some(limit) = limit else { continue };
        let before = rustix::process::getrlimit(resource);
        let limit = before.maximum.map_or(limit, |maximum| maximum.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// Raises the limit of descriptors, which only root of the host can.
fn raise_files(jail: &Jail) {
    let Some(wanted) = jail.limits.files else { return };
    if rustix::process::getrlimit(Resource::Nofile).maximum.is_some_and(|maximum| maximum < wanted)
    {
        // An ordinary user keeps the lower limit.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) });
    }
}

fn drop_rights(user: u32, group: u32, jail: &Jail) -> rustix::io::Result<()> {
    let keep = &jail.capabilities;
    let kept = keep.iter().fold(CapabilitySet::empty(), |set, number| set | capability(*number));
    for number in (0..CAPABILITIES).filter(|number| !keep.contains(number)) {
        match remove_capability_from_bounding_set(capability(number)) {
            Ok(()) => {}
            // The kernel has no more capabilities.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    clear_ambient_capability_set()?;
    set_keep_capabilities(true)?;
    if !jail.keep_groups {
        // Refused in an ordinary user's user namespace.
        match set_thread_groups(&[]) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    // Root of the namespace gets no capabilities.
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED;
    let set_pcap = kept | CapabilitySet::SETPCAP;
    let sets = |set| CapabilitySets { effective: set, permitted: set, inheritable: kept };
    set_capabilities(None, sets(set_pcap))?;
    set_capabilities_secure_bits(locked)?;
    set_capabilities(None, sets(kept))?;
    for number in keep {
        configure_capability_in_ambient_set(capability(*number), true)?;
    }
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

fn capability(number: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

/// Clears a descriptor's close-on-exec flag.
fn pass_on(number: i32) -> Result<(), JailError> {
    let set = || fcntl_setfd(sys::borrowed(number)?, FdFlags::empty()).map_err(io::Error::from);
    set().map_err(|error| JailError::new(&format!("pass on descriptor {number}"), error))
}

/// Closes every descriptor but 0, 1, 2 and `numbers`. No value may own one of the others.
fn close_all_but(numbers: Vec<i32>) -> io::Result<()> {
    let mut kept: Vec<u32> = numbers.into_iter().filter_map(|n| u32::try_from(n).ok()).collect();
    kept.retain(|number| *number > 2);
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for number in kept {
        if first < number {
            sys::close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    sys::close_range(first, u32::MAX)
}
