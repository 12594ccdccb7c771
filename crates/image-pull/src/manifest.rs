//! Manifests and indexes of OCI and docker.
//!
//! Parsed into types of this module and not of `oci-spec`, because those require fields that real
//! manifests omit, and reject unusual values of unused fields and unused entries. To be as lenient,
//! they have to be parsed by way of `serde_json::Value`, and that takes up to 330 MiB for a hostile
//! document of 4 MiB, which these types skip without allocating.

use msb_image::{Blob, Digest, Error, MAX_DOCUMENT, Result, Store};
use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE,
    IMAGE_LAYER_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_spec::image::Arch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Maximum number of layers of an image. Docker allows 127.
const MAX_LAYERS: usize = 1000;

/// The only media type that `oci-client` lacks.
const ZSTD_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A reference to a blob.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Platform of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: u32,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Document> {
        let raw: RawDocument = serde_json::from_slice(bytes)
            .map_err(|error| Error::bad(format!("cannot parse its manifest: {error}")))?;
        if raw.schema_version == 1 {
            let text = "cannot use its manifest: docker schema version 1 is not supported";
            return Err(Error::bad(text).hint("push the image again with a current tool"));
        }
        if let Some(manifests) = raw.manifests {
            return Ok(Document::Index(manifests));
        }
        let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
            return Err(Error::bad("cannot use its manifest: no configuration or no layers"));
        };
        let known = [IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, ""];
        if !known.contains(&config.media_type.as_str()) {
            return Err(Error::bad(format!(
                "cannot unpack an artifact of type {}",
                config.media_type
            )));
        }
        if let Some(layer) = layers.iter().find(|layer| layer.media_type.contains("encrypted")) {
            return Err(Error::bad(format!("cannot unpack layer {}: encrypted", layer.digest)));
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

/// Returns the architecture of this host, as images name it.
pub(crate) fn own_architecture() -> String {
    Arch::default().to_string()
}

/// Selects the entry of an index for this platform.
pub(crate) fn select_platform(all: &[Descriptor]) -> Result<&Descriptor> {
    let own = own_architecture();
    let fits = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(|found| found.os == "linux" && found.architecture == own)
    };
    // Of several variants the baseline, else the first, which is the most general.
    let is_baseline = |entry: &&Descriptor| {
        let variant = entry.platform.as_ref().and_then(|platform| platform.variant.as_deref());
        matches!(variant, None | Some("" | "v1" | "v8"))
    };
    let found = all.iter().filter(fits).find(is_baseline).or_else(|| all.iter().find(fits));
    if let Some(found) = found {
        return Ok(found);
    }
    if let [only] = all
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut names: Vec<String> = all
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    names.dedup();
    let text = format!("no image for linux/{own}, only for {}", names.join(", "));
    Err(Error::bad(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        let variant = variant.map(str::to_owned);
        let platform = Platform { architecture: architecture.into(), os: os.into(), variant };
        let digest = Digest::of(format!("{platform:?}").as_bytes()).to_string();
        Descriptor { digest, platform: Some(platform), ..Descriptor::default() }
    }

    #[test]
    fn index_entry_for_this_platform_is_selected() {
        let own = own_architecture();
        let all = [
            entry("windows", &own, None),
            entry("linux", "s390x", None),
            entry("linux", &own, Some("v3")),
            entry("linux", &own, None),
        ];
        assert_eq!(select_platform(&all).unwrap().digest, all[3].digest);
        assert_eq!(select_platform(&all[..3]).unwrap().digest, all[2].digest);
        let error = select_platform(&all[..2]).unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("windows"), "{error}");
        let bare = [Descriptor { digest: all[0].digest.clone(), ..Descriptor::default() }];
        assert!(select_platform(&bare).is_ok() && select_platform(&[]).is_err());
    }

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
