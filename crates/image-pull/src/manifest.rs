//! Manifests and indexes of OCI and docker, and the `manifest.json` of `docker save`.
//!
//! Read into types of this module and not of `oci-spec`, because those require fields that real
//! manifests omit, and reject unusual values of unused fields and unused entries.

use msb_image::json::{self, Json};
use msb_image::{Blob, Digest, Error, MAX_DOCUMENT, Platform, Result, Store, json_object, shown};
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE,
    IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Maximum number of layers of an image. Docker allows 127.
const MAX_LAYERS: usize = 1000;

/// The only media type that `oci-client` lacks.
const ZSTD_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A reference to a blob.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    #[serde(skip)]
    pub(crate) artifact_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(skip)]
    pub(crate) platform: Platform,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

json_object!(Descriptor {
    "mediaType": media_type,
    "artifactType": artifact_type,
    "digest": digest,
    "size": size,
    "platform": platform,
    "annotations": annotations,
});

/// A manifest or an index.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

/// The blobs of one image.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
}

#[derive(Debug, Default)]
struct RawDocument {
    schema_version: u64,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

json_object!(RawDocument {
    "schemaVersion": schema_version,
    "config": config,
    "layers": layers,
    "manifests": manifests,
});

/// One image in the `manifest.json` of `docker save`.
#[derive(Debug, Clone, Default)]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    pub(crate) repo_tags: Vec<String>,
    pub(crate) layers: Vec<String>,
}

json_object!(DockerImage { "Config": config, "RepoTags": repo_tags, "Layers": layers });

/// Reads a document; errors name it.
pub(crate) fn parse<T: Json + Default>(what: &str, bytes: &[u8]) -> Result<T> {
    json::from_slice(bytes).map_err(|error| Error::bad(format!("cannot parse {what}: {error}")))
}

/// Reads `index.json`, which may name no image.
pub(crate) fn parse_index(bytes: &[u8]) -> Result<Vec<Descriptor>> {
    let raw: RawDocument = parse("index.json", bytes)?;
    if raw.config.is_some() || raw.layers.is_some() {
        return Err(Error::bad("cannot read index.json: not an index"));
    }
    Ok(raw.manifests.unwrap_or_default())
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document> {
        let raw: RawDocument = parse("its manifest", bytes)?;
        if raw.schema_version == 1 {
            let text = "cannot use its manifest: docker schema version 1 is not supported";
            return Err(Error::bad(text).hint("push the image again with a current tool"));
        }
        let (config, layers) = match (raw.config, raw.layers, raw.manifests) {
            (None, None, Some(manifests)) => return Ok(Document::Index(manifests)),
            // Another program might take the other half (CVE-2021-41190).
            (_, _, Some(_)) => {
                return Err(Error::bad("cannot use its manifest: it is an index as well"));
            }
            // An image without layers has none of that name.
            (Some(config), layers, None) => (config, layers.unwrap_or_default()),
            (None, _, None) => {
                return Err(Error::bad("cannot use its manifest: no configuration"));
            }
        };
        let known = [IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, ""];
        if !known.contains(&config.media_type.as_str()) {
            let kind = shown(&config.media_type);
            return Err(Error::bad(format!("cannot unpack an artifact of type {kind}")));
        }
        if let Some(layer) = layers.iter().find(|layer| layer.media_type.contains("encrypted")) {
            return Err(Error::bad(format!(
                "cannot unpack layer {}: encrypted",
                shown(&layer.digest)
            )));
        }
        check_layer_count(layers.len())?;
        if config.size > MAX_DOCUMENT {
            let text = format!("its configuration is longer than {MAX_DOCUMENT} bytes");
            return Err(Error::bad(text));
        }
        let layers = layers.iter().map(Descriptor::blob).collect::<Result<_>>()?;
        Ok(Document::Image(Manifest { config: config.blob()?, layers }))
    }
}

/// Refuses an image with too many layers.
pub(crate) fn check_layer_count(count: usize) -> Result<()> {
    match count <= MAX_LAYERS {
        true => Ok(()),
        false => Err(Error::bad(format!("it has {count} layers, more than {MAX_LAYERS}"))),
    }
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, blob: &Blob) -> Descriptor {
        let (media_type, digest) = (media_type.to_owned(), blob.digest.to_string());
        Descriptor { media_type, digest, size: blob.size, ..Descriptor::default() }
    }

    pub(crate) fn blob(&self) -> Result<Blob> {
        let digest = self.digest.parse::<Digest>();
        let digest = digest.map_err(|error| Error::bad(error.to_string()))?;
        Ok(Blob { digest, size: self.size })
    }
}

/// Returns a manifest for an image made of blobs in the store.
pub(crate) fn manifest_of(store: &Store, config: &Blob, layers: &[Blob]) -> Result<Vec<u8>> {
    let describe = |blob: &Blob| {
        let path = store.blob(&blob.digest);
        let mut head = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(4).read_to_end(&mut head));
        read.map_err(|error| Error::io("read", &path, error))?;
        let media_type = match head.as_slice() {
            [0x1f, 0x8b, ..] => IMAGE_LAYER_GZIP_MEDIA_TYPE,
            [0x28, 0xb5, 0x2f, 0xfd] => ZSTD_LAYER,
            _ => IMAGE_LAYER_MEDIA_TYPE,
        };
        Ok(Descriptor::new(media_type, blob))
    };
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE_MEDIA_TYPE,
        "config": Descriptor::new(IMAGE_CONFIG_MEDIA_TYPE, config),
        "layers": layers.iter().map(describe).collect::<Result<Vec<_>>>()?,
    });
    Ok(document.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_manifest_beyond_its_bounds_is_refused() {
        let digest = Digest::of(b"x");
        let parse = |size: u64, layers: usize| {
            let layer = format!(r#"{{"digest":"{digest}"}}"#);
            let layers = vec![layer; layers].join(",");
            let config = format!(r#"{{"digest":"{digest}","size":{size}}}"#);
            Document::parse(format!(r#"{{"config":{config},"layers":[{layers}]}}"#).as_bytes())
        };
        assert!(parse(MAX_DOCUMENT, MAX_LAYERS).is_ok());
        let error = parse(MAX_DOCUMENT + 1, 1).unwrap_err().to_string();
        assert!(error.contains("longer than 4194304 bytes"), "{error}");
        let error = parse(1, MAX_LAYERS + 1).unwrap_err().to_string();
        assert!(error.contains("1001 layers"), "{error}");
    }

    #[test]
    fn documents_that_are_no_images_are_refused() {
        let refused = |text: &str| Document::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(refused(r#"{"schemaVersion":1}"#).contains("schema version 1"));
        assert!(refused(r#"{"schemaVersion":2}"#).contains("no configuration"));
        assert!(refused("[").contains("cannot parse"));
        let with = |config: &str, layer: &str| {
            let digest = Digest::of(b"x");
            format!(
                r#"{{"config":{{"mediaType":"{config}","digest":"{digest}"}},
                "layers":[{{"mediaType":"{layer}","digest":"{digest}"}}]}}"#
            )
        };
        assert!(refused(&with("application/vnd.helm+json", "x")).contains("helm"));
        assert!(refused(&with("", "a+encrypted")).contains("encrypted"));
        assert!(refused(r#"{"config":{"digest":"md5:1"},"layers":[]}"#).contains("digest"));
        assert!(Document::parse(with(IMAGE_CONFIG_MEDIA_TYPE, "x").as_bytes()).is_ok());
    }
}
