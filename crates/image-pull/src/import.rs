//! Imports an OCI image layout, an archive of `docker save`, or a tar of a root filesystem.

use crate::archive::unreadable;
use crate::compression::decompress;
use crate::helper::Helper;
use crate::layer::{Bounds, unpack};
use crate::make::{Report, make, make_from_rootfs};
use crate::manifest::{
    DockerImage, Document, Manifest, check_layer_count, manifest_of, parse, parse_index,
};
use crate::select::{Candidate, select_entry, select_named, select_platform};
use crate::stream::Spool;
use crate::tree::{Owners, Tree, components, open_file};
use msb_archive::{Kind, TarReader};
use msb_image::json;
use msb_image::{
    Blob, Digest, Error, ImageConfig, MAX_DOCUMENT, OFFICIAL_REGISTRY, Platform, Reference, Result,
    Store, json_object,
};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Maximum nesting of indexes.
pub(crate) const MAX_NESTING: u32 = 4;

/// The file `oci-layout`.
#[derive(Debug, Default)]
struct LayoutFile {
    version: String,
}

json_object!(LayoutFile { "imageLayoutVersion": version });

/// What an archive is searched for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: Option<&'a Reference>,
    pub(crate) platform: &'a Platform,
}

/// Imports an image from an archive or directory. Returns its id and its names in the archive.
pub(crate) fn import(
    store: &Store,
    helper: &Helper,
    path: &Path,
    wanted: Wanted<'_>,
    report: Report<'_>,
) -> Result<(Digest, Vec<Reference>)> {
    if path.is_dir() {
        let layout = Layout { tree: Tree::open(path, Owners::RootOnly)? };
        return layout.import(store, helper, wanted, report);
    }
    let spool = spool(store, path)?;
    let path = spool.as_ref().map_or(path, Spool::path);
    if !is_image_archive(path)? {
        let layer = store.add_blob(open_file(path)?, None)?;
        let config = ImageConfig::default();
        let id = make_from_rootfs(store, helper, layer, config, wanted.platform, report)?;
        return Ok((id, Vec::new()));
    }
    let unpacked = store.temporary();
    std::fs::create_dir(&unpacked)
        .map_err(|error| Error::io("create directory", &unpacked, error))?;
    // Untrusted, so unpacked like a layer.
    let layers = [(path.to_path_buf(), None)];
    let bounds = Bounds::of_disk(&unpacked)?;
    let result = unpack(&layers, &unpacked, Owners::RootOnly, bounds, |_, _| {})
        .and_then(|_| Tree::open(&unpacked, Owners::RootOnly))
        .and_then(|tree| Layout { tree }.import(store, helper, wanted, report));
    let removed = helper.remove_tree(&unpacked);
    let imported = result?;
    removed?;
    Ok(imported)
}

/// Whether an archive contains images and not a root filesystem.
///
/// An image archive has `oci-layout` or `manifest.json`, perhaps at its end. The search stops at
/// the first directory or link that only a root filesystem has.
fn is_image_archive(path: &Path) -> Result<bool> {
    let mut archive = TarReader::new(decompress(open_file(path)?)?);
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        let is_hash =
            |name: &[u8]| name.len() >= 64 && name.iter().take(64).all(u8::is_ascii_hexdigit);
        match (components(&member.path)?.as_slice(), &member.kind) {
            ([b"oci-layout"], Kind::File) => {
                if is_layout_file(&document(&mut archive)) {
                    return Ok(true);
                }
            }
            ([b"manifest.json"], Kind::File) => {
                if is_docker_manifest(&document(&mut archive)) {
                    return Ok(true);
                }
            }
            // The names of other files differ among tools.
            ([], _) | ([_], Kind::File) => {}
            (_, Kind::Fifo | Kind::Character(..) | Kind::Block(..)) => return Ok(false),
            ([b"blobs", ..], _) => {}
            ([first, ..], _) if is_hash(first) => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Reads a document of bounded length; what cannot be read is not one.
fn document(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match from.take(MAX_DOCUMENT).read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(_) => Vec::new(),
    }
}

fn is_layout_file(bytes: &[u8]) -> bool {
    json::from_slice::<LayoutFile>(bytes).is_ok_and(|file| !file.version.is_empty())
}

fn is_docker_manifest(bytes: &[u8]) -> bool {
    let images = json::from_slice::<Vec<DockerImage>>(bytes);
    images.is_ok_and(|images| images.iter().any(|image| !image.config.is_empty()))
}

/// A directory in the layout of OCI or docker. Paths in it are resolved inside it.
struct Layout {
    tree: Tree,
}

impl Layout {
    fn import(
        &self,
        store: &Store,
        helper: &Helper,
        wanted: Wanted<'_>,
        report: Report<'_>,
    ) -> Result<(Digest, Vec<Reference>)> {
        let Candidate { image: (bytes, manifest), names } = self.find(store, wanted)?;
        let digest = store.add_blob(bytes.as_slice(), None)?.digest;
        let platform = wanted.platform;
        make(store, helper, &digest, &manifest, platform, report).map(|id| (id, names))
    }

    /// Finds the image and adds its blobs to the store.
    ///
    /// `docker save IMAGE@DIGEST` writes an index without entries, beside `manifest.json`.
    fn find(&self, store: &Store, wanted: Wanted<'_>) -> Result<Candidate<(Vec<u8>, Manifest)>> {
        let entries = match self.read("index.json") {
            Ok(index) => parse_index(&index)?,
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        if entries.is_empty() {
            return match self.read("manifest.json") {
                Ok(bytes) => self.find_in_docker_manifest(store, &bytes, wanted),
                Err(error) if is_missing(&error) => Err(Error::bad("it has no image")),
                Err(error) => Err(error),
            };
        }
        let Candidate { image, names } = select_entry(entries, wanted.name, wanted.platform)?;
        let mut blob = image.blob()?;
        for _ in 0..MAX_NESTING {
            let bytes = self.blob_bytes(&blob.digest)?;
            match Document::parse(&bytes)? {
                Document::Index(all) => blob = select_platform(&all, wanted.platform)?.blob()?,
                Document::Image(manifest) => {
                    for part in manifest.layers.iter().chain([&manifest.config]) {
                        if !store.blob(&part.digest).is_file() {
                            let path = format!("blobs/sha256/{}", part.digest.hex());
                            store.add_blob(self.open(&path)?, Some(&part.digest))?;
                        }
                    }
                    return Ok(Candidate { image: (bytes, manifest), names });
                }
            }
        }
        Err(too_deep())
    }

    fn find_in_docker_manifest(
        &self,
        store: &Store,
        bytes: &[u8],
        wanted: Wanted<'_>,
    ) -> Result<Candidate<(Vec<u8>, Manifest)>> {
        let all: Vec<DockerImage> = parse("manifest.json", bytes)?;
        let named = all.into_iter().map(|image| {
            let tags = image.repo_tags.iter();
            let names = tags.filter_map(|tag| Reference::parse(tag, OFFICIAL_REGISTRY).ok());
            Candidate { names: names.collect(), image }
        });
        let same = |a: &DockerImage, b: &DockerImage| a.config == b.config && a.layers == b.layers;
        let Candidate { image, names } = select_named(named, wanted.name, same)?;
        if image.config.is_empty() {
            return Err(Error::bad("cannot use manifest.json: it names no configuration"));
        }
        let config = store.add_blob(self.open(&image.config)?, None)?;
        check_layer_count(image.layers.len())?;
        let layers = image.layers.iter().map(|path| store.add_blob(self.open(path)?, None));
        let layers = layers.collect::<Result<Vec<Blob>>>()?;
        let bytes = manifest_of(store, &config, &layers)?;
        Ok(Candidate { image: (bytes, Manifest { config, layers }), names })
    }

    fn open(&self, path: &str) -> Result<std::fs::File> {
        self.tree.open_file(path)
    }

    /// Reads a document of bounded length.
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &self.tree.path().join(path), error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::bad(format!("{path} is longer than {MAX_DOCUMENT} bytes")));
        }
        Ok(bytes)
    }

    fn blob_bytes(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = self.read(&format!("blobs/sha256/{}", digest.hex()))?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(Error::bad(format!("a blob has the digest {found}, not {digest}"))),
        }
    }
}

