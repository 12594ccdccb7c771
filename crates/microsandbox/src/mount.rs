//! The mounts of a new sandbox.
//!
//! Owns: the builders. Does not own: the rules, which `msb-state` has. Invariant: a builder never
//! fails before the sandbox is created.

use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use msb_state::{ByteString, Mount, MountSource, NewVolume, Owner, VolumeCreation, VolumeKind};
use std::path::{Path, PathBuf};

const MIB: u64 = 1024 * 1024;

/// A mount of a sandbox.
pub type VolumeMount = Mount;

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DiskImageFormat {
    /// The bytes of the disk.
    #[default]
    Raw,
}

/// Builder of a mount, for [`SandboxBuilder::volume`](crate::SandboxBuilder::volume).
///
/// A mount never has devices or set-user-ID programs. What belongs to the caller belongs to root in
/// the sandbox, unless [`MountBuilder::owner`] names a user, and new files of that user belong to
/// the caller.
#[derive(Debug, Clone)]
pub struct MountBuilder {
    target: ByteString,
    source: Option<MountSource>,
    size: Option<u64>,
    readonly: bool,
    noexec: bool,
    owner: Option<Owner>,
}

impl MountBuilder {
    /// Begins a mount at an absolute path in the sandbox.
    pub fn new(guest: impl AsRef<Path>) -> Self {
        let target = guest.as_ref().into();
        let (readonly, noexec) = (false, false);
        MountBuilder { target, source: None, size: None, readonly, noexec, owner: None }
    }

    /// Mounts a directory or a file of the host, with what is mounted below it.
    #[must_use]
    pub fn bind(self, host: impl Into<PathBuf>) -> Self {
        self.of(MountSource::Bind { source: host.into().into() })
    }

    /// Mounts an existing volume.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.named_with(name, |volume| volume)
    }

    /// Mounts a volume, which is created if the builder says so.
    #[must_use]
    pub fn named_with(
        self,
        name: impl Into<String>,
        f: impl FnOnce(NamedVolumeBuilder) -> NamedVolumeBuilder,
    ) -> Self {
        let NamedVolumeBuilder { name, mode, new } = f(NamedVolumeBuilder::new(name.into()));
        let create = match mode {
            Mode::Existing => VolumeCreation::Existing,
            Mode::Create => VolumeCreation::Create(new),
            Mode::EnsureExists => VolumeCreation::EnsureExists(new),
        };
        self.of(MountSource::Named { volume: name, create })
    }

    /// Mounts an empty filesystem in memory, of half of the sandbox's memory unless
    /// [`MountBuilder::size`] is called.
    #[must_use]
    pub fn tmpfs(self) -> Self {
        self.of(MountSource::Tmpfs { size_bytes: None })
    }

    /// Mounts the filesystem in a file of the host.
    #[must_use]
    pub fn disk(self, host: impl Into<PathBuf>) -> Self {
        self.of(MountSource::Disk { size_mib: None, image: Some(host.into().into()) })
    }

    /// Mounts an empty filesystem on a disk of the sandbox's own, which is kept until the sandbox
    /// is removed. [`MountBuilder::size`] is its size.
    #[must_use]
    pub fn own_disk(self) -> Self {
        self.of(MountSource::Disk { size_mib: None, image: None })
    }

    /// Sets the format of a disk image.
    #[must_use]
    pub fn format(self, format: DiskImageFormat) -> Self {
        match format {
            DiskImageFormat::Raw => self,
        }
    }

    /// Sets the size of a tmpfs or of a disk of the sandbox's own, in MiB.
    #[must_use]
    pub fn size(self, mib: u64) -> Self {
        self.size_bytes(mib.saturating_mul(MIB))
    }

    /// As [`MountBuilder::size`], in bytes; of a disk rounded up to MiB.
    #[must_use]
    pub fn size_bytes(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Makes it read-only.
    #[must_use]
    pub fn readonly(mut self) -> Self {
        self.readonly = true;
        self
    }

    /// Forbids to run its programs.
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.noexec = true;
        self
    }

    /// Ignores set-user-ID bits. Every mount does, so this changes nothing.
    #[must_use]
    pub fn nosuid(self) -> Self {
        self
    }

    /// Ignores device files. Every mount does, so this changes nothing.
    #[must_use]
    pub fn nodev(self) -> Self {
        self
    }

    /// Gives what belongs to the caller to this user and group of the sandbox instead of root.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some(Owner { uid, gid });
        self
    }

    /// Returns the mount.
    pub fn build(self) -> MicrosandboxResult<VolumeMount> {
        let refuse = |reason: &str| {
            let context = format!("cannot mount {}: {reason}", self.target);
            Err(Error::new(ErrorKind::InvalidConfig, Origin::Caller, context))
        };
        let source = match (self.source.clone(), self.size) {
            (None, _) => return refuse("it has no source; call bind, named, tmpfs or disk"),
            (Some(MountSource::Tmpfs { .. }), Some(size)) => {
                MountSource::Tmpfs { size_bytes: Some(size) }
            }
            (Some(MountSource::Disk { image: None, .. }), Some(size)) => {
                MountSource::Disk { size_mib: Some(size.div_ceil(MIB)), image: None }
            }
            (Some(_), Some(_)) => return refuse("only a tmpfs or a disk of its own has a size"),
            (Some(source), None) => source,
        };
        let MountBuilder { target, readonly, noexec, owner, .. } = self;
        Ok(VolumeMount { target, source, readonly, noexec, owner })
    }

    /// Begins with a mount that is complete.
    pub(crate) fn from_mount(mount: VolumeMount) -> Self {
        let VolumeMount { target, source, readonly, noexec, owner } = mount;
        MountBuilder { target, source: Some(source), size: None, readonly, noexec, owner }
    }

    fn of(mut self, source: MountSource) -> Self {
        self.source = Some(source);
        self
    }
}

