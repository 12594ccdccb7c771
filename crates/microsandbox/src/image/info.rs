//! What is known about images.

use msb_image::{Store, TaskOutcome};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is known about an image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its id, `sha256:` and 64 digits: the digest of its configuration.
    pub id: String,
    /// Its names, as short as they can be written.
    pub names: Vec<String>,
    /// The digests by which registries know it.
    pub digests: Vec<String>,
    /// How many bytes its files have.
    pub size: u64,
    /// How many bytes its layers have as they came.
    pub download_size: u64,
    /// The digests of its layers as they came, from the lowest to the highest.
    pub layers: Vec<String>,
    /// The processor's architecture that it is for, as in `amd64`.
    pub architecture: String,
    /// When it came into the store.
    pub added_at: SystemTime,
    /// When it was made, as it says itself; empty when it does not.
    pub created: String,
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty for `/`.
    pub workdir: String,
    /// User; empty for root.
    pub user: String,
    /// What runs in front of a command of its own.
    pub entrypoint: Vec<String>,
    /// Its own command.
    pub cmd: Vec<String>,
    /// Its shell with its arguments.
    pub shell: Vec<String>,
    /// Annotations by its author.
    pub labels: BTreeMap<String, String>,
    /// The sandboxes that use it, running or not.
    pub used_by: Vec<String>,
    /// Its root filesystem. Not to be written.
    pub rootfs: PathBuf,
}

impl ImageInfo {
    pub(super) fn of(store: &Store, info: msb_image::ImageInfo) -> ImageInfo {
        let config = info.config;
        let texts = |digests: Vec<msb_image::Digest>| digests.into_iter().map(String::from);
        ImageInfo {
            rootfs: store.rootfs(&info.id),
            id: info.id.into(),
            names: info.references.iter().map(msb_image::Reference::familiar).collect(),
            digests: texts(info.digests).collect(),
            size: info.record.unpacked_bytes,
            download_size: {
                let sizes = info.record.layers.iter().map(|layer| layer.size);
                sizes.fold(0, u64::saturating_add)
            },
            layers: texts(info.record.layers.into_iter().map(|layer| layer.digest).collect())
                .collect(),
            architecture: config.architecture,
            added_at: UNIX_EPOCH + Duration::from_millis(info.record.made_ms),
            created: config.created,
            env: config.env,
            workdir: config.workdir,
            user: config.user,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            shell: config.shell,
            labels: config.labels,
            used_by: info.used_by,
        }
    }
}

/// What was removed from the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneReport {
    /// Images, by name where they had one, else by id.
    pub removed: Vec<String>,
    /// How many bytes are free again, about.
    pub freed: u64,
}

impl From<TaskOutcome> for PruneReport {
    fn from(outcome: TaskOutcome) -> PruneReport {
        PruneReport { removed: outcome.removed, freed: outcome.freed }
    }
}
