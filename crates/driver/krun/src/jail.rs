//! The VMM's jail, and the sockets that it shares with the host.
//!
//! The sockets are in a separate directory, the only one of the host that the VMM can write to.
//! Once the agent has started, the host moves its socket out and removes the directory: from then
//! on the VMM can create nothing on the host.

use crate::vmm::{AGENT_SOCKET, CONTROL_SOCKET, DISK, IMAGE, SOCKETS};
use msb_driver::{Guest, MachineSpec, Users, largest_file};
use msb_jail::{Bind, Ids, Jail, Limits, Proc, Program, READ_ALL, Slot, Source};
use msb_state::{Failure, bind_in, remove_tree};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Limit of the VMM's descriptors. A guest holds one for each file of the image that it caches.
const FILES: u64 = 65_536;
/// Limit of the VMM's threads: one for each processor, and some for each device.
const THREADS: u64 = 1024;

/// The ids of a VMM.
#[derive(Debug)]
pub(crate) struct Identity {
    ids: Ids,
    unmapped: Option<Ids>,
    slot: Option<Slot>,
}

impl Identity {
    /// Reserves ids for a sandbox if the runner is root, else uses the runner's.
    pub(crate) fn take(spec: &MachineSpec) -> Result<Identity, Failure> {
        let failed = |error: io::Error| Failure::boot(format!("cannot map the VMM's ids: {error}"));
        let slot = match spec.users {
            Users::Host | Users::Mapped(_) => Slot::for_name(spec.config.name.as_str()),
            Users::Range | Users::RootOnly => Ok(None),
        };
        match slot.map_err(|error| Failure::boot(error.to_string()))? {
            Some(slot) => {
                let unmapped = Some(Ids::unmapped(&slot));
                Ok(Identity { ids: Ids::all(&slot), unmapped, slot: Some(slot) })
            }
            // Only the user's own id may have access to `/dev/kvm`.
            None => {
                let ids = Ids::nested_all().map_err(failed)?.with_own_id();
                Ok(Identity { ids, unmapped: None, slot: None })
            }
        }
    }

    /// Returns the reservation, to be kept as long as the machine.
    pub(crate) fn into_slot(self) -> Option<Slot> {
        self.slot
    }

    /// Makes the VMM the owner of a file or a pipe that it opens by name.
    pub(crate) fn own(&self, file: impl AsFd) -> io::Result<()> {
        let (user, group) = self.host();
        Ok(rustix::fs::fchown(file, user, group)?)
    }

    fn host(&self) -> (Option<Uid>, Option<Gid>) {
        let (user, group) = self.ids.outside();
        (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    }
}

/// Returns the jail of a VMM.
pub(crate) fn jail(spec: &MachineSpec, guest: &Guest, identity: &Identity, sockets: &Path) -> Jail {
    let mut jail = Jail::new(identity.ids.clone(), Program::Vmm);
    jail.unmapped.clone_from(&identity.unmapped);
    let at = |path: PathBuf, target| Bind::at(Source::Path(path.into()), Path::new(target));
    jail.binds = vec![
        Bind { idmapped: identity.slot.is_some(), ..at(spec.rootfs.clone(), IMAGE) },
        Bind { writable: true, ..at(spec.dir.disk(), DISK) },
        Bind { writable: true, ..at(sockets.to_path_buf(), SOCKETS) },
    ];
    jail.devices = ["/dev/kvm", "/dev/null", "/dev/urandom"].map(Into::into).to_vec();
    // libkrun reopens files through /proc/self/fd.
    jail.proc = Proc::Descriptors;
    jail.capabilities = vec![READ_ALL];
    // An ordinary user's processes may share the id, and would be counted as well.
    let processes = identity.slot.as_ref().map(|_| THREADS);
    let file_size = Some(largest_file(spec, guest));
    jail.limits = Limits { files: Some(FILES), processes, file_size, ..Limits::default() };
    jail.keep_groups = identity.slot.is_none();
    jail.require = spec.config.require_jail;
    jail
}

/// The directory of the sockets, while the VMM needs it.
#[derive(Debug)]
pub(crate) struct Sockets {
    path: PathBuf,
    run: PathBuf,
    owner: Option<Uid>,
}

impl Sockets {
    /// Creates the directory with the control connection's socket, for a VMM with these ids.
    pub(crate) fn create(
        run: &Path,
        identity: &Identity,
    ) -> Result<(Sockets, UnixListener), Failure> {
        let path = run.join("vmm");
        let failed = |error: io::Error| Failure::boot_io("create sockets in", &path, error);
        let text = |error: msb_state::Error| Failure::boot(error.to_string());
        remove_tree(&path).map_err(text)?;
        msb_state::create_private_dir(&path).map_err(text)?;
        let listener = bind_in(&path, CONTROL_SOCKET).map_err(text)?;
        let (user, group) = identity.host();
        for name in [&path.join(CONTROL_SOCKET), &path] {
            rustix::fs::chown(name, user, group).map_err(|error| failed(error.into()))?;
        }
        let sockets = Sockets { path: path.clone(), run: run.to_path_buf(), owner: user };
        Ok((sockets, listener))
    }

    /// Returns the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the agent's socket out and removes the directory.
    ///
    /// The VMM is not trusted: the socket is checked only once it is out of the VMM's reach.
    pub(crate) fn publish(self) -> Result<(), String> {
        let Sockets { path, run, owner } = self;
        let at = run.join(AGENT_SOCKET);
        let publish = || {
            rustix::fs::rename(path.join(AGENT_SOCKET), &at)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::open(&at, flags, Mode::empty())?;
            let found = rustix::fs::fstat(&file)?;
            let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
            if !is_socket || owner.is_some_and(|owner| found.st_uid != owner.as_raw()) {
                return Err(rustix::io::Errno::NOTSOCK);
            }
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            rustix::fs::chownat(&file, c"", Some(user), Some(group), AtFlags::EMPTY_PATH)
        };
        let published = publish().map_err(|error| {
            let _ = std::fs::remove_file(&at);
            format!("cannot use the VMM's {AGENT_SOCKET}: {}", io::Error::from(error))
        });
        published.and(remove_tree(&path).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    fn sockets(run: &Path) -> Sockets {
        let path = run.join("vmm");
        fs::create_dir(&path).unwrap();
        let owner = Some(Uid::from_raw(fs::metadata(&path).unwrap().uid()));
        Sockets { path, run: run.to_path_buf(), owner }
    }

    #[test]
    fn j1_only_a_socket_is_taken_from_the_vmm() {
        let scratch = tempfile::tempdir().unwrap();
        let run = scratch.path();
        let at = run.join(AGENT_SOCKET);
        let taken = sockets(run);
        let listener = UnixListener::bind(taken.path().join(AGENT_SOCKET)).unwrap();
        taken.publish().unwrap();
        std::os::unix::net::UnixStream::connect(&at).unwrap();
        assert!(!run.join("vmm").exists());
        drop(listener);
        fs::remove_file(&at).unwrap();

        let other = run.join("other.sock");
        let _other = UnixListener::bind(&other).unwrap();
        let hostile = sockets(run);
        std::os::unix::fs::symlink(&other, hostile.path().join(AGENT_SOCKET)).unwrap();
        fs::write(hostile.path().join("more"), "x").unwrap();
        let error = hostile.publish().unwrap_err();
        assert!(error.contains("agent.sock"), "{error}");
        assert!(fs::symlink_metadata(&at).is_err() && !run.join("vmm").exists());
        assert!(other.exists());
    }
}
