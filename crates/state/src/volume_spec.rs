//! The description of a new volume.

use crate::error::Failure;
use crate::name::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Least and most size of a disk (the most is the limit of ext4).
const MIN_DISK_MIB: u64 = 16;
const MAX_DISK_MIB: u64 = 16 * 1024 * 1024;

/// The form of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VolumeKind {
    /// A directory, which sandboxes can share.
    #[default]
    Directory,
    /// A filesystem in a file of a fixed size, for one running sandbox at a time.
    Disk,
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VolumeKind::Directory => "directory",
            VolumeKind::Disk => "disk",
        })
    }
}

impl FromStr for VolumeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<VolumeKind, String> {
        match text {
            "directory" | "dir" => Ok(VolumeKind::Directory),
            "disk" => Ok(VolumeKind::Disk),
            _ => Err(format!("kind is {text:?}; it must be \"directory\" or \"disk\"")),
        }
    }
}

/// The options of a new volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewVolume {
    /// Its form.
    pub kind: VolumeKind,
    /// How much a directory should hold at most, in MiB. It is reported and not enforced.
    pub quota_mib: Option<u64>,
    /// The size of a disk in MiB.
    pub size_mib: Option<u64>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
}

impl NewVolume {
    /// Refuses options that no volume can have.
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        let refuse = |reason: String| {
            Err(Failure::invalid_config(format!("cannot create volume {name}: {reason}")))
        };
        match (self.kind, self.quota_mib, self.size_mib) {
            (VolumeKind::Directory, _, Some(_)) => {
                return refuse("a directory has no size; give it a quota".to_owned());
            }
            (VolumeKind::Directory, Some(0), None) => {
                return refuse("its quota is 0 MiB".to_owned());
            }
            (VolumeKind::Directory, _, None) => {}
            (VolumeKind::Disk, Some(_), _) => {
                return refuse("a disk has no quota; give it a size".to_owned());
            }
            (VolumeKind::Disk, None, None) => return refuse("a disk needs a size".to_owned()),
            (VolumeKind::Disk, None, Some(size)) => {
                if let Err(reason) = check_disk_size(size) {
                    return refuse(reason);
                }
            }
        }
        match self.labels.keys().any(|key| key.is_empty()) {
            true => refuse("a label has an empty key".to_owned()),
            false => Ok(()),
        }
    }
}

/// Refuses the size of a disk that no disk can have.
pub(crate) fn check_disk_size(mib: u64) -> Result<(), String> {
    match (MIN_DISK_MIB..=MAX_DISK_MIB).contains(&mib) {
        true => Ok(()),
        false => {
            Err(format!("its size is {mib} MiB; it must be {MIN_DISK_MIB} to {MAX_DISK_MIB} MiB"))
        }
    }
}

/// Parses the name of a volume, for which the rules of a sandbox's name hold.
pub fn volume_name(text: &str) -> Result<Name, Failure> {
    text.parse::<Name>().map_err(|error| {
        Failure::invalid_config(error.to_string().replacen("a sandbox", "a volume", 1))
    })
}
