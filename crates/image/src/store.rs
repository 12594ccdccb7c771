//! The store: where everything is, and what is in it.
//!
//! ```text
//! images/
//!   lock                    shared by whoever uses the store, exclusive for whoever cleans it
//!   blobs/sha256/HEX        manifests, configurations, layers as they came
//!   partial/HEX             layers of which a part is there
//!   roots/HEX/rootfs        the root filesystem of the image with that id, never written again
//!   roots/HEX/image.json    what it was made from
//!   refs/HASH.json          a name, and the id it stands for
//!   sources/HASH.json       an archive that was imported, and the id that came of it
//!   locks/HEX               held by whoever makes the blob or the image with that digest
//!   tmp/                    what is being made
//! ```
//!
//! An image's id is the digest of its configuration, which holds the digests of its unpacked
//! layers: two images with one id have one content.

use crate::config::{ImageConfig, MAX_DOCUMENT};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::files::{entries, fresh_name, now_ms, private_dir, read_json, remove_file, write_json};
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

/// A lock; it ends with this value, and with the process.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// One blob of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// What an image was made from; `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The manifest that it was made from first.
    pub manifest: Digest,
    /// Its configuration, whose digest is the image's id.
    pub config: Digest,
    /// Its layers as they came, from the lowest to the highest.
    pub layers: Vec<Blob>,
    /// How many bytes its files have.
    pub unpacked_bytes: u64,
    /// When it was unpacked, in milliseconds since 1970.
    pub made_ms: u64,
}

/// A name in the store; a file in `refs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) reference: Reference,
    pub(crate) id: Digest,
    /// The digest by which the registry knows it: of the manifest, or of a list of such.
    pub(crate) digest: Option<Digest>,
    pub(crate) at_ms: u64,
}

/// An archive as it was when it was imported; a file in `sources`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Imported {
    stamp: Vec<u64>,
    pub(crate) id: Digest,
}

/// What is known about an image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its id.
    pub id: Digest,
    /// Its names.
    pub references: Vec<Reference>,
    /// The digests by which registries know it.
    pub digests: Vec<Digest>,
    /// What it was made from.
    pub record: ImageRecord,
    /// What it says about itself.
    pub config: ImageConfig,
    /// The sandboxes that use it, running or not.
    pub used_by: Vec<String>,
}

impl Store {
    /// The store of a state directory, which need not exist yet.
    pub fn at(home: &Path) -> Store {
        Store { home: home.to_path_buf(), root: home.join("images") }
    }

