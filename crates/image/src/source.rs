//! Where an image comes from, as the caller names it: a path, a reference or an id.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Minimum number of digits of an abbreviated id.
const MIN_ID: usize = 12;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A directory with a root filesystem.
    Directory(PathBuf),
    /// An archive, or a directory in OCI image layout.
    Archive(PathBuf),
    /// A reference in the store or a registry.
    Name(Reference),
    /// The first hexadecimal digits of the id of an image in the store.
    Id(String),
}

/// Whether a text is a path: it begins with `/`, `./` or `../`, or contains a slash and exists.
fn is_path(text: &OsStr) -> bool {
    let bytes = text.as_bytes();
    let begins = [&b"/"[..], b"./", b"../"].iter().any(|start| bytes.starts_with(start));
    begins || matches!(bytes, b"." | b"..") || (bytes.contains(&b'/') && Path::new(text).exists())
}

impl Source {
    /// Interprets a text. A path must exist.
    pub fn find(text: &OsStr, default_registry: &str) -> Result<Source> {
        if text.is_empty() || text.as_bytes().contains(&0) {
            return Err(Error::invalid("the name of the image is empty or contains a NUL byte"));
        }
        if is_path(text) {
            let path = Path::new(text);
            let failed = |why: String| Error::invalid(format!("cannot use image {text:?}: {why}"));
            let path = path.canonicalize().map_err(|error| match path.exists() {
                // Such as /dev/stdin and what a shell makes of <(...).
                true => failed("a pipe of this process".to_owned()).hint("use a FIFO or a file"),
                false => failed(error.to_string()),
            })?;
            let is_layout = path.join("oci-layout").is_file() && path.join("index.json").is_file();
            return Ok(match path.is_dir() && !is_layout {
                true => Source::Directory(path),
                false => Source::Archive(path),
            });
        }
        let text = text
            .to_str()
            .ok_or_else(|| Error::invalid(format!("invalid image name {text:?}: not UTF-8")))?;
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
    use std::os::fd::AsRawFd;

    fn find(text: impl AsRef<OsStr>) -> Result<Source> {
        Source::find(text.as_ref(), OFFICIAL_REGISTRY)
    }

    #[test]
    fn g_path_begins_like_one_and_the_rest_are_names() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        std::fs::write(root.join("a.tar"), "x").unwrap();
        assert_eq!(find(&root).unwrap(), Source::Directory(root.clone()));
        assert_eq!(find(root.join("a.tar")).unwrap(), Source::Archive(root.join("a.tar")));
        for file in ["oci-layout", "index.json"] {
            std::fs::write(root.join(file), "{}").unwrap();
        }
        assert_eq!(find(&root).unwrap(), Source::Archive(root.clone()));
        assert!(matches!(find("src/../src").unwrap(), Source::Directory(_)), "it exists");
        assert!(matches!(find("python").unwrap(), Source::Name(_)));
        assert!(matches!(find("no/such").unwrap(), Source::Name(_)));
        assert!(matches!(find("0123456789ab").unwrap(), Source::Id(_)));
        assert!(matches!(find(Digest::of(b"").to_string()).unwrap(), Source::Id(_)));
    }

    #[test]
    fn i_neither_path_nor_name_is_refused() {
        let (pipe, _writer) = std::io::pipe().unwrap();
        let pipe = format!("/dev/fd/{}", pipe.as_raw_fd());
        let cases = [
            ("", "empty"),
            ("./none/such", "No such file"),
            ("A", "lower case"),
            (&pipe, "a pipe"),
        ];
        for (text, part) in cases {
            assert!(find(text).unwrap_err().to_string().contains(part), "{text}");
        }
        assert!(find(OsStr::from_bytes(b"\xff")).is_err() && find("a\0").is_err());
    }
}
