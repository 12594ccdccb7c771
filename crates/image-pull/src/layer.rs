//! Unpacks layers, each on top of the one below.

use crate::archive::{archive_error, unreadable};
use crate::compression::decompress;
use crate::limits::{InflatedReader, Inflation, Limits};
use crate::tree::{Owners, Tree, components, free_space, open_file};
use msb_archive::{Kind, Member, TarReader};
use msb_image::{Digest, Error, ErrorKind, Hasher, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Disk space that unpacking leaves free, in bytes.
const RESERVED: u64 = 32 * 1024 * 1024;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of files that docker's AUFS driver kept for itself.
const INTERNAL: &[u8] = b".wh..wh.";

/// A layer to unpack: its file, and the digest of its uncompressed content if known.
pub(crate) type Layer = (PathBuf, Option<Digest>);

/// Result of unpacking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Total size of the files in bytes.
    pub(crate) bytes: u64,
    /// Digests of the uncompressed layers.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Bounds on unpacking one image.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Free disk space, in bytes.
    pub(crate) bytes: u64,
    /// Free inodes.
    pub(crate) members: u64,
    /// Limits of any image, however large the disk is.
    pub(crate) limits: Limits,
}

impl Bounds {
    /// Returns the bounds of the disk and the environment.
    pub(crate) fn of_disk(path: &Path) -> Result<Bounds> {
        let (bytes, members) = free_space(path)?;
        Ok(Bounds { bytes: bytes.saturating_sub(RESERVED), members, limits: Limits::from_env()? })
    }

    /// Subtracts a member from the bounds.
    fn charge(&mut self, member: &Member) -> Result<()> {
        // Holes take no space.
        let bytes = match member.sparse.as_slice() {
            [] => member.size,
            map => map.iter().map(|(_, count)| count).sum(),
        };
        self.limits.charge(bytes)?;
        let full = |text: String| Error::new(ErrorKind::NoSpace, text);
        self.members = self.members.checked_sub(1).ok_or_else(|| {
            full("cannot unpack the image: the disk has too few free inodes".to_owned())
        })?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            let name = String::from_utf8_lossy(&member.path);
            full(format!(
                "cannot unpack the image: the disk is too full for {name:?}, {bytes} bytes"
            ))
        })?;
        Ok(())
    }
}

/// Unpacks layers into an empty directory, from the lowest to the highest.
pub(crate) fn unpack(
    layers: &[Layer],
    into: &Path,
    owners: Owners,
    mut bounds: Bounds,
    mut on_progress: impl FnMut(usize, u64),
) -> Result<Unpacked> {
    let mut tree = Tree::open(into, owners)?;
    let mut unpacked = Unpacked::default();
    let mut before = 0;
    let inflation = Inflation::new(&bounds.limits);
    for (index, (path, expected)) in layers.iter().enumerate() {
        let file = open_file(path)?;
        let length = file.metadata().map_or(0, |found| found.len());
        let digest = {
            let on_read = |count| {
                inflation.set_compressed(before + count);
                on_progress(index, before + count);
            };
            let counted = CountingReader { from: file, count: 0, on_read };
            let inflated = InflatedReader { from: decompress(counted)?, inflation: &inflation };
            let mut hashed = HashingReader { from: inflated, hasher: Hasher::default() };
            let applied = apply(&mut tree, &mut hashed, &mut bounds);
            let bytes = inflation.check().and(applied)?;
            unpacked.bytes = unpacked.bytes.saturating_add(bytes);
            hashed.hasher.finish()
        };
        if let Some(expected) = expected.as_ref().filter(|expected| **expected != digest) {
            let text = format!("layer {} unpacks to {digest}, not {expected}", index + 1);
            return Err(Error::bad(text));
        }
        unpacked.diff_ids.push(digest);
        before += length;
        on_progress(index + 1, before);
    }
    Ok(unpacked)
}

/// Applies one uncompressed layer. Returns the total size of its files.
fn apply(tree: &mut Tree, from: &mut impl Read, bounds: &mut Bounds) -> Result<u64> {
    let mut archive = TarReader::new(from);
    let mut bytes = 0_u64;
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        bounds.charge(&member)?;
        if !apply_whiteout(tree, &member)? {
            bytes = bytes.saturating_add(member.size);
            if let Some(file) = tree.create(&member)? {
                let file = write(file, &member, &mut archive)?;
                tree.finish_file(&file, &member)?;
            }
        }
    }
    archive.finish().map_err(unreadable)?;
    tree.end_layer()?;
    Ok(bytes)
}

/// Applies a member that is a whiteout; false for an ordinary member.
fn apply_whiteout(tree: &mut Tree, member: &Member) -> Result<bool> {
    let parts = components(&member.path)?;
    let Some((name, parent)) = parts.split_last() else { return Ok(false) };
    if *name == OPAQUE {
        tree.make_opaque(parent)?;
        return Ok(true);
    }
    if name.starts_with(INTERNAL) {
        return Ok(true);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(false),
        Some(b"" | b"." | b"..") => {
            let name = OsStr::from_bytes(&member.path);
            Err(Error::bad(format!(
                "cannot apply whiteout {name:?}: it names a directory above it"
            )))
        }
        Some(hidden) => tree.apply_whiteout(parent, hidden).map(|()| true),
    }
}

fn write(mut file: File, member: &Member, from: &mut impl Read) -> Result<File> {
    debug_assert_eq!(member.kind, Kind::File, "only regular files have content");
    let name = Path::new(OsStr::from_bytes(&member.path));
    let mut buffer = vec![0; 256 * 1024];
    let all = [(0, member.size)];
    let map = if member.sparse.is_empty() { &all[..] } else { &member.sparse };
    for (offset, count) in map {
        let mut remaining = *count;
        file.seek(SeekFrom::Start(*offset)).map_err(|error| Error::io("write", name, error))?;
        while remaining > 0 {
            let most = usize::try_from(remaining).unwrap_or(usize::MAX).min(buffer.len());
            let Some(chunk) = buffer.get_mut(..most) else { break };
            from.read_exact(chunk).map_err(archive_error)?;
            file.write_all(chunk).map_err(|error| Error::io("write", name, error))?;
            remaining -= most as u64;
        }
    }
    file.set_len(member.size).map_err(|error| Error::io("write", name, error))?;
    Ok(file)
}

/// Computes the digest of the bytes read through it.
struct HashingReader<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Reports the number of bytes read through it.
struct CountingReader<R, F> {
    from: R,
    count: u64,
    on_read: F,
}

impl<R: Read, F: FnMut(u64)> Read for CountingReader<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count += read as u64;
        (self.on_read)(self.count);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
