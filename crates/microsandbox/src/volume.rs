//! Named volumes: directories and disks that outlive sandboxes and that sandboxes share.

use crate::completion::Pending;
use crate::error::MicrosandboxResult;
use crate::sandbox::on_thread;
use msb_state::{Home, NewVolume};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use msb_state::VolumeKind;

/// A volume that was created.
#[derive(Debug, Clone)]
pub struct Volume {
    found: msb_state::Volume,
}

/// The options of a new volume; [`VolumeBuilder::build`] returns them.
#[derive(Debug, Clone)]
pub struct VolumeConfig {
    name: String,
    new: NewVolume,
}

impl Volume {
    /// Returns a builder for a new volume.
    pub fn builder(name: impl Into<String>) -> VolumeBuilder {
        VolumeBuilder::new(name)
    }

    /// Creates a volume.
    pub async fn create(config: VolumeConfig) -> MicrosandboxResult<Volume> {
        Volume::begin_create(config).await
    }

    /// Finds a volume by its name.
    pub async fn get(name: &str) -> MicrosandboxResult<VolumeHandle> {
        Volume::begin_get(name).await
    }

    /// Lists all volumes, sorted by name.
    pub async fn list() -> MicrosandboxResult<Vec<VolumeHandle>> {
        Volume::begin_list().await
    }

    /// Removes a volume with its files. One that a sandbox uses, running or not, is not removed.
    pub async fn remove(name: &str) -> MicrosandboxResult<()> {
        Volume::begin_remove(name).await
    }

    /// Removes every volume that no sandbox uses, and returns their names.
    pub async fn prune() -> MicrosandboxResult<Vec<String>> {
        Volume::begin_prune().await
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.found.name.as_str()
    }

    /// Returns its directory, or the file of a disk.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// Returns its form.
    pub fn kind(&self) -> VolumeKind {
        self.found.kind
    }

    /// Returns the size of a disk.
    pub fn capacity_bytes(&self) -> Option<u64> {
        capacity(&self.found)
    }

    pub(crate) fn begin_create(config: VolumeConfig) -> Pending<Volume> {
        let home = Home::from_env();
        on_thread("msb-control", move || {
            let found = msb_state::create_volume(&home?, &config.name, &config.new)?;
            Ok(Volume { found })
        })
    }

    pub(crate) fn begin_get(name: &str) -> Pending<VolumeHandle> {
        let (home, name) = (Home::from_env(), name.to_owned());
        on_thread("msb-control", move || {
            let home = home?;
            let found = msb_state::volume(&home, &name)?;
            let companions = crate::library::companions().ok();
            let users = msb_state::volume_users(&home, companions.as_ref())?.remove(&name);
            Ok(VolumeHandle::new(found, users.unwrap_or_default()))
        })
    }

    pub(crate) fn begin_list() -> Pending<Vec<VolumeHandle>> {
        let home = Home::from_env();
        on_thread("msb-control", move || {
            let home = home?;
            let companions = crate::library::companions().ok();
            let mut users = msb_state::volume_users(&home, companions.as_ref())?;
            let volumes = msb_state::volumes(&home)?.into_iter();
            let handle = |volume: msb_state::Volume| {
                let users = users.remove(volume.name.as_str()).unwrap_or_default();
                VolumeHandle::new(volume, users)
            };
            Ok(volumes.map(handle).collect())
        })
    }

    pub(crate) fn begin_remove(name: &str) -> Pending<()> {
        let (home, name) = (Home::from_env(), name.to_owned());
        let companions = crate::library::companions();
        on_thread("msb-control", move || Ok(msb_state::remove_volume(&home?, &name, &companions?)?))
    }

    pub(crate) fn begin_prune() -> Pending<Vec<String>> {
        let (home, companions) = (Home::from_env(), crate::library::companions());
        on_thread("msb-control", move || {
            let removed = msb_state::prune_volumes(&home?, &companions?)?;
            Ok(removed.into_iter().map(|volume| volume.name.into()).collect())
        })
    }
}

/// A volume as it was found.
#[derive(Debug, Clone)]
pub struct VolumeHandle {
    found: msb_state::Volume,
    used_bytes: u64,
    labels: Vec<(String, String)>,
    sandboxes: Vec<String>,
}

impl VolumeHandle {
    fn new(found: msb_state::Volume, users: Vec<msb_state::Name>) -> VolumeHandle {
        let labels = found.labels.clone().into_iter().collect();
        let sandboxes = users.into_iter().map(Into::into).collect();
        VolumeHandle { used_bytes: found.used_bytes(), labels, sandboxes, found }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.found.name.as_str()
    }

    /// Returns its form.
    pub fn kind(&self) -> VolumeKind {
        self.found.kind
    }

    /// Returns its directory, or the file of a disk.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// Returns the file of a disk.
    pub fn disk_path(&self) -> Option<PathBuf> {
        (self.found.kind == VolumeKind::Disk).then(|| self.found.path.clone())
    }

    /// Returns how many bytes its files take, as far as the caller may read them.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Returns how much a directory should hold, in MiB.
    pub fn quota_mib(&self) -> Option<u64> {
        self.found.quota_mib
    }

    /// Returns the size of a disk.
    pub fn capacity_bytes(&self) -> Option<u64> {
        capacity(&self.found)
    }

    /// Returns its labels, sorted by key.
    pub fn labels(&self) -> &[(String, String)] {
        &self.labels
    }

    /// Returns the names of the sandboxes that use it, running or not.
    pub fn sandboxes(&self) -> &[String] {
        &self.sandboxes
    }

    /// Returns when it was created.
    pub fn created_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.found.created_ms)
    }

    /// Removes it, as [`Volume::remove`].
    pub async fn remove(&self) -> MicrosandboxResult<()> {
        Volume::remove(self.name()).await
    }
}

fn capacity(volume: &msb_state::Volume) -> Option<u64> {
    volume.size_mib.map(|mib| mib.saturating_mul(1024 * 1024))
}

/// Builder of a volume; created by [`Volume::builder`].
#[derive(Debug, Clone)]
pub struct VolumeBuilder {
    config: VolumeConfig,
}

impl VolumeBuilder {
    /// Begins a volume.
    pub fn new(name: impl Into<String>) -> Self {
        VolumeBuilder { config: VolumeConfig { name: name.into(), new: NewVolume::default() } }
    }

    /// Makes it a directory; the default.
    #[must_use]
    pub fn directory(self) -> Self {
        self.kind(VolumeKind::Directory)
    }

    /// Makes it a disk.
    #[must_use]
    pub fn disk(self) -> Self {
        self.kind(VolumeKind::Disk)
    }

    /// Sets its form.
    #[must_use]
    pub fn kind(mut self, kind: VolumeKind) -> Self {
        self.config.new.kind = kind;
        self
    }

    /// Sets how much a directory should hold, in MiB. It is reported and not enforced.
    #[must_use]
    pub fn quota(mut self, mib: u64) -> Self {
        self.config.new.quota_mib = Some(mib);
        self
    }

    /// Sets the size of a disk in MiB.
    #[must_use]
    pub fn size(mut self, mib: u64) -> Self {
        self.config.new.size_mib = Some(mib);
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.new.labels.insert(key.into(), value.into());
        self
    }

    /// Returns the options.
    pub fn build(self) -> VolumeConfig {
        self.config
    }

    /// Creates the volume.
    pub async fn create(self) -> MicrosandboxResult<Volume> {
        Volume::create(self.config).await
    }
}
