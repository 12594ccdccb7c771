//! Writing blobs into the store.

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::files::remove_file;
use crate::store::{Blob, Store};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes one blob to a temporary file and computes its digest. Dropping it removes the file.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    /// Returns the path of the temporary file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file to its final name and returns the blob. Fails if an expected digest differs.
    pub fn finish(mut self, expected: Option<&Digest>) -> Result<Blob> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::bad(format!("a blob has the digest {digest}, not {expected}")));
        }
        self.store.adopt_blob(&self.path, &digest)?;
        Ok(Blob { digest, size: self.size })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone if the blob was finished; else the next prune would remove it as well.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Begins a new blob.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let path = self.temporary();
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Error::io("create", &path, error))?;
        Ok(BlobWriter { store: self.clone(), path, file, hasher: Hasher::default(), size: 0 })
    }

    /// Copies a blob into the store. Fails if an expected digest differs.
    pub fn add_blob(&self, mut from: impl Read, expected: Option<&Digest>) -> Result<Blob> {
        let mut writer = self.blob_writer()?;
        io::copy(&mut from, &mut writer)
            .map_err(|error| Error::io("write", &writer.path, error))?;
        writer.finish(expected)
    }

    /// Moves a file whose digest was verified to its final name. Removes it if the blob exists:
    /// another process may be about to mount that one, which must not vanish.
    pub fn adopt_blob(&self, file: &Path, digest: &Digest) -> Result<()> {
        let path = self.blob(digest);
        let moved = match renameat_with(CWD, file, CWD, &path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return remove_file(file),
            // Not every file system knows the flag.
            Err(Errno::INVAL) => fs::rename(file, &path),
            moved => moved.map_err(Into::into),
        };
        moved.map_err(|error| Error::io("create", &path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::entries;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn unfinished_or_unexpected_blob_leaves_no_file() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        let blob = store.add_blob(&b"abc"[..], Some(&Digest::of(b"abc"))).unwrap();
        assert_eq!((blob.size, fs::read(store.blob(&blob.digest)).unwrap()), (3, b"abc".to_vec()));
        assert!(store.add_blob(&b"x"[..], Some(&Digest::of(b"y"))).is_err());
        store.blob_writer().unwrap().write_all(b"z").unwrap();
        let count = |name| entries(&store.directory(name)).unwrap().len();
        assert_eq!((count("tmp"), count("blobs/sha256")), (0, 1));
    }

    #[test]
    fn blob_that_exists_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::at(home.path());
        store.prepare().unwrap();
        let inode = |blob: &Blob| fs::metadata(store.blob(&blob.digest)).unwrap().ino();
        let first = inode(&store.add_blob(&b"abc"[..], None).unwrap());
        assert_eq!(inode(&store.add_blob(&b"abc"[..], None).unwrap()), first);
        assert_eq!(entries(&store.directory("tmp")).unwrap().len(), 0);
    }
}
