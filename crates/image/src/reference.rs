//! References: the names of images, in the grammar of docker and podman.
//!
//! ```text
//! [HOST[:PORT]/]PATH[/PATH..][:TAG][@DIGEST]
//! ```
//!
//! The first part is a host if it contains a dot or a colon or is `localhost`. Without a host the
//! default registry applies; a name of one part in docker.io is an official image.
//!
//! Not `oci_spec::distribution::Reference`: it has one fixed default registry and no IPv6 hosts,
//! accepts port 0 and Unicode tags, gives no reason for a refusal, and its regular expression takes
//! 45 ms to compile and then 7 MB of the caller's memory.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Registry of names without a host, unless another is configured.
pub const OFFICIAL_REGISTRY: &str = "docker.io";
/// Other names of it.
const OFFICIAL_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// Prefix of official images in the registry.
const OFFICIAL_PATH: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Maximum length of registry and path together, by the reference grammar.
const MAX_NAME: usize = 255;

/// The fully qualified name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {text:?}: {why}")]
pub struct InvalidReference {
    text: String,
    why: &'static str,
}

impl Reference {
    /// Parses a reference. A name without a host belongs to `default_registry`.
    pub fn parse(text: &str, default_registry: &str) -> Result<Reference, InvalidReference> {
        let invalid = |why| InvalidReference { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    invalid("a digest must be sha256: and 64 lower-case hexadecimal digits")
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon before a slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("a tag must have 1 to 128 letters, digits, '_', '.' and '-'"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) => (host, path),
            _ => (default_registry, name),
        };
        if !is_host(registry) {
            return Err(invalid("its registry is not a valid host"));
        }
        let registry =
            if OFFICIAL_ALIASES.contains(&registry) { OFFICIAL_REGISTRY } else { registry };
        let repository = match registry == OFFICIAL_REGISTRY && !path.contains('/') {
            true => format!("{OFFICIAL_PATH}{path}"),
            false => path.to_owned(),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid("names must be lower case"));
        }
        if !repository.split('/').all(is_component) {
            return Err(invalid("each part must have letters, digits and single '.', '_', '-'"));
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid("it is longer than 255 bytes"));
        }
        let tag = tag.map(str::to_owned);
        let tag = if digest.is_none() { tag.or(Some(DEFAULT_TAG.to_owned())) } else { tag };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Returns the registry's host, with its port if given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path of the image in its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the shortest form, without the default registry and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix(OFFICIAL_REGISTRY).and_then(|s| s.strip_prefix('/'))
        else {
            return full;
        };
        match short.strip_prefix(OFFICIAL_PATH) {
            Some(shorter) if !shorter.contains('/') => shorter.to_owned(),
            _ => short.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Reference, InvalidReference> {
        Reference::parse(&text, OFFICIAL_REGISTRY)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

fn is_host_like(text: &str) -> bool {
    text == "localhost" || text.contains('.') || text.contains(':')
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, port)) => {
            let is_address = inside.parse::<std::net::Ipv6Addr>().is_ok();
            return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let is_label = |label: &str| {
        let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        ends(label.bytes().next())
            && ends(label.bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&text.len())
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

/// Whether it is letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(is_plain).filter(|between| !between.is_empty());
    text.starts_with(is_plain)
        && text.ends_with(is_plain)
        && separators.into_iter().all(|between| {
            matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        Reference::parse(text, OFFICIAL_REGISTRY).unwrap()
    }

    #[test]
    fn g_names_mean_what_docker_takes_them_for() {
        let digest = Digest::of(b"x");
        let at = format!("ghcr.io/org/app@{digest}");
        let cases = [
            ("python", "docker.io/library/python:latest", "python:latest"),
            ("python:3.12-slim", "docker.io/library/python:3.12-slim", "python:3.12-slim"),
            ("org/app", "docker.io/org/app:latest", "org/app:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1", "localhost:5000/x/y:1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            (at.as_str(), at.as_str(), at.as_str()),
        ];
        for (text, full, short) in cases {
            let reference = parse(text);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), short);
            assert_eq!(parse(full), reference, "a full name parses as itself");
            assert_eq!(parse(short), reference, "and so does a short one");
        }
        assert_eq!(parse(&at).digest(), Some(&digest));
        assert_eq!(parse(&at).tag(), None);
    }

    #[test]
    fn g_another_default_registry_has_no_official_images() {
        let reference = Reference::parse("python", "registry.example:5000").unwrap();
        assert_eq!(reference.to_string(), "registry.example:5000/python:latest");
        assert_eq!(Reference::parse("docker.io/a", "x.y").unwrap(), parse("a"));
    }

    #[test]
    fn i_invalid_name_is_refused_with_the_reason() {
        let bad = [
            "",
            "Python",
            "a b",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a:ta/g",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a@sha256:12",
            "a@md5:x",
            "a\0b",
            "../a",
            "a/../b",
            "host:port/a",
            "host:0/a",
            "ho_st.x/a",
            "[::g]/a",
            "ü",
        ];
        for text in bad {
            let result = Reference::parse(text, OFFICIAL_REGISTRY);
            assert!(result.is_err(), "{text:?} became {result:?}");
        }
        assert!(Reference::parse(&"a".repeat(300), OFFICIAL_REGISTRY).is_err());
        assert!(Reference::parse(&format!("a:{}", "b".repeat(129)), OFFICIAL_REGISTRY).is_err());
        assert_eq!(parse("x/a_b--c__d.e/f").repository(), "x/a_b--c__d.e/f");
    }
}
