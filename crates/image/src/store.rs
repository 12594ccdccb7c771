//! The store: its layout, its locks, and lookups in it.
//!
//! ```text
//! images/
//!   lock                    shared for users of the store, exclusive for removal
//!   blobs/sha256/HEX        manifests, configurations, layers as downloaded
//!   partial/HEX             partial downloads
//!   roots/HEX/rootfs        root filesystem of the image with that id, read-only from then on
//!   roots/HEX/image.json    the blobs it was made from
//!   refs/HASH.json          a reference and the id of its image
//!   sources/HASH.json       an imported archive and the id of its image
//!   locks/HEX               exclusive for the writer of the blob or image with that digest
//!   tmp/                    files being written
//! ```
//!
//! An image's id is the digest of its configuration, which contains the digests of its uncompressed
//! layers: images with the same id have the same content.

use crate::config::{ImageConfig, MAX_DOCUMENT};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::{
    create_private_dir, entries, now_ms, read_json, remove_file, unique_path, write_json,
};
use crate::reference::Reference;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The store of one state directory.
#[derive(Debug, Clone)]
pub struct Store {
    home: PathBuf,
    root: PathBuf,
}

/// A lock on the store or on one digest, released on drop and at the end of the process.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// One blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Digest.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// The blobs that an image was made from; `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Manifest.
    pub manifest: Digest,
    /// Configuration; its digest is the image's id.
    pub config: Digest,
    /// Layers as downloaded, from the lowest to the highest.
    pub layers: Vec<Blob>,
    /// Total size of its files in bytes.
    pub unpacked_bytes: u64,
    /// Time of unpacking, in milliseconds since the Unix epoch.
    pub made_ms: u64,
}

/// A reference and its image; a file in `refs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) reference: Reference,
    pub(crate) id: Digest,
    /// Digest in the registry: of the manifest or the index.
    pub(crate) digest: Option<Digest>,
    pub(crate) at_ms: u64,
}

/// An imported archive and its image; a file in `sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImportRecord {
    stamp: Vec<u64>,
    pub(crate) id: Digest,
}

/// Description of an image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Id.
    pub id: Digest,
    /// References.
    pub references: Vec<Reference>,
    /// Digests in registries.
    pub digests: Vec<Digest>,
    /// Blobs that it was made from.
    pub record: ImageRecord,
    /// Configuration.
    pub config: ImageConfig,
    /// Sandboxes that use it, running or not.
    pub used_by: Vec<String>,
}

impl Store {
    /// Returns the store of a state directory, which need not exist yet.
    pub fn at(home: &Path) -> Store {
        Store { home: home.to_path_buf(), root: home.join("images") }
    }

    /// Returns the state directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the path of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Returns the path of a partial download.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// Returns the path of an image's root filesystem.
    pub fn rootfs(&self, id: &Digest) -> PathBuf {
        self.image(id).join("rootfs")
    }