/// Returns the error for an index in too many others.
pub(crate) fn too_deep() -> Error {
    Error::bad(format!("its indexes are nested more than {MAX_NESTING} levels deep"))
}

fn is_missing(error: &Error) -> bool {
    error
        .os_error
        .is_some_and(|code| io::Error::from_raw_os_error(code).kind() == io::ErrorKind::NotFound)
}

/// Copies a FIFO, which can be read only once; a regular file is used as it is.
fn spool(store: &Store, path: &Path) -> Result<Option<Spool>> {
    let found = fs::metadata(path).map_err(|error| Error::io("open", path, error))?;
    match found.file_type() {
        kind if kind.is_file() => Ok(None),
        kind if kind.is_fifo() => Spool::fill(store, open_file(path)?).map(Some),
        _ => Err(Error::bad("cannot read an archive: neither a file nor a FIFO")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Archive, gzip};

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const DOCKER_MANIFEST: &str =
        r#"[{"Config": "config.json", "RepoTags": null, "Layers": ["a.tar.gz"]}]"#;

    fn is_image(archive: Archive) -> bool {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = archive.end();
        let [plain, packed] = [bytes.clone(), gzip(&bytes)].map(|bytes| {
            std::fs::write(file.path(), bytes).unwrap();
            is_image_archive(file.path()).unwrap()
        });
        assert_eq!(plain, packed);
        plain
    }

    #[test]
    fn image_archive_is_detected_by_its_contents() {
        let saved = |archive: Archive| archive.file("manifest.json", DOCKER_MANIFEST);
        assert!(is_image(saved(Archive::new().file("config.json", "{}").file("a.tar.gz", "x"))));
        let colon = format!("sha256:{HASH}");
        assert!(is_image(saved(Archive::new().file(&colon, "{}"))));
        let old = Archive::new().dir(HASH).symlink(&format!("{HASH}/layer.tar"), "../b/layer.tar");
        assert!(is_image(saved(old).file("repositories", "{}")));
        let linked = Archive::new()
            .file("blobs/sha256/a", "x")
            .hard_link("blobs/sha256/b", "blobs/sha256/a");
        assert!(is_image(saved(linked)));
        let version = r#"{"imageLayoutVersion": "1.0.0"}"#;
        let layout = Archive::new().dir("./blobs/").dir("blobs/sha256").file("index.json", "{}");
        assert!(is_image(layout.file("oci-layout", version)));
    }

    #[test]
    fn rootfs_with_similar_files_is_no_image_archive() {
        assert!(!is_image(Archive::new()));
        assert!(!is_image(Archive::new().file(".dockerenv", "").dir("bin").file("bin/sh", "x")));
        assert!(!is_image(Archive::new().file("program", "x").file("manifest.json", "{}")));
        assert!(!is_image(Archive::new().file("oci-layout", "a text")));
        assert!(!is_image(
            Archive::new().symlink("bin", "usr/bin").file("manifest.json", DOCKER_MANIFEST)
        ));
        assert!(!is_image(Archive::new().symlink("manifest.json", "x")));
    }
}
