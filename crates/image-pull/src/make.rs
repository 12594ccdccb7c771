//! Making an image from blobs that are in the store.

use crate::helper::Helper;
use crate::layer::{Layer, Unpacked};
use crate::manifest::{Manifest, manifest_of};
use msb_image::{
    Blob, Digest, Error, ImageConfig, ImageRecord, Phase, Platform, Progress, Result, Store,
    now_ms, shown,
};
use std::fs;
use std::path::Path;

/// Receives progress.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Progress);

/// Unpacks an image whose blobs are all in the store, and returns its id.
pub(crate) fn make(
    store: &Store,
    helper: &Helper,
    manifest_digest: &Digest,
    manifest: &Manifest,
    platform: &Platform,
    report: Report<'_>,
) -> Result<Digest> {
    let id = &manifest.config.digest;
    let config = checked_config(store, manifest, platform)?;
    let _lock = store.lock_digest(id)?;
    if store.has(id) {
        return Ok(id.clone());
    }
    in_new_directory(store, helper, |directory| {
        let blobs = &manifest.layers;
        let layers = blobs.iter().zip(&config.diff_ids);
        let layers = layers.map(|(blob, diff)| (store.blob(&blob.digest), Some(diff.clone())));
        let directories = config.directories();
        let unpacked =
            unpack_into(directory, helper, layers.collect(), total(blobs), directories, report)?;
        let record = ImageRecord {
            manifest: manifest_digest.clone(),
            config: id.clone(),
            layers: blobs.clone(),
            unpacked_bytes: unpacked.bytes,
            made_ms: now_ms(),
        };
        store.install(id, directory, &record)
    })?;
    Ok(id.clone())
}

/// Makes an image of one layer, a root filesystem whose uncompressed digest is not known.
pub(crate) fn make_from_rootfs(
    store: &Store,
    helper: &Helper,
    layer: Blob,
    mut config: ImageConfig,
    platform: &Platform,
    report: Report<'_>,
) -> Result<Digest> {
    in_new_directory(store, helper, |directory| {
        let layers = vec![(store.blob(&layer.digest), None)];
        let directories = config.directories();
        let unpacked = unpack_into(directory, helper, layers, layer.size, directories, report)?;
        config.diff_ids = unpacked.diff_ids;
        config.set_platform(platform);
        let config = store.add_blob(config.to_document().as_slice(), None)?;
        let layers = vec![layer];
        let manifest = manifest_of(store, &config, &layers)?;
        let id = config.digest;
        let record = ImageRecord {
            manifest: store.add_blob(manifest.as_slice(), None)?.digest,
            config: id.clone(),
            layers,
            unpacked_bytes: unpacked.bytes,
            made_ms: now_ms(),
        };
        let _lock = store.lock_digest(&id)?;
        match store.has(&id) {
            true => helper.remove_tree(directory)?,
            false => store.install(&id, directory, &record)?,
        }
        Ok(id)
    })
}

/// Calls `fill` with a new temporary directory, and removes that if it fails.
fn in_new_directory<T>(
    store: &Store,
    helper: &Helper,
    fill: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let directory = store.temporary();
    fs::create_dir(&directory).map_err(|error| Error::io("create directory", &directory, error))?;
    let result = fill(&directory);
    if result.is_err() {
        // The first error is reported; the next pull removes what is left.
        let _ = helper.remove_tree(&directory);
    }
    result
}

fn unpack_into(
    directory: &Path,
    helper: &Helper,
    layers: Vec<Layer>,
    bytes_total: u64,
    directories: Vec<String>,
    report: Report<'_>,
) -> Result<Unpacked> {
    let mut progress = Progress::default();
    progress.phase = Phase::Unpacking;
    progress.layers = count(layers.len());
    progress.bytes_total = bytes_total;
    report(progress);
    let unpacked =
        helper.unpack(layers, &directory.join("rootfs"), directories, |done, bytes| {
            progress.layers_done = done;
            progress.bytes = bytes.min(bytes_total);
            report(progress);
        })?;
    progress.layers_done = progress.layers;
    progress.bytes = bytes_total;
    report(progress);
    Ok(unpacked)
}

/// Returns the configuration if it is for a platform and has a digest for each layer.
pub(crate) fn checked_config(
    store: &Store,
    manifest: &Manifest,
    platform: &Platform,
) -> Result<ImageConfig> {
    let config = store.config(&manifest.config.digest)?;
    let (layers, diffs) = (manifest.layers.len(), config.diff_ids.len());
    if layers != diffs {
        return Err(Error::bad(format!("it has {layers} layers, but {diffs} layer digests")));
    }
    let found = config.platform();
    match platform.accepts(&found) {
        true => Ok(config),
        false => {
            Err(Error::bad(format!("it is for {}, not {platform}", shown(&found.to_string())))
                .hint("ask for its platform, as with --platform"))
        }
    }
}

/// Returns the size of blobs as their manifest declares it, which need not be true.
pub(crate) fn total(blobs: &[Blob]) -> u64 {
    blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
}

pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
