//! Information about images.

use msb_image::{Store, TaskOutcome};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its id, `sha256:` and 64 digits: the digest of its configuration.
    pub id: String,
    /// Its names, in their shortest form.
    pub names: Vec<String>,
    /// The digests that registries use for it.
    pub digests: Vec<String>,
    /// The size of its files, in bytes.
    pub size: u64,
    /// The size of its layers as downloaded, in bytes.
    pub download_size: u64,
    /// The digests of its layers as downloaded, lowest first.
    pub layers: Vec<String>,
    /// The processor architecture, such as `amd64`.
    pub architecture: String,
    /// When it was added to the store.
    pub added_at: SystemTime,
    /// When it was created, according to its configuration; empty if not given.
    pub created: String,
    /// Environment variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty for `/`.
    pub workdir: String,
    /// User; empty for root.
    pub user: String,
    /// The entrypoint: the program and arguments that precede a command.
    pub entrypoint: Vec<String>,
    /// The default command.
    pub cmd: Vec<String>,
    /// The shell with its arguments.
    pub shell: Vec<String>,
    /// Labels set by its author.
    pub labels: BTreeMap<String, String>,
    /// The sandboxes that use it, running or stopped.
    pub used_by: Vec<String>,
    /// Its root filesystem. Must not be modified.
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
    /// The removed images, by name if they had one, else by id.
    pub removed: Vec<String>,
    /// The space freed, in bytes, approximately.
    pub freed: u64,
}

impl From<TaskOutcome> for PruneReport {
    fn from(outcome: TaskOutcome) -> PruneReport {
        PruneReport { removed: outcome.removed, freed: outcome.freed }
    }
}
