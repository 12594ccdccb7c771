//! From blobs to an image in the store.

use crate::helper::Helper;
use crate::layer::Layer;
use crate::manifest::{Manifest, manifest_of, own_architecture};
use msb_image::{
    Blob, Digest, Error, Hasher, ImageConfig, ImageRecord, Phase, Progress, Result, Store, now_ms,
};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Told how far it is.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Progress);

/// Unpacks an image whose blobs are all in the store. Its id comes back.
pub(crate) fn make(
    store: &Store,
    helper: &Helper,
    manifest_digest: &Digest,
    manifest: &Manifest,
    report: Report<'_>,
) -> Result<Digest> {
    let id = &manifest.config.digest;
    let config = checked_config(store, manifest)?;
    let _lock = store.hold_digest(id)?;
    if store.has(id) {
        return Ok(id.clone());
    }
    let made = store.temporary();
    let layers = manifest.layers.iter().zip(&config.diff_ids);
    let layers: Vec<Layer> =
        layers.map(|(blob, diff)| (store.blob(&blob.digest), Some(diff.clone()))).collect();
    let result = fill(helper, layers, manifest, &made, config.absolute_workdir(), report).and_then(
        |unpacked_bytes| {
            let record = ImageRecord {
                manifest: manifest_digest.clone(),
                config: id.clone(),
                layers: manifest.layers.clone(),
                unpacked_bytes,
                made_ms: now_ms(),
            };
            store.install(id, &made, &record)
        },
    );
    if let Err(error) = result {
        // The first error is the one to report; what is left is tidied up by the next pull.
        let _ = helper.remove_tree(&made);
        return Err(error);
    }
    Ok(id.clone())
}

fn fill(
    helper: &Helper,
    layers: Vec<Layer>,
    manifest: &Manifest,
    made: &Path,
    workdir: Option<String>,
    report: Report<'_>,
) -> Result<u64> {
    fs::create_dir(made).map_err(|error| Error::io("create directory", made, error))?;
    let mut progress = Progress::default();
    progress.phase = Phase::Unpacking;
    progress.layers = count(manifest.layers.len());
    progress.bytes_total = total(&manifest.layers);
    report(progress);
    let unpacked = helper.unpack(layers, &made.join("rootfs"), workdir, |done, bytes| {
        progress.layers_done = done;
        progress.bytes = bytes.min(progress.bytes_total);
        report(progress);
    })?;
    progress.layers_done = progress.layers;
    progress.bytes = progress.bytes_total;
    report(progress);
    Ok(unpacked.bytes)
}

/// The configuration, which has to be for this system and to name as many layers as there are.
pub(crate) fn checked_config(store: &Store, manifest: &Manifest) -> Result<ImageConfig> {
    let config = store.config(&manifest.config.digest)?;
    let (layers, diffs) = (manifest.layers.len(), config.diff_ids.len());
    if layers != diffs {
        return Err(Error::bad(format!("it has {layers} layers, and digests of {diffs}")));
    }
    let own = own_architecture();
    let fits = |found: &str, wanted: &str| found.is_empty() || found == wanted;
    if !fits(&config.os, "linux") || !fits(&config.architecture, own) {
        let text = format!("it is for {}/{}, and not for", config.os, config.architecture);
        return Err(Error::bad(format!("{text} linux/{own}")));
    }
    Ok(config)
}

/// Makes an image of one layer, a root filesystem, whose plain digest nobody has told.
pub(crate) fn make_from_rootfs(
    store: &Store,
    helper: &Helper,
    layer: Blob,
    mut config: ImageConfig,
    report: Report<'_>,
) -> Result<Digest> {
    let path = store.blob(&layer.digest);
    let made = store.temporary();
    let manifest = Manifest { config: layer.clone(), layers: vec![layer.clone()] };
    let work = || -> Result<Digest> {
        fs::create_dir(&made).map_err(|error| Error::io("create directory", &made, error))?;
        let mut progress = Progress::default();
        progress.phase = Phase::Unpacking;
        (progress.layers, progress.bytes_total) = (1, layer.size);
        report(progress);
        let layers = vec![(path.clone(), None)];
        let workdir = config.absolute_workdir();
        let unpacked = helper.unpack(layers, &made.join("rootfs"), workdir, |_, bytes| {
            progress.bytes = bytes.min(layer.size);
            report(progress);
        })?;
        config.diff_ids = unpacked.diff_ids;
        config.os = "linux".to_owned();
        config.architecture = own_architecture().to_owned();
        let document = config.to_document();
        let id = store.put_blob(&document)?;
        let blob = Blob { digest: id.clone(), size: document.len() as u64 };
        let head = head_of(&path)?;
        let manifest_bytes = manifest_of(&blob, &[(layer.clone(), head)]);
        let record = ImageRecord {
            manifest: store.put_blob(&manifest_bytes)?,
            config: id.clone(),
            layers: manifest.layers,
            unpacked_bytes: unpacked.bytes,
            made_ms: now_ms(),
        };
        let _lock = store.hold_digest(&id)?;
        match store.has(&id) {
            true => helper.remove_tree(&made)?,
            false => store.install(&id, &made, &record)?,
        }
        Ok(id)
    };
    let result = work();
    if result.is_err() {
        let _ = helper.remove_tree(&made);
    }
    result
}

/// How a file begins.
pub(crate) fn head_of(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut head));
    read.map_err(|error| Error::io("read", path, error))?;
    Ok(head)
}

/// Copies content among the blobs. With an expected digest it has to have that.
pub(crate) fn add_blob(
    store: &Store,
    mut from: impl Read,
    expected: Option<&Digest>,
) -> Result<Blob> {
    let temporary = store.temporary();
    let result = write_blob(&mut from, &temporary).and_then(|blob| {
        if expected.is_some_and(|expected| *expected != blob.digest) {
            let text = format!("a blob has the digest {}", blob.digest);
            return Err(Error::bad(format!(
                "{text}, not {}",
                expected.map(Digest::hex).unwrap_or("")
            )));
        }
        adopt(store, &temporary, &blob.digest)?;
        Ok(blob)
    });
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Gives a file whose digest was computed its place among the blobs.
pub(crate) fn adopt(store: &Store, file: &Path, digest: &Digest) -> Result<()> {
    let place = store.blob(digest);
    fs::rename(file, &place).map_err(|error| Error::io("make", &place, error))
}

pub(crate) fn new_file(path: &PathBuf) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| Error::io("create", path, error))
}

fn write_blob(from: &mut impl Read, path: &PathBuf) -> Result<Blob> {
    let mut writer = HashingWriter::new(new_file(path)?);
    io::copy(from, &mut writer).map_err(|error| Error::io("write", path, error))?;
    let (_, blob) = writer.finish();
    Ok(blob)
}

/// Computes the digest of what is written through it.
#[derive(Debug)]
pub(crate) struct HashingWriter<W> {
    to: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        HashingWriter { to, hasher: Hasher::default(), size: 0 }
    }

    pub(crate) fn finish(self) -> (W, Blob) {
        (self.to, Blob { digest: self.hasher.finish(), size: self.size })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// How many bytes blobs have, as somebody says who need not be right.
pub(crate) fn total(blobs: &[Blob]) -> u64 {
    blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
}

pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
