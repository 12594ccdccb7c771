//! What people give as an image: a path, or a name.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Fewest digits by which an image can be called by its id.
const MIN_ID: usize = 12;

/// What an image is to be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A directory that is the root filesystem itself.
    Directory(PathBuf),
    /// An archive, or a directory in OCI's layout.
    Archive(PathBuf),
    /// A name in the store or in a registry.
    Name(Reference),
    /// The beginning of an id of an image in the store, in hexadecimal digits.
    Id(String),
}

/// Whether a text is a path: it begins with `/`, `./` or `../`, or it has a slash and is there.
pub fn is_path(text: &OsStr) -> bool {
    let bytes = text.as_bytes();
    let begins = [&b"/"[..], b"./", b"../"].iter().any(|start| bytes.starts_with(start));
    begins || matches!(bytes, b"." | b"..") || (bytes.contains(&b'/') && Path::new(text).exists())
}

impl Source {
    /// What a text means, here and now: a path has to exist.
    pub fn find(text: &OsStr, default_registry: &str) -> Result<Source> {
        if text.is_empty() || text.as_bytes().contains(&0) {
            return Err(Error::invalid("the image is empty or contains a NUL byte"));
        }
        if is_path(text) {
            let path = Path::new(text);
            let wrong = |error| Error::invalid(format!("cannot use image {text:?}: {error}"));
            let path = path.canonicalize().map_err(wrong)?;
            let is_layout = path.join("oci-layout").is_file() && path.join("index.json").is_file();
            return Ok(match path.is_dir() && !is_layout {
                true => Source::Directory(path),
                false => Source::Archive(path),
            });
        }
        let text = text
            .to_str()
            .ok_or_else(|| Error::invalid(format!("{text:?} is not the name of an image")))?;
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(Source::Id(digest.hex().to_owned()));
        }
        let is_digit = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if (MIN_ID..=64).contains(&text.len()) && text.bytes().all(is_digit) {
            return Ok(Source::Id(text.to_owned()));
        }
        let hint = "a path begins with /, ./ or ../";
        Reference::parse(text, default_registry)
            .map(Source::Name)
            .map_err(|error| Error::invalid(error.to_string()).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OFFICIAL_REGISTRY;

    fn find(text: impl AsRef<OsStr>) -> Result<Source> {
        Source::find(text.as_ref(), OFFICIAL_REGISTRY)
    }

    #[test]
    fn g_a_path_begins_like_one_and_everything_else_is_a_name() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::write(root.join("a.tar"), "x").unwrap();
        assert_eq!(find(&root).unwrap(), Source::Directory(root.clone()));
        assert_eq!(find(root.join("a.tar")).unwrap(), Source::Archive(root.join("a.tar")));
        for file in ["oci-layout", "index.json"] {
            std::fs::write(root.join(file), "{}").unwrap();
        }
        assert_eq!(find(&root).unwrap(), Source::Archive(root.clone()));
        assert!(matches!(find("src/../src").unwrap(), Source::Directory(_)), "it is there");
        assert!(matches!(find("python").unwrap(), Source::Name(_)));
        assert!(matches!(find("no/such").unwrap(), Source::Name(_)));
        assert!(matches!(find("0123456789ab").unwrap(), Source::Id(_)));
        assert!(matches!(find(Digest::of(b"").to_string()).unwrap(), Source::Id(_)));
    }

    #[test]
    fn i_what_is_neither_is_refused() {
        for (text, part) in [("", "empty"), ("./none/such", "No such file"), ("A", "lower case")] {
            assert!(find(text).unwrap_err().to_string().contains(part), "{text}");
        }
        assert!(find(OsStr::from_bytes(b"\xff")).is_err() && find("a\0").is_err());
    }
}
