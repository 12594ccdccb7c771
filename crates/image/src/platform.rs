//! Platforms: the operating system and processor that an image is for.

use crate::json_object;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A platform, written `OS/ARCHITECTURE[/VARIANT]`, by the names of Go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Architecture of the processor, such as `amd64`.
    pub architecture: String,
    /// Variant of the architecture, such as `v7` of `arm`; empty for any.
    pub variant: String,
}

json_object!(Platform { "os": os, "architecture": architecture, "variant": variant });

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: must be OS/ARCHITECTURE[/VARIANT], such as linux/arm64")]
pub struct InvalidPlatform(String);

impl Platform {
    /// Returns the platform of this host.
    pub fn host() -> Platform {
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            variant: String::new(),
        };
        platform.normalized()
    }

    /// Returns it by the common name of each part. The baseline of an architecture has no variant.
    #[must_use]
    pub fn normalized(&self) -> Platform {
        let lower = |text: &str| text.to_ascii_lowercase();
        let (os, variant) = (lower(&self.os), lower(&self.variant));
        let (architecture, implied) = match lower(&self.architecture).as_str() {
            "x86_64" | "x86-64" => ("amd64".to_owned(), ""),
            "aarch64" => ("arm64".to_owned(), ""),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386".to_owned(), ""),
            "armhf" => ("arm".to_owned(), "v7"),
            "armel" => ("arm".to_owned(), "v6"),
            other => (other.to_owned(), ""),
        };
        let variant = if variant.is_empty() { implied.to_owned() } else { variant };
        let variant = match (architecture.as_str(), variant.as_str()) {
            ("amd64", "v1") | ("arm64", "8" | "v8") => String::new(),
            ("arm", "5" | "6" | "7" | "8") => format!("v{variant}"),
            _ => variant,
        };
        Platform { os, architecture, variant }
    }

    /// Whether something for another platform is for this one. What it leaves open fits.
    pub fn accepts(&self, found: &Platform) -> bool {
        let (wanted, found) = (self.normalized(), found.normalized());
        let fits = |wanted: &str, found: &str| found.is_empty() || found == wanted;
        fits(&wanted.os, &found.os)
            && fits(&wanted.architecture, &found.architecture)
            && (wanted.variant.is_empty() || fits(&wanted.variant, &found.variant))
    }

    /// Returns how well an entry of an index fits this platform, least for the best; `None` if it
    /// does not. The baseline comes first, then the variants that need more of the processor.
    pub fn rank(&self, found: &Platform) -> Option<(usize, String)> {
        let (wanted, mut found) = (self.normalized(), found.normalized());
        if found.architecture == "arm" && found.variant.is_empty() {
            found.variant = "v7".to_owned();
        }
        let Platform { os, architecture, variant } = found;
        let fits = (&os, &architecture) == (&wanted.os, &wanted.architecture)
            && (wanted.variant.is_empty() || wanted.variant == variant);
        // Of 32-bit ARM, the usual one and the older ones that run wherever it does.
        let usual = ["v7", "v6", "v5"].iter().position(|usual| *usual == variant);
        let order = usual.filter(|_| architecture == "arm").unwrap_or(3 + variant.len());
        fits.then_some((order, variant))
    }

    /// Whether both parts that matter are known.
    pub fn is_known(&self) -> bool {
        !self.os.is_empty() && !self.architecture.is_empty()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Platform, InvalidPlatform> {
        let is_part = |part: &&str| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            (1..=64).contains(&part.len()) && part.chars().all(is_allowed)
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, ""),
            [os, architecture, variant] => (*os, *architecture, *variant),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        if !parts.iter().all(is_part) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        let [os, architecture, variant] = [os, architecture, variant].map(str::to_owned);
        Ok(Platform { os, architecture, variant }.normalized())
    }
}

impl TryFrom<String> for Platform {
    type Error = InvalidPlatform;

    fn try_from(text: String) -> Result<Platform, InvalidPlatform> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> String {
        platform.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn g_platforms_have_the_names_of_docker() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
        ];
        for (text, name) in cases {
            assert_eq!(platform(text).to_string(), name);
        }
        assert!(["amd64", "arm64"].contains(&Platform::host().architecture.as_str()));
    }

    #[test]
    fn i_invalid_platform_is_refused() {
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd64/", "a/b c", "a/\n"] {
            let error = text.parse::<Platform>().unwrap_err().to_string();
            assert!(error.starts_with("invalid platform \"") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn g_best_variant_of_a_platform_is_ranked_first() {
        let best = |wanted: &str, all: &[&str]| {
            let ranked = all.iter().filter_map(|found| {
                Some((platform(wanted).rank(&platform(found))?, (*found).to_owned()))
            });
            ranked.min().map(|(_, found)| found)
        };
        let amd64 = ["linux/amd64/v4", "linux/amd64/v2", "windows/amd64", "linux/arm64"];
        assert_eq!(best("linux/amd64", &amd64).unwrap(), "linux/amd64/v2");
        assert_eq!(best("linux/amd64/v4", &amd64).unwrap(), "linux/amd64/v4");
        assert_eq!(best("linux/amd64/v3", &amd64), None);
        assert_eq!(best("linux/amd64", &["linux/amd64/v2", "linux/amd64"]).unwrap(), "linux/amd64");
        let arm = ["linux/arm/v5", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6"];
        assert_eq!(best("linux/arm", &arm).unwrap(), "linux/arm/v7");
        assert_eq!(best("linux/arm", &arm[..2]).unwrap(), "linux/arm/v5");
        assert_eq!(best("linux/arm/v7", &["linux/arm"]).unwrap(), "linux/arm");
        assert_eq!(best("linux/arm/v6", &["linux/arm"]), None);
        assert_eq!(best("linux/arm64/v8", &["linux/arm64"]).unwrap(), "linux/arm64");
    }
}