    /// Returns the path of an image's directory.
    pub fn image(&self, id: &Digest) -> PathBuf {
        self.root.join("roots").join(id.hex())
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns an unused path for a file or directory being written.
    pub fn temporary(&self) -> PathBuf {
        unique_path(&self.directory("tmp"))
    }

    /// Creates the directories of the store.
    pub fn prepare(&self) -> Result<()> {
        let directories = ["blobs/sha256", "partial", "roots", "refs", "sources", "locks", "tmp"];
        create_private_dir(&self.root)?;
        directories.iter().try_for_each(|name| create_private_dir(&self.directory(name)))
    }

    /// Prevents removal until the lock is dropped. Waits for a running removal.
    pub fn lock_shared(&self) -> Result<StoreLock> {
        self.prepare()?;
        self.lock(&self.directory("lock"), FlockOperation::LockShared)
    }

    /// Excludes all other users until the lock is dropped. Waits for them.
    pub(crate) fn lock_exclusive(&self) -> Result<StoreLock> {
        self.prepare()?;
        self.lock(&self.directory("lock"), FlockOperation::LockExclusive)
    }

    /// Excludes all other users until the lock is dropped; `None` if there are any.
    pub(crate) fn try_lock_exclusive(&self) -> Result<Option<StoreLock>> {
        self.prepare()?;
        let path = self.directory("lock");
        let file = open_lock(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(StoreLock { _file: file })),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(error) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Excludes other writers of the blob or image with this digest. Waits for them. The caller has
    /// the shared lock.
    pub fn lock_digest(&self, digest: &Digest) -> Result<StoreLock> {
        self.lock(&self.directory("locks").join(digest.hex()), FlockOperation::LockExclusive)
    }

    fn lock(&self, path: &Path, how: FlockOperation) -> Result<StoreLock> {
        let file = open_lock(path)?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(StoreLock { _file: file }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", path, error)),
            }
        }
    }

    /// Whether the image is in the store.
    pub fn has(&self, id: &Digest) -> bool {
        self.image(id).join("image.json").is_file()
    }

    /// Returns the blobs that an image was made from.
    pub fn record(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        read_json(&self.image(id).join("image.json"))
    }

    /// Moves the complete directory of an image to its final name.
    pub fn install(&self, id: &Digest, directory: &Path, record: &ImageRecord) -> Result<()> {
        write_json(&directory.join("image.json"), &directory.join("image.json.new"), record)?;
        let path = self.image(id);
        fs::rename(directory, &path).map_err(|error| Error::io("create", &path, error))
    }

    /// Gives an image a name, and takes it from any other.
    pub fn set_name(
        &self,
        reference: &Reference,
        id: &Digest,
        digest: Option<&Digest>,
    ) -> Result<()> {
        let record = NameRecord {
            reference: reference.clone(),
            id: id.clone(),
            digest: digest.cloned(),
            at_ms: now_ms(),
        };
        write_json(&self.ref_path(reference), &self.temporary(), &record)
    }

    /// Returns the path of a name's record.
    pub(crate) fn ref_path(&self, reference: &Reference) -> PathBuf {
        let hash = Digest::of(reference.to_string().as_bytes());
        self.directory("refs").join(format!("{}.json", hash.hex()))
    }

    /// Returns all names. Skips unreadable ones.
    pub(crate) fn names(&self) -> Result<Vec<NameRecord>> {
        let files = entries(&self.directory("refs"))?;
        Ok(files.iter().filter_map(|path| read_json(path).ok().flatten()).collect())
    }

    /// Finds the image with a name.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>> {
        let named: Option<NameRecord> = read_json(&self.ref_path(reference))?;
        if let Some(named) = named {
            return Ok(Some(named.id).filter(|id| self.has(id)));
        }
        // An image pulled by tag has the digest as well.
        let Some(wanted) = reference.digest() else { return Ok(None) };
        let same = |named: &NameRecord| {
            named.reference.registry() == reference.registry()
                && named.reference.repository() == reference.repository()
                && named.digest.as_ref() == Some(wanted)
        };
        let found = self.names()?.into_iter().find(same);
        Ok(found.map(|named| named.id).filter(|id| self.has(id)))
    }

