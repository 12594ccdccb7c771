//! What both sides say first.

use crate::error::WireError;
use minicbor::{Decode, Encode};

/// Oldest protocol version that this code speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol version that this code speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// Feature bit: the agent opens a channel for every session when it is asked to by `FollowAll`.
pub const FEATURE_FOLLOW_ALL: u64 = 1;
/// Optional abilities that this code has, as bits.
pub const FEATURES: u64 = FEATURE_FOLLOW_ALL;

/// The first frame of each side.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Oldest protocol version spoken.
    #[n(0)]
    pub min_version: u32,
    /// Newest protocol version spoken.
    #[n(1)]
    pub max_version: u32,
    /// Features offered.
    #[n(2)]
    #[cbor(default)]
    pub features: u64,
    /// Features without which the sender will not go on.
    #[n(3)]
    #[cbor(default)]
    pub required: u64,
    /// The agent's: random at each start, so that a restart is noticed. Absent from the host.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub boot_id: Option<[u8; 16]>,
    /// The sender's software version, for messages only.
    #[n(5)]
    #[cbor(default)]
    pub software: String,
}

impl Hello {
    /// What this code says, with the boot id of an agent.
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

/// What two sides have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The newest version that both speak.
    pub version: u32,
    /// The features that both have.
    pub features: u64,
}

impl Agreed {
    /// Whether both sides have a feature.
    pub const fn has(&self, feature: u64) -> bool {
        self.features & feature == feature
    }
}

/// Finds common ground, or says why there is none. Symmetric: both sides come to the same result.
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
    fn the_newest_common_version_and_common_features_are_taken() {
        let agreed = agree(&hello(1, 4, 0b110, 0), &hello(2, 9, 0b011, 0)).unwrap();
        assert_eq!(agreed, Agreed { version: 4, features: 0b010 });
    }

    #[test]
    fn disjoint_versions_are_refused_by_both_sides() {
        let (old, new) = (hello(1, 2, 0, 0), hello(3, 4, 0, 0));
        assert_eq!(agree(&old, &new), Err(WireError::NoCommonVersion(1, 2, 3, 4)));
        assert_eq!(agree(&new, &old), Err(WireError::NoCommonVersion(3, 4, 1, 2)));
    }

    #[test]
    fn an_unknown_required_feature_is_refused_and_an_optional_one_is_not() {
        assert_eq!(
            agree(&hello(1, 1, 0b01, 0), &hello(1, 1, 0b11, 0b10)),
            Err(WireError::UnknownFeatures(0b10))
        );
        assert!(agree(&hello(1, 1, 0b01, 0), &hello(1, 1, 0b11, 0b01)).is_ok());
    }
}