/// Builder of a volume's use, for [`MountBuilder::named_with`].
#[derive(Debug, Clone)]
pub struct NamedVolumeBuilder {
    name: String,
    mode: Mode,
    new: NewVolume,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Existing,
    Create,
    EnsureExists,
}

impl NamedVolumeBuilder {
    fn new(name: String) -> Self {
        NamedVolumeBuilder { name, mode: Mode::Existing, new: NewVolume::default() }
    }

    /// Requires that the volume exists; the default.
    #[must_use]
    pub fn existing(mut self) -> Self {
        self.mode = Mode::Existing;
        self
    }

    /// Creates the volume, which must not exist.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.mode = Mode::Create;
        self
    }

    /// Creates the volume if it does not exist.
    #[must_use]
    pub fn ensure_exists(mut self) -> Self {
        self.mode = Mode::EnsureExists;
        self
    }

    /// Sets its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Creates a directory; the default.
    #[must_use]
    pub fn directory(mut self) -> Self {
        self.new.kind = VolumeKind::Directory;
        self
    }

    /// Creates a disk.
    #[must_use]
    pub fn disk(mut self) -> Self {
        self.new.kind = VolumeKind::Disk;
        self
    }

    /// Sets how much a directory should hold, in MiB. It is reported and not enforced.
    #[must_use]
    pub fn quota(mut self, mib: u64) -> Self {
        self.new.quota_mib = Some(mib);
        self
    }

    /// Sets the size of a disk in MiB.
    #[must_use]
    pub fn size(mut self, mib: u64) -> Self {
        self.new.size_mib = Some(mib);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.new.labels.insert(key.into(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(f: impl FnOnce(MountBuilder) -> MountBuilder) -> MicrosandboxResult<VolumeMount> {
        f(MountBuilder::new("/data")).build()
    }

    #[test]
    fn l1_builder_collects_every_option() {
        let mount = built(|m| m.bind("/srv").readonly().noexec().owner(1, 2)).unwrap();
        assert_eq!(mount.source, MountSource::Bind { source: "/srv".into() });
        assert!(mount.readonly && mount.noexec);
        assert_eq!(mount.owner, Some(Owner { uid: 1, gid: 2 }));
    }

    #[test]
    fn l3_size_goes_to_what_has_one() {
        let mount = built(|m| m.tmpfs().size(64)).unwrap();
        assert_eq!(mount.source, MountSource::Tmpfs { size_bytes: Some(64 << 20) });
        let mount = built(|m| m.size(64).own_disk()).unwrap();
        assert_eq!(mount.source, MountSource::Disk { size_mib: Some(64), image: None });
        for wrong in [built(|m| m.bind("/srv").size(1)), built(|m| m)] {
            let error = wrong.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().starts_with("cannot mount /data: "), "{error}");
        }
    }

    #[test]
    fn l2_named_volume_has_a_mode() {
        let create =
            |f: fn(NamedVolumeBuilder) -> NamedVolumeBuilder| match built(|m| m.named_with("v", f))
                .unwrap()
                .source
            {
                MountSource::Named { create, .. } => create,
                other => unreachable!("{other:?}"),
            };
        assert_eq!(create(|v| v), VolumeCreation::Existing);
        let new = NewVolume { kind: VolumeKind::Disk, size_mib: Some(64), ..NewVolume::default() };
        assert_eq!(create(|v| v.create().disk().size(64)), VolumeCreation::Create(new));
        let ensured = create(|v| v.ensure_exists().label("a", "b"));
        assert!(matches!(ensured, VolumeCreation::EnsureExists(new) if new.labels["a"] == "b"));
    }
}