    /// The state directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where a blob is, if it is there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where the part of a blob is that has come.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(digest.hex())
    }

    /// The root filesystem of an image, if it is there.
    pub fn rootfs(&self, id: &Digest) -> PathBuf {
        self.image(id).join("rootfs")
    }

    /// The directory of an image, if it is there.
    pub fn image(&self, id: &Digest) -> PathBuf {
        self.root.join("roots").join(id.hex())
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A name that nobody else uses, for something that is being made.
    pub fn temporary(&self) -> PathBuf {
        fresh_name(&self.folder("tmp"))
    }

    /// Makes the directories of the store.
    pub fn prepare(&self) -> Result<()> {
        let folders = ["blobs/sha256", "partial", "roots", "refs", "sources", "locks", "tmp"];
        private_dir(&self.root)?;
        folders.iter().try_for_each(|folder| private_dir(&self.folder(folder)))
    }

    /// Keeps the store from being cleaned, until the value is dropped. May wait for a cleaning.
    pub fn hold(&self) -> Result<Hold> {
        self.prepare()?;
        self.lock(&self.folder("lock"), FlockOperation::LockShared)
    }

    /// As the only one, until the value is dropped. Waits for all others.
    pub(crate) fn alone(&self) -> Result<Hold> {
        self.prepare()?;
        self.lock(&self.folder("lock"), FlockOperation::LockExclusive)
    }

    /// As [`Store::alone`]; `None` where there are others.
    pub(crate) fn try_alone(&self) -> Result<Option<Hold>> {
        self.prepare()?;
        let path = self.folder("lock");
        let file = open_lock(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Hold { _file: file })),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(error) => Err(Error::io("lock", &path, error)),
        }
    }

    /// Waits until nobody else makes what has this digest, and keeps others from it. The caller
    /// holds the store.
    pub fn hold_digest(&self, digest: &Digest) -> Result<Hold> {
        self.lock(&self.folder("locks").join(digest.hex()), FlockOperation::LockExclusive)
    }

    fn lock(&self, path: &Path, how: FlockOperation) -> Result<Hold> {
        let file = open_lock(path)?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Hold { _file: file }),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("lock", path, error)),
            }
        }
    }

    /// Whether the image is there, whole.
    pub fn has(&self, id: &Digest) -> bool {
        self.image(id).join("image.json").is_file()
    }

    /// What an image was made from.
    pub fn record(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        read_json(&self.image(id).join("image.json"))
    }

    /// Puts the finished directory of an image in its place.
    pub fn install(&self, id: &Digest, made: &Path, record: &ImageRecord) -> Result<()> {
        write_json(&made.join("image.json"), &made.join("image.json.new"), record)?;
        let place = self.image(id);
        fs::rename(made, &place).map_err(|error| Error::io("make", &place, error))
    }

    /// Lets a name stand for an image from now on.
    pub fn name(&self, reference: &Reference, id: &Digest, digest: Option<&Digest>) -> Result<()> {
        let named = Named {
            reference: reference.clone(),
            id: id.clone(),
            digest: digest.cloned(),
            at_ms: now_ms(),
        };
        write_json(&self.ref_path(reference), &self.temporary(), &named)
    }

    pub(crate) fn ref_path(&self, reference: &Reference) -> PathBuf {
        let hash = Digest::of(reference.to_string().as_bytes());
        self.folder("refs").join(format!("{}.json", hash.hex()))
    }

    /// All names. One that cannot be read is left out.
    pub(crate) fn names(&self) -> Result<Vec<Named>> {
        let files = entries(&self.folder("refs"))?;
        Ok(files.iter().filter_map(|path| read_json(path).ok().flatten()).collect())
    }

    /// The image that a name stands for, if it is here.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Digest>> {
        let named: Option<Named> = read_json(&self.ref_path(reference))?;
        if let Some(named) = named {
            return Ok(Some(named.id).filter(|id| self.has(id)));
        }
        // By digest it may be known under the name of a tag.
        let Some(wanted) = reference.digest() else { return Ok(None) };
        let same = |named: &Named| {
            named.reference.registry() == reference.registry()
                && named.reference.repository() == reference.repository()
                && named.digest.as_ref() == Some(wanted)
        };
        let found = self.names()?.into_iter().find(same);
        Ok(found.map(|named| named.id).filter(|id| self.has(id)))
    }

    /// The one image whose id begins with these digits.
    pub fn resolve_id(&self, digits: &str) -> Result<Option<Digest>> {
        let mut found = self.ids()?.into_iter().filter(|id| id.hex().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("more than one image's id begins with {digits}")))
            }
            (first, _) => Ok(first),
        }
    }

    /// The ids of all images.
    pub fn ids(&self) -> Result<Vec<Digest>> {
        let mut ids: Vec<Digest> = entries(&self.folder("roots"))?
            .iter()
            .filter_map(|path| format!("sha256:{}", path.file_name()?.to_str()?).parse().ok())
            .filter(|id| self.has(id))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// What an image says about itself.
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

    /// What is known about an image.
    pub fn info(&self, id: &Digest) -> Result<ImageInfo> {
        let record = self
            .record(id)?
            .ok_or_else(|| Error::not_found(format!("image {id} is not in the store")))?;
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

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<ImageInfo>> {
        let mut all = Vec::new();
        for id in self.ids()? {
            match self.info(&id) {
                Ok(info) => all.push(info),
                // Removed meanwhile.
                Err(_) if !self.has(&id) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|info| std::cmp::Reverse(info.record.made_ms));
        Ok(all)
    }

    /// The image that an archive, as it is now, was imported as.
    pub fn imported(&self, path: &Path) -> Result<Option<Digest>> {
        let found: Option<Imported> = read_json(&self.source_path(path))?;
        let Some(stamp) = stamp(path) else { return Ok(None) };
        Ok(found.filter(|imported| imported.stamp == stamp).map(|i| i.id).filter(|id| self.has(id)))
    }

    /// Remembers what an archive, as it was at that moment, was imported as.
    pub fn remember_import(&self, path: &Path, stamp: Vec<u64>, id: &Digest) -> Result<()> {
        let imported = Imported { stamp, id: id.clone() };
        write_json(&self.source_path(path), &self.temporary(), &imported)
    }

    /// What changes when an archive does; to be taken before it is read.
    pub fn stamp(path: &Path) -> Option<Vec<u64>> {
        stamp(path)
    }

    fn source_path(&self, path: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let hash = Digest::of(path.as_os_str().as_bytes());
        self.folder("sources").join(format!("{}.json", hash.hex()))
    }

    /// Forgets archives whose image is gone.
    pub(crate) fn forget_imports(&self) -> Result<()> {
        for path in entries(&self.folder("sources"))? {
            let found: Option<Imported> = read_json(&path).ok().flatten();
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
    // Of a directory in OCI's layout this file names all others by digest.
    let file = if path.is_dir() { path.join("index.json") } else { path.to_path_buf() };
    let found = fs::metadata(file).ok()?;
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
        let made = store.temporary();
        fs::create_dir_all(made.join("rootfs")).unwrap();
        let layer = store.add_blob(salt.as_bytes(), None).unwrap().digest;
        let record = ImageRecord {
            manifest: store.add_blob(&b"{}"[..], None).unwrap().digest,
            config: id.clone(),
            layers: vec![Blob { digest: layer, size: 1 }],
            unpacked_bytes: 10,
            made_ms: now_ms(),
        };
        store.install(&id, &made, &record).unwrap();
        if let Some(name) = name {
            let reference = Reference::parse(name, "docker.io").unwrap();
            store.name(&reference, &id, Some(&Digest::of(salt.as_bytes()))).unwrap();
        }
        id
    }

    #[test]
    fn an_image_is_found_by_its_name_its_digest_and_its_id() {
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
        assert!(store.resolve_id("").is_err(), "two begin like this");
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
    fn an_archive_is_remembered_until_it_changes() {
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
    fn whoever_holds_the_store_keeps_it_from_being_cleaned() {
        let (_home, store) = store();
        let (one, two) = (store.hold().unwrap(), store.hold().unwrap());
        assert!(store.try_alone().unwrap().is_none());
        drop((one, two));
        let alone = store.try_alone().unwrap();
        assert!(alone.is_some() && store.try_alone().unwrap().is_none());
    }
}
