//! Unpacking layers, one over the other.

use crate::compression::plain;
use crate::limits::{Inflated, Inflation, Limits};
use crate::tarball::{Kind, Member, TarReader, broken};
use crate::tree::{Owners, Tree, open_file, parts, room};
use msb_image::{Digest, Error, ErrorKind, Hasher, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What an image leaves of the disk, in bytes.
const SPARED: u64 = 32 * 1024 * 1024;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the storage driver of an older docker kept for itself.
const INTERNAL: &[u8] = b".wh..wh.";

/// A layer to unpack: the file, and the digest of its plain content where that is known.
pub(crate) type Layer = (PathBuf, Option<Digest>);

/// What unpacking has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// How many bytes the files have.
    pub(crate) bytes: u64,
    /// The digests of the plain layers.
    pub(crate) diff_ids: Vec<Digest>,
}

/// Bounds on what an image may make of itself.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Room on the disk, in bytes.
    pub(crate) bytes: u64,
    /// Room on the disk, in files.
    pub(crate) members: u64,
    /// What any image may have, however large the disk is.
    pub(crate) limits: Limits,
}

impl Bounds {
    /// As much as the disk has room for and the environment allows.
    pub(crate) fn of_disk(path: &Path) -> Result<Bounds> {
        let (bytes, members) = room(path)?;
        Ok(Bounds { bytes: bytes.saturating_sub(SPARED), members, limits: Limits::from_env()? })
    }

    fn take(&mut self, member: &Member) -> Result<()> {
        // Holes take no room.
        let bytes = match member.sparse.as_slice() {
            [] => member.size,
            map => map.iter().map(|(_, count)| count).sum(),
        };
        self.limits.take(bytes)?;
        let full = |what: String| Error::new(ErrorKind::NoSpace, what);
        self.members = self
            .members
            .checked_sub(1)
            .ok_or_else(|| full("the image has more files than there is room for".to_owned()))?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            let name = String::from_utf8_lossy(&member.path);
            full(format!("the image does not fit on the disk: {name:?} has {bytes} bytes"))
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
    mut each: impl FnMut(usize, u64),
) -> Result<Unpacked> {
    let mut tree = Tree::open(into, owners)?;
    let mut unpacked = Unpacked::default();
    let mut before = 0;
    let inflation = Inflation::new(&bounds.limits);
    for (index, (path, expected)) in layers.iter().enumerate() {
        let file = open_file(path)?;
        let length = file.metadata().map_or(0, |found| found.len());
        let digest = {
            let each = |count| {
                inflation.packed(before + count);
                each(index, before + count);
            };
            let counted = Counted { from: file, count: 0, each };
            let measured = Inflated { from: plain(counted)?, inflation: &inflation };
            let mut hashed = Hashed { from: measured, hasher: Hasher::default() };
            let applied = apply(&mut tree, &mut hashed, &mut bounds);
            let bytes = inflation.check().and(applied)?;
            unpacked.bytes = unpacked.bytes.saturating_add(bytes);
            hashed.hasher.finish()
        };
        if let Some(expected) = expected.as_ref().filter(|expected| **expected != digest) {
            let text = format!("layer {} unpacks to {digest}, not to {expected}", index + 1);
            return Err(Error::bad(text));
        }
        unpacked.diff_ids.push(digest);
        before += length;
        each(index + 1, before);
    }
    Ok(unpacked)
}

/// Applies one plain layer, and returns how many bytes its files have.
fn apply(tree: &mut Tree, from: &mut impl Read, bounds: &mut Bounds) -> Result<u64> {
    let mut archive = TarReader::new(from);
    let mut bytes = 0_u64;
    while let Some(member) = archive.next_member()? {
        bounds.take(&member)?;
        if !white_out(tree, &member)? {
            bytes = bytes.saturating_add(member.size);
            if let Some(file) = tree.put(&member)? {
                let file = write(file, &member, &mut archive)?;
                tree.finish_file(&file, &member)?;
            }
        }
    }
    archive.finish()?;
    tree.end_layer()?;
    Ok(bytes)
}

/// Removes what a member wants to have removed; false for an ordinary member.
fn white_out(tree: &mut Tree, member: &Member) -> Result<bool> {
    let parts = parts(&member.path)?;
    let Some((name, above)) = parts.split_last() else { return Ok(false) };
    if *name == OPAQUE {
        tree.make_opaque(above)?;
        return Ok(true);
    }
    if name.starts_with(INTERNAL) {
        return Ok(true);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(false),
        Some(b"" | b"." | b"..") => {
            let name = OsStr::from_bytes(&member.path);
            Err(Error::bad(format!("{name:?} would remove a directory that it lies in")))
        }
        Some(hidden) => tree.white_out(above, hidden).map(|()| true),
    }
}

fn write(mut file: File, member: &Member, from: &mut impl Read) -> Result<File> {
    debug_assert_eq!(member.kind, Kind::File, "nothing else has content");
    let name = Path::new(OsStr::from_bytes(&member.path));
    let mut buffer = vec![0; 256 * 1024];
    let all = [(0, member.size)];
    let map = if member.sparse.is_empty() { &all[..] } else { &member.sparse };
    for (offset, count) in map {
        let mut left = *count;
        file.seek(SeekFrom::Start(*offset)).map_err(|error| Error::io("write", name, error))?;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(room) = buffer.get_mut(..most) else { break };
            from.read_exact(room).map_err(|error| broken(&error))?;
            file.write_all(room).map_err(|error| Error::io("write", name, error))?;
            left -= most as u64;
        }
    }
    file.set_len(member.size).map_err(|error| Error::io("write", name, error))?;
    Ok(file)
}

/// Computes the digest of what is read through it.
struct Hashed<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Tells how much was read through it.
struct Counted<R, F> {
    from: R,
    count: u64,
    each: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count += read as u64;
        (self.each)(self.count);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
