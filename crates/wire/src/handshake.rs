//! The handshake: versions and features.

use crate::error::WireError;
use minicbor::{Decode, Encode};

/// Oldest protocol version that this code supports.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol version that this code supports.
pub const PROTOCOL_MAX: u32 = 1;
/// Feature bit: the agent supports `FollowAll`.
pub const FEATURE_FOLLOW_ALL: u64 = 1;
/// Feature bit: the agent supports the channel family [`fs`](crate::fs).
pub const FEATURE_FS: u64 = 2;
/// Feature bits that this code supports.
pub const FEATURES: u64 = FEATURE_FOLLOW_ALL | FEATURE_FS;

/// The first frame of each peer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Oldest supported protocol version.
    #[n(0)]
    pub min_version: u32,
    /// Newest supported protocol version.
    #[n(1)]
    pub max_version: u32,
    /// Supported features.
    #[n(2)]
    #[cbor(default)]
    pub features: u64,
    /// Features that the peer must support.
    #[n(3)]
    #[cbor(default)]
    pub required: u64,
    /// Random at each start of an agent, so that the host detects a restart. Absent from the host.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub boot_id: Option<[u8; 16]>,
    /// The sender's software version, for error messages only.
    #[n(5)]
    #[cbor(default)]
    pub software: String,
}

impl Hello {
    /// Returns the hello of this code, with the boot id of an agent.
    pub fn ours(boot_id: Option<[u8; 16]>) -> Self {
        Hello {
            min_version: PROTOCOL_MIN,
            max_version: PROTOCOL_MAX,
            features: FEATURES,
            required: 0,
            boot_id,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// The result of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The newest version that both peers support.
    pub version: u32,
    /// The features that both peers support.
    pub features: u64,
}

impl Agreed {
    /// Returns whether both peers support a feature.
    pub const fn has(&self, feature: u64) -> bool {
        self.features & feature == feature
    }
}

/// Negotiates version and features. Symmetric: both peers get the same result.
pub fn agree(ours: &Hello, theirs: &Hello) -> Result<Agreed, WireError> {
    let version = ours.max_version.min(theirs.max_version);
    if version < ours.min_version || version < theirs.min_version {
        return Err(WireError::NoCommonVersion(
            ours.min_version,
            ours.max_version,
            theirs.min_version,
            theirs.max_version,
        ));
    }
    let unknown = theirs.required & !ours.features;
    if unknown != 0 {
        return Err(WireError::UnknownFeatures(unknown));
    }
    Ok(Agreed { version, features: ours.features & theirs.features })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(min: u32, max: u32, features: u64, required: u64) -> Hello {
        Hello {
            min_version: min,
            max_version: max,
            features,
            required,
            boot_id: None,
            software: String::new(),
        }
    }

    #[test]
    fn newest_common_version_and_features_are_chosen() {
        let agreed = agree(&hello(1, 4, 0b110, 0), &hello(2, 9, 0b011, 0)).unwrap();
        assert_eq!(agreed, Agreed { version: 4, features: 0b010 });
    }

    #[test]
    fn disjoint_versions_are_refused_by_both_peers() {
        let (old, new) = (hello(1, 2, 0, 0), hello(3, 4, 0, 0));
        assert_eq!(agree(&old, &new), Err(WireError::NoCommonVersion(1, 2, 3, 4)));
        assert_eq!(agree(&new, &old), Err(WireError::NoCommonVersion(3, 4, 1, 2)));
    }

    #[test]
    fn only_required_unknown_features_are_refused() {
        assert_eq!(
            agree(&hello(1, 1, 0b01, 0), &hello(1, 1, 0b11, 0b10)),
            Err(WireError::UnknownFeatures(0b10))
        );
        assert!(agree(&hello(1, 1, 0b01, 0), &hello(1, 1, 0b11, 0b01)).is_ok());
    }
}
