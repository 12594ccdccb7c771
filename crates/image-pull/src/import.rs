//! Images from archives and directories: OCI's layout, what `docker save` writes, and a tar of a
//! root filesystem.

use crate::compression::plain;
use crate::helper::Helper;
use crate::layer::{Bounds, unpack};
use crate::make::{Report, make, make_from_rootfs};
use crate::manifest::{Descriptor, Document, Manifest, check_layer_count, choose, manifest_of};
use crate::tarball::{Kind, TarReader};
use crate::tree::{Owners, Tree, open_file, parts};
use msb_image::{
    Blob, Digest, Error, ImageConfig, MAX_DOCUMENT, OFFICIAL_REGISTRY, Reference, Result, Store,
};
use oci_spec::image::OciLayout;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Under which an archive may say what its images are called.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// How deep lists of images may be nested.
const MAX_NESTING: u32 = 4;

/// One image of `manifest.json`, as `docker save` writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Takes an image from a file or directory, and returns its id and what it calls itself.
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
    if !is_image_archive(path)? {
        let layer = store.add_blob(open_file(path)?, None)?;
        let config = ImageConfig::default();
        return make_from_rootfs(store, helper, layer, config, report).map(|id| (id, None));
    }
    let unpacked = store.temporary();
    std::fs::create_dir(&unpacked)
        .map_err(|error| Error::io("create directory", &unpacked, error))?;
    // A strange archive, and so unpacked with the same care as a layer.
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

/// Whether an archive holds images rather than a root filesystem: by its own table of contents,
/// which may come last. The first directory or link that only a root filesystem has ends the search.
fn is_image_archive(path: &Path) -> Result<bool> {
    let mut archive = TarReader::new(plain(open_file(path)?)?);
    while let Some(member) = archive.next_member()? {
        let is_hash =
            |name: &[u8]| name.len() >= 64 && name.iter().take(64).all(u8::is_ascii_hexdigit);
        match (parts(&member.path)?.as_slice(), &member.kind) {
            ([b"oci-layout"], Kind::File) => {
                if is_json::<OciLayout>(&mut archive) {
                    return Ok(true);
                }
            }
            ([b"manifest.json"], Kind::File) => {
                if is_json::<Vec<Saved>>(&mut archive) {
                    return Ok(true);
                }
            }
            // What the files are called differs from tool to tool.
            ([], _) | ([_], Kind::File) => {}
            (_, Kind::Fifo | Kind::Character(..) | Kind::Block(..)) => return Ok(false),
            ([b"blobs", ..], _) => {}
            ([first, ..], _) if is_hash(first) => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// Whether a document, which is never long, is one of these.
fn is_json<T: serde::de::DeserializeOwned>(from: &mut impl Read) -> bool {
    let mut bytes = Vec::new();
    let read = from.take(MAX_DOCUMENT).read_to_end(&mut bytes);
    read.is_ok() && serde_json::from_slice::<T>(&bytes).is_ok()
}

/// A directory in OCI's layout or in docker's. No path in it leads out of it.
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
            Ok(index) => self.in_index(store, &index, wanted)?,
            Err(_) => self.in_saved(store, wanted)?,
        };
        let digest = store.add_blob(bytes.as_slice(), None)?.digest;
        make(store, helper, &digest, &manifest, report).map(|id| (id, name))
    }

    fn in_index(
        &self,
        store: &Store,
        index: &[u8],
        wanted: Option<&Reference>,
    ) -> Result<(Vec<u8>, Manifest, Option<Reference>)> {
        let Document::Index(all) = Document::parse(index)? else {
            return Err(Error::bad("index.json is no index"));
        };
        let entry = pick(&all, wanted, name_of)?;
        let name = name_of(entry);
        let mut blob = entry.blob()?;
        for _ in 0..MAX_NESTING {
            let bytes = self.blob_bytes(&blob.digest)?;
            match Document::parse(&bytes)? {
                Document::Index(all) => blob = choose(&all)?.blob()?,
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
        Err(Error::bad("its lists of images are nested without end"))
    }

    fn in_saved(
        &self,
        store: &Store,
        wanted: Option<&Reference>,
    ) -> Result<(Vec<u8>, Manifest, Option<Reference>)> {
        let bytes = self.read("manifest.json")?;
        let all: Vec<Saved> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::bad(format!("manifest.json cannot be read: {error}")))?;
        let name_of = |saved: &Saved| {
            let first = saved.repo_tags.as_ref().and_then(|tags| tags.first());
            first.and_then(|tag| Reference::parse(tag, OFFICIAL_REGISTRY).ok())
        };
        let saved = pick(&all, wanted, name_of)?;
        let config = store.add_blob(self.open(&saved.config)?, None)?;
        check_layer_count(saved.layers.len())?;
        let layers = saved.layers.iter().map(|path| store.add_blob(self.open(path)?, None));
        let layers = layers.collect::<Result<Vec<Blob>>>()?;
        let bytes = manifest_of(store, &config, &layers)?;
        Ok((bytes, Manifest { config, layers }, name_of(saved)))
    }

    fn open(&self, path: &str) -> Result<std::fs::File> {
        self.tree.open_file(path)
    }

    /// A document, which is never long.
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &self.tree.path().join(path), error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::bad(format!("{path} is longer than any such document")));
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
    let names = NAMES.iter().filter_map(|key| annotations.get(*key));
    // A tag alone is a name only in the place that the archive came from.
    let mut names = names.filter(|name| name.contains(['/', ':']));
    names.find_map(|name| Reference::parse(name, OFFICIAL_REGISTRY).ok())
}

/// The image of an archive that is meant: the only one, or the one that is called so.
fn pick<'a, T>(
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
    let text = format!("the archive has {} images: {}", all.len(), names.join(", "));
    Err(Error::bad(text).hint("import it by the name of one of them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Archive, gzip};

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const SAVED: &str = r#"[{"Config": "config.json", "RepoTags": null, "Layers": ["a.tar.gz"]}]"#;

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
    fn an_archive_of_images_is_known_by_its_contents_whatever_the_files_are_called() {
        let saved = |archive: Archive| archive.file("manifest.json", SAVED);
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
    fn a_root_filesystem_is_none_also_with_files_of_such_names() {
        assert!(!is_image(Archive::new()));
        assert!(!is_image(Archive::new().file(".dockerenv", "").dir("bin").file("bin/sh", "x")));
        assert!(!is_image(Archive::new().file("program", "x").file("manifest.json", "{}")));
        assert!(!is_image(Archive::new().file("oci-layout", "a text")));
        assert!(!is_image(Archive::new().symlink("bin", "usr/bin").file("manifest.json", SAVED)));
        assert!(!is_image(Archive::new().symlink("manifest.json", "x")));
    }
}
