//! The holes of a file.

use crate::writer::Segment;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Maximum number of data segments of a file. Beyond it the smallest holes are stored as zeros.
const MAX_SEGMENTS: usize = 100_000;
/// Smallest hole that is kept.
const MIN_HOLE: u64 = 4096;
/// Returns the data segments of a file with holes, as [`Entry::sparse`] takes them; `None` for one
/// without. Changes the position of the file.
///
/// [`Entry::sparse`]: crate::Entry::sparse
pub fn sparse_map(file: &File) -> io::Result<Option<Vec<Segment>>> {
    let found = file.metadata()?;
    let (size, allocated) = (found.len(), found.blocks().saturating_mul(512));
    if allocated >= size {
        return Ok(None);
    }
    let mut least = MIN_HOLE;
    let map = loop {
        match segments(file, size, least)? {
            Some(map) => break map,
            None => least = least.saturating_mul(2),
        }
    };
    let data: u64 = map.iter().map(|(_, length)| length).sum();
    Ok((size - data >= MIN_HOLE).then_some(map))
}

/// Returns the segments between holes of at least `least` bytes; `None` if they are too many.
///
/// An empty one at the end sets the length of a file that ends in a hole.
fn segments(file: &File, size: u64, least: u64) -> io::Result<Option<Vec<Segment>>> {
    let mut map: Vec<Segment> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => size,
            // The file system does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(vec![(0, size)])),
            Err(error) => return Err(error.into()),
        };
        let end = match start < size {
            true => seek(file, SeekFrom::Hole(start))?.min(size),
            false => size,
        };
        match map.last_mut() {
            Some((offset, length)) if start - at < least && start < size => {
                *length = end - *offset;
            }
            _ => map.push((start, end - start)),
        }
        if map.len() > MAX_SEGMENTS {
            return Ok(None);
        }
        at = end;
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn g_segments_beyond_the_limit_are_joined() {
        let scratch = tempfile::tempfile().unwrap();
        let step = 16 * 1024;
        for index in 0..10 {
            scratch.write_all_at(&[b'x'; 4096], index * step).unwrap();
        }
        scratch.set_len(10 * step).unwrap();
        let found = segments(&scratch, 10 * step, MIN_HOLE).unwrap().unwrap();
        assert_eq!(found.len(), 11, "and the empty one at the end");
        assert_eq!((found[1], found[10]), ((step, 4096), (10 * step, 0)));
        let joined = segments(&scratch, 10 * step, step).unwrap().unwrap();
        assert_eq!(joined, [(0, 9 * step + 4096), (10 * step, 0)]);
    }
}