    /// Finds the only image whose id begins with these digits.
    pub fn resolve_id(&self, digits: &str) -> Result<Option<Digest>> {
        let mut found = self.ids()?.into_iter().filter(|id| id.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                let text = format!("cannot use image id {digits}: more than one image has it");
                Err(Error::invalid(text))
            }
            (first, _) => Ok(first),
        }
    }

    /// Returns the ids of all images.
    pub fn ids(&self) -> Result<Vec<Digest>> {
        let mut ids: Vec<Digest> = entries(&self.directory("roots"))?
            .iter()
            .filter_map(|path| format!("sha256:{}", path.file_name()?.to_str()?).parse().ok())
            .filter(|id| self.has(id))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Reads an image's configuration.
    pub fn config(&self, id: &Digest) -> Result<ImageConfig> {
        let path = self.blob(id);
        let mut bytes = Vec::new();
        let file = File::open(&path);
        file.and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
            .map_err(|error| Error::io("read", &path, error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let text = format!("its configuration is longer than {MAX_DOCUMENT} bytes");
            return Err(Error::bad(text));
        }
        ImageConfig::from_document(&bytes)
    }

    /// Describes an image.
    pub fn info(&self, id: &Digest) -> Result<ImageInfo> {
        let record = self
            .record(id)?
            .ok_or_else(|| Error::not_found(format!("cannot find image {id}: not in the store")))?;
        let mut names = self.names()?;
        names.retain(|named| named.id == *id);
        names.sort_by(|a, b| a.reference.cmp(&b.reference));
        let mut digests: Vec<Digest> =
            names.iter().filter_map(|named| named.digest.clone()).collect();
        digests.dedup();
        Ok(ImageInfo {
            id: id.clone(),
            references: names.into_iter().map(|named| named.reference).collect(),
            digests,
            record,
            config: self.config(id)?,
            used_by: self.users_of(id)?,
        })
    }

    /// Describes all images, the newest first.
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            match self.info(&id) {
                Ok(info) => all.push(info),
                // Removed concurrently.
                Err(_) if !self.has(&id) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|info| std::cmp::Reverse(info.record.made_ms));
        Ok(all)
    }

    /// Finds the image that an archive was imported as, unless the archive has changed since.
    pub fn imported(&self, path: &Path) -> Result<Option<Digest>> {
        let found: Option<ImportRecord> = read_json(&self.source_path(path))?;
        let Some(stamp) = stamp(path) else { return Ok(None) };
        Ok(found.filter(|imported| imported.stamp == stamp).map(|i| i.id).filter(|id| self.has(id)))
    }

    /// Records the image that an archive with this stamp was imported as.
    pub fn remember_import(&self, path: &Path, stamp: Vec<u64>, id: &Digest) -> Result<()> {
        let record = ImportRecord { stamp, id: id.clone() };
        write_json(&self.source_path(path), &self.temporary(), &record)
    }

    /// Returns numbers that change when an archive does. Call it before reading the archive.
    pub fn stamp(path: &Path) -> Option<Vec<u64>> {
        stamp(path)
    }

    fn source_path(&self, path: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let hash = Digest::of(path.as_os_str().as_bytes());
        self.directory("sources").join(format!("{}.json", hash.hex()))
    }

    /// Removes the records of archives whose image no longer exists.
    pub(crate) fn remove_stale_imports(&self) -> Result<()> {
        for path in entries(&self.directory("sources"))? {
            let found: Option<ImportRecord> = read_json(&path).ok().flatten();
            if !found.is_some_and(|imported| self.has(&imported.id)) {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| Error::io("open", path, error))
}

fn stamp(path: &Path) -> Option<Vec<u64>> {
    // The index of an OCI image layout names all its other files by digest.
    let file = if path.is_dir() { path.join("index.json") } else { path.to_path_buf() };
    // A FIFO has another content each time.
    let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    let number = |signed: i64| u64::from_ne_bytes(signed.to_ne_bytes());
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    let rest = times.into_iter().map(number);
    Some([found.dev(), found.ino(), found.size()].into_iter().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        (home, store)
    }

    pub(crate) fn add(store: &Store, name: Option<&str>, salt: &str) -> Digest {
        let id =
            store.add_blob(format!(r#"{{"created":"{salt}"}}"#).as_bytes(), None).unwrap().digest;
        let directory = store.temporary();
        fs::create_dir_all(directory.join("rootfs")).unwrap();
        let layer = store.add_blob(salt.as_bytes(), None).unwrap().digest;
        let record = ImageRecord {
            manifest: store.add_blob(&b"{}"[..], None).unwrap().digest,
            config: id.clone(),
            layers: vec![Blob { digest: layer, size: 1 }],
            unpacked_bytes: 10,
            made_ms: now_ms(),
        };
        store.install(&id, &directory, &record).unwrap();
        if let Some(name) = name {
            let reference = Reference::parse(name, "docker.io").unwrap();
            store.set_name(&reference, &id, Some(&Digest::of(salt.as_bytes()))).unwrap();
        }
        id
    }

    #[test]
    fn image_is_found_by_name_digest_and_id() {
        let (_home, store) = store();
        let id = add(&store, Some("a/b:1"), "x");
        let find =
            |text: &str| store.resolve(&Reference::parse(text, "docker.io").unwrap()).unwrap();
        assert_eq!(find("a/b:1"), Some(id.clone()));
        assert_eq!(find("a/b:2"), None);
        assert_eq!(find(&format!("a/b@{}", Digest::of(b"x"))), Some(id.clone()));
        assert_eq!(find(&format!("a/c@{}", Digest::of(b"x"))), None, "another repository");
        assert_eq!(store.resolve_id(&id.hex()[..12]).unwrap(), Some(id.clone()));
        assert_eq!(store.list().unwrap()[0].references[0].familiar(), "a/b:1");
        assert!(store.resolve_id("").unwrap().is_some());
        add(&store, None, "y");
        assert!(store.resolve_id("").is_err(), "two images begin with it");
    }

    #[test]
    fn j4_config_longer_than_the_limit_is_refused() {
        let (_home, store) = store();
        let config = |length| {
            let json = std::io::repeat(b' ').take(length - 2).chain(&b"{}"[..]);
            let blob = store.add_blob(json, None).unwrap();
            store.config(&blob.digest)
        };
        assert_eq!(config(MAX_DOCUMENT).unwrap(), ImageConfig::default());
        let error = config(MAX_DOCUMENT + 1).unwrap_err();
        assert!(error.to_string().contains("longer than 4194304 bytes"), "{error}");
    }

    #[test]
    fn imported_archive_is_known_until_it_changes() {
        let (home, store) = store();
        let id = add(&store, None, "x");
        let archive = home.path().join("a.tar");
        fs::write(&archive, "one").unwrap();
        assert_eq!(store.imported(&archive).unwrap(), None);
        store.remember_import(&archive, Store::stamp(&archive).unwrap(), &id).unwrap();
        assert_eq!(store.imported(&archive).unwrap(), Some(id));
        fs::write(&archive, "another").unwrap();
        assert_eq!(store.imported(&archive).unwrap(), None);
    }

    #[test]
    fn shared_lock_prevents_the_exclusive_one() {
        let (_home, store) = store();
        let (one, two) = (store.lock_shared().unwrap(), store.lock_shared().unwrap());
        assert!(store.try_lock_exclusive().unwrap().is_none());
        drop((one, two));
        let lock = store.try_lock_exclusive().unwrap();
        assert!(lock.is_some() && store.try_lock_exclusive().unwrap().is_none());
    }
}
