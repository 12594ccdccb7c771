//! Imports an OCI image layout, an archive of `docker save`, or a tar of a root filesystem.

use crate::compression::decompress;
use crate::helper::Helper;
use crate::layer::{Bounds, unpack};
use crate::make::{Report, make, make_from_rootfs};
use crate::manifest::{
    Descriptor, Document, Manifest, check_layer_count, manifest_of, select_platform,
};
use crate::stream::Spool;
use crate::tarball::{Kind, TarReader};
use crate::tree::{Owners, Tree, components, open_file};
use msb_image::{
    Blob, Digest, Error, ImageConfig, MAX_DOCUMENT, OFFICIAL_REGISTRY, Reference, Result, Store,
};
use oci_spec::image::OciLayout;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Annotations for the names of images in an archive.
const NAME_KEYS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Maximum nesting of indexes.
const MAX_NESTING: u32 = 4;

/// One image in the `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Imports an image from an archive or directory. Returns its id and its name in the archive.
pub(crate) fn import(
    store: &Store,
    helper: &Helper,
    path: &Path,
    wanted: Option<&Reference>,
    report: Report<'_>,
) -> Result<(Digest, Option<Reference>)> {
    if path.is_dir() {
        let layout = Layout { tree: Tree::open(path, Owners::RootOnly)? };
        return layout.import(store, helper, wanted, report);
    }
    let spool = spool(store, path)?;
    let path = spool.as_ref().map_or(path, Spool::path);
    if !is_image_archive(path)? {
        let layer = store.add_blob(open_file(path)?, None)?;
        let config = ImageConfig::default();
        return make_from_rootfs(store, helper, layer, config, report).map(|id| (id, None));
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
    while let Some(member) = archive.next_member()? {
        let is_hash =
            |name: &[u8]| name.len() >= 64 && name.iter().take(64).all(u8::is_ascii_hexdigit);
        match (components(&member.path)?.as_slice(), &member.kind) {
            ([b"oci-layout"], Kind::File) => {
                if is_json::<OciLayout>(&mut archive) {
                    return Ok(true);
                }
            }
            ([b"manifest.json"], Kind::File) => {
                if is_json::<Vec<DockerImage>>(&mut archive) {
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

/// Whether a document of bounded length parses as `T`.
fn is_json<T: serde::de::DeserializeOwned>(from: &mut impl Read) -> bool {
    let mut bytes = Vec::new();
    let read = from.take(MAX_DOCUMENT).read_to_end(&mut bytes);
    read.is_ok() && serde_json::from_slice::<T>(&bytes).is_ok()
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
        wanted: Option<&Reference>,
        report: Report<'_>,
    ) -> Result<(Digest, Option<Reference>)> {
        let (bytes, manifest, name) = match self.read("index.json") {
            Ok(index) => self.read_index(store, &index, wanted)?,
            Err(_) => self.read_docker_manifest(store, wanted)?,
        };
        let digest = store.add_blob(bytes.as_slice(), None)?.digest;
        make(store, helper, &digest, &manifest, report).map(|id| (id, name))
    }

    fn read_index(
        &self,
        store: &Store,
        index: &[u8],
        wanted: Option<&Reference>,
    ) -> Result<(Vec<u8>, Manifest, Option<Reference>)> {
        let Document::Index(all) = Document::parse(index)? else {
            return Err(Error::bad("cannot read index.json: not an index"));
        };
        let entry = select_image(&all, wanted, name_of)?;
        let name = name_of(entry);
        let mut blob = entry.blob()?;
        for _ in 0..MAX_NESTING {
            let bytes = self.blob_bytes(&blob.digest)?;
            match Document::parse(&bytes)? {
                Document::Index(all) => blob = select_platform(&all)?.blob()?,
                Document::Image(manifest) => {
                    for part in manifest.layers.iter().chain([&manifest.config]) {
                        if !store.blob(&part.digest).is_file() {
                            let path = format!("blobs/sha256/{}", part.digest.hex());
                            store.add_blob(self.open(&path)?, Some(&part.digest))?;
                        }
                    }
                    return Ok((bytes, manifest, name));
                }
            }
        }
        Err(Error::bad(format!("its indexes are nested more than {MAX_NESTING} levels deep")))
    }

    fn read_docker_manifest(
        &self,
        store: &Store,
        wanted: Option<&Reference>,
    ) -> Result<(Vec<u8>, Manifest, Option<Reference>)> {
        let bytes = self.read("manifest.json")?;
        let all: Vec<DockerImage> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::bad(format!("cannot parse manifest.json: {error}")))?;
        let name_of = |image: &DockerImage| {
            let first = image.repo_tags.as_ref().and_then(|tags| tags.first());
            first.and_then(|tag| Reference::parse(tag, OFFICIAL_REGISTRY).ok())
        };
        let image = select_image(&all, wanted, name_of)?;
        let config = store.add_blob(self.open(&image.config)?, None)?;
        check_layer_count(image.layers.len())?;
        let layers = image.layers.iter().map(|path| store.add_blob(self.open(path)?, None));
        let layers = layers.collect::<Result<Vec<Blob>>>()?;
        let bytes = manifest_of(store, &config, &layers)?;
        Ok((bytes, Manifest { config, layers }, name_of(image)))
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

fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations: &BTreeMap<String, String> = &entry.annotations;
    let names = NAME_KEYS.iter().filter_map(|key| annotations.get(*key));
    // A tag alone is no name outside of the registry that it came from.
    let mut names = names.filter(|name| name.contains(['/', ':']));
    names.find_map(|name| Reference::parse(name, OFFICIAL_REGISTRY).ok())
}

/// Selects an image of an archive: the only one, or the one with the wanted name.
fn select_image<'a, T>(
    all: &'a [T],
    wanted: Option<&Reference>,
    name_of: impl Fn(&T) -> Option<Reference>,
) -> Result<&'a T> {
    if let [only] = all {
        return Ok(only);
    }
    let named = |entry: &&T| wanted.is_some() && name_of(entry).as_ref() == wanted;
    if let Some(found) = all.iter().find(named) {
        return Ok(found);
    }
    let names: Vec<String> = all.iter().filter_map(name_of).map(|name| name.familiar()).collect();
    let text = format!("cannot select one of {} images: {}", all.len(), names.join(", "));
    Err(Error::bad(text).hint("import it with the name of one of them"))
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
