//! The entry point of the fuzzer of archives.

use crate::archive::{archive_error, unreadable};
use crate::compression::decompress;
use crate::limits::{InflatedReader, Inflation, Limits};
use msb_archive::{Member, TarReader};
use msb_image::{Digest, Error, ErrorKind, Hasher};
use std::io::{self, Read};

/// Uncompressed bytes below which the ratio does not apply.
const FREE: u64 = 1 << 20;
/// Maximum uncompressed bytes for each compressed byte, as by default.
const RATIO: u64 = 200;
/// Maximum bytes of one read.
const READ: usize = 64 * 1024;

/// The members of an archive with their content, and how it ended.
type Outcome = (Vec<(Member, Digest)>, Result<(), Error>);

/// An archive of arbitrary bytes: its members are those of its bytes in small pieces, with bounded
/// content and names, and its end is right or an error of one line.
pub fn tar(data: &[u8]) {
    let (members, end) = read(data, data.len() as u64);
    let again = read(data, data.len() as u64);
    assert!(members == again.0 && end == again.1);
    let pieces = Pieces { from: data, count: 0 };
    let (others, other_end) = read(pieces, data.len() as u64);
    // A decoder notices an error earlier or later, by how many bytes it has.
    let common = members.iter().zip(&others).all(|(one, other)| one == other);
    assert!(common && end.is_ok() == other_end.is_ok(), "{end:?}, in pieces {other_end:?}");
    assert!(end.is_err() || members.len() == others.len());
    for (member, _) in &members {
        let names =
            member.path.len() + member.xattrs.iter().map(|(_, value)| value.len()).sum::<usize>();
        assert!(names <= 4 << 20, "{names} bytes of names");
        assert!(i64::try_from(member.size).is_ok() && member.mode <= 0o7777);
        let segments = member.sparse.iter().map(|(offset, count)| offset + count);
        assert!(segments.max().unwrap_or(0) <= member.size);
    }
    if let Err(error) = end {
        assert_eq!(error.kind, ErrorKind::BadImage, "{error}");
        assert!(error.message.starts_with("cannot ") && !error.message.contains('\n'), "{error}");
    }
}

fn read(from: impl Read, length: u64) -> Outcome {
    let inflation = Inflation::new(&Limits::of(u64::MAX, u64::MAX, FREE));
    inflation.set_compressed(length);
    let mut members = Vec::new();
    let end = decompress(from).and_then(|from| {
        let mut archive = TarReader::new(InflatedReader { from, inflation: &inflation });
        let result = read_members(&mut archive, &mut members, FREE + RATIO * length + READ as u64);
        // A caller may look for further members behind one that it could not read.
        let next = result.is_err().then(|| archive.next_member());
        drop(next);
        result.and_then(|()| archive.finish().map_err(unreadable))
    });
    (members, end)
}

fn read_members(
    archive: &mut TarReader<impl Read>,
    members: &mut Vec<(Member, Digest)>,
    most: u64,
) -> Result<(), Error> {
    let mut total = 0;
    let mut buffer = vec![0; READ];
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        let mut content = Hasher::default();
        loop {
            let count = archive.read(&mut buffer).map_err(archive_error)?;
            content.update(buffer.get(..count).unwrap_or_default());
            total += count as u64;
            assert!(total <= most, "{total} bytes of content");
            if count == 0 {
                break;
            }
        }
        members.push((member, content.finish()));
    }
    Ok(())
}

/// Returns the bytes in pieces of 1 to 7.
struct Pieces<'a> {
    from: &'a [u8],
    count: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.count += 1;
        let most = buffer.len().min(1 + self.count % 7);
        self.from.read(buffer.get_mut(..most).unwrap_or_default())
    }
}
