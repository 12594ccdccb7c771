//! Exports an image to an archive: an OCI image layout, and the `manifest.json` that `docker load`
//! reads.

use crate::manifest::Descriptor;
use crate::stream::Stream;
use msb_image::{Blob, Digest, Error, Reference, Result, Store};
use oci_client::manifest::{OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

/// Writes an image to an archive. `path` is what to call it.
pub(crate) fn export(
    store: &Store,
    id: &Digest,
    reference: Option<&Reference>,
    file: File,
    path: &Path,
) -> Result<()> {
    let record = store
        .record(id)?
        .ok_or_else(|| Error::not_found(format!("cannot find image {id}: not in the store")))?;
    let failed = |error: io::Error| Error::io("write", path, error);
    let mut archive = Builder::new(BufWriter::with_capacity(256 * 1024, Stream(file)));
    let source = store.blob(&record.manifest);
    let manifest = fs::read(&source).map_err(|error| Error::io("read", &source, error))?;
    let media_type = serde_json::from_slice::<serde_json::Value>(&manifest)
        .ok()
        .and_then(|value| value.get("mediaType")?.as_str().map(str::to_owned));
    let media_type = media_type.unwrap_or_else(|| OCI_IMAGE_MEDIA_TYPE.to_owned());
    let blob = Blob { digest: record.manifest.clone(), size: manifest.len() as u64 };
    let mut entry = Descriptor::new(&media_type, &blob);
    if let Some(reference) = reference {
        for key in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
            entry.annotations.insert(key.to_owned(), reference.to_string());
        }
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE,
        "manifests": [entry],
    });
    let path_of = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let docker = serde_json::json!([{
        "Config": path_of(id),
        "RepoTags": reference.filter(|name| name.tag().is_some()).map(|name| [name.familiar()]),
        "Layers": record.layers.iter().map(|layer| path_of(&layer.digest)).collect::<Vec<_>>(),
    }]);
    let texts = [
        ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()),
        ("index.json", index.to_string()),
        ("manifest.json", docker.to_string()),
    ];
    for (name, text) in &texts {
        let content = text.as_bytes();
        add(&mut archive, name, content.len() as u64, content).map_err(failed)?;
    }
    let mut digests: Vec<&Digest> = record.layers.iter().map(|layer| &layer.digest).collect();
    digests.extend([id, &record.manifest]);
    digests.sort();
    digests.dedup();
    for digest in digests {
        let source = store.blob(digest);
        let content = File::open(&source).map_err(|error| Error::io("open", &source, error))?;
        let length = content.metadata().map_err(|e| Error::io("inspect", &source, e))?.len();
        add(&mut archive, &path_of(digest), length, content).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).map_err(failed)
}

fn add(to: &mut Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    to.append_data(&mut header, name, content)
}
