//! Writes the members of a tar archive.
//!
//! The format is GNU's, with pax records for times and attributes that it cannot hold. Names and
//! links are written byte for byte; the `tar` crate would normalise them.

use std::io::{self, Read, Write};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

const BLOCK: usize = 512;
/// Name of the members that hold a long name or link.
const LONG_LINK: &[u8] = b"././@LongLink";

/// A data segment of a file: offset and length.
pub type Segment = (u64, u64);

/// The header of a member.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its type.
    pub kind: EntryType,
    /// Its name; not empty.
    pub name: &'a [u8],
    /// Target of a symbolic or hard link.
    pub link: &'a [u8],
    /// Its permissions, with the set-user-id, set-group-id and sticky bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Time of the last change of the content: seconds and nanoseconds since the Unix epoch.
    pub mtime: (i64, u32),
    /// Time of the last access, if it is to be kept.
    pub atime: Option<(i64, u32)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Names and values of its extended attributes.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Length of the file.
    pub size: u64,
    /// Its data, if it has holes.
    pub sparse: Option<&'a [Segment]>,
}

/// Writes an archive. The content of a member is written between [`TarWriter::begin`] and
/// [`TarWriter::end`].
#[derive(Debug)]
pub struct TarWriter<W> {
    to: W,
    /// Length of the current member's content.
    written: u64,
}

impl<W: Write> TarWriter<W> {
    /// Creates a writer.
    pub fn new(to: W) -> TarWriter<W> {
        TarWriter { to, written: 0 }
    }

    /// Returns what the archive is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    /// Writes the headers of a member.
    pub fn begin(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            self.extension(EntryType::XHeader, b"PaxHeaders", &records)?;
        }
        let mut header = header_of(entry);
        let old = header.as_old_mut();
        if !fill(&mut old.name, entry.name) {
            self.extension(EntryType::GNULongName, LONG_LINK, &[entry.name, b"\0"].concat())?;
        }
        if !fill(&mut old.linkname, entry.link) {
            self.extension(EntryType::GNULongLink, LONG_LINK, &[entry.link, b"\0"].concat())?;
        }
        match entry.sparse {
            Some(segments) => self.sparse_headers(header, segments, entry.size),
            None => self.header(header),
        }
    }

    /// Pads the content of a member.
    pub fn end(&mut self) -> io::Result<()> {
        let padding = std::mem::take(&mut self.written).wrapping_neg() % BLOCK as u64;
        io::copy(&mut io::repeat(0).take(padding), &mut self.to).map(drop)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn header(&mut self, mut header: Header) -> io::Result<()> {
        header.set_cksum();
        self.to.write_all(header.as_bytes())
    }

    /// Writes a member that describes the next one.
    fn extension(&mut self, kind: EntryType, name: &[u8], content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        fill(&mut header.as_old_mut().name, name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        self.header(header)?;
        self.write_all(content)?;
        self.end()
    }

    /// Writes the header of a file with holes, and the rest of its map.
    fn sparse_headers(
        &mut self,
        mut header: Header,
        segments: &[Segment],
        size: u64,
    ) -> io::Result<()> {
        header.set_entry_type(EntryType::GNUSparse);
        header.set_size(segments.iter().map(|(_, length)| length).sum());
        let mut map = segments.iter();
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.set_real_size(size);
            fill_map(&mut gnu.sparse, &mut map);
            gnu.set_is_extended(map.len() > 0);
        }
        self.header(header)?;
        while map.len() > 0 {
            let mut more = GnuExtSparseHeader::new();
            fill_map(&mut more.sparse, &mut map);
            more.set_is_extended(map.len() > 0);
            self.to.write_all(more.as_bytes())?;
        }
        Ok(())
    }
}

/// Writes content of the current member.
impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn header_of(entry: &Entry<'_>) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(u64::try_from(entry.mtime.0).unwrap_or(0));
    header.set_size(entry.size);
    if let (true, Some(gnu)) = (is_device(entry.kind), header.as_gnu_mut()) {
        gnu.set_device_major(entry.device.0);
        gnu.set_device_minor(entry.device.1);
    }
    header
}

fn is_device(kind: EntryType) -> bool {
    matches!(kind, EntryType::Char | EntryType::Block)
}

/// Copies a text into a field; false if it is too long, and cut.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    field.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    text.len() <= field.len()
}

fn fill_map(map: &mut [GnuSparseHeader], from: &mut std::slice::Iter<'_, Segment>) {
    for (to, (offset, length)) in map.iter_mut().zip(from) {
        to.set_offset(*offset);
        to.set_length(*length);
    }
}

/// Returns the records for what the header cannot hold.
fn pax_records(entry: &Entry<'_>) -> Vec<u8> {
    let mut records = Vec::new();
    let (seconds, nanos) = entry.mtime;
    if seconds < 0 || nanos != 0 {
        append_record(&mut records, b"mtime", decimal(seconds, nanos).as_bytes());
    }
    if let Some((seconds, nanos)) = entry.atime {
        append_record(&mut records, b"atime", decimal(seconds, nanos).as_bytes());
    }
    for (name, value) in entry.xattrs {
        append_record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// Returns a time as a decimal number of seconds.
fn decimal(seconds: i64, nanos: u32) -> String {
    match seconds {
        _ if nanos == 0 => seconds.to_string(),
        0.. => format!("{seconds}.{nanos:09}"),
        _ => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
    }
}

/// Appends a record, which begins with its own length.
fn append_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + b" =\n".len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend([key, b"=", value, b"\n"].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers_also_before_1970() {
        for (time, text) in [
            ((0, 1), "0.000000001"),
            ((12, 500_000_000), "12.500000000"),
            ((-1, 0), "-1"),
            ((-1, 500_000_000), "-0.500000000"),
            ((-86_401, 250_000_000), "-86400.750000000"),
        ] {
            assert_eq!(decimal(time.0, time.1), text);
        }
    }

    #[test]
    fn records_count_their_own_length_and_hold_any_bytes() {
        let mut records = Vec::new();
        append_record(&mut records, b"a", b"1234\n");
        append_record(&mut records, b"abc", b"1=");
        assert_eq!(records, b"11 a=1234\n\n9 abc=1=\n");
    }

    #[test]
    fn names_of_a_hundred_bytes_need_no_extension() {
        let blocks = |length: usize| {
            let name = vec![b'n'; length];
            let entry = Entry {
                kind: EntryType::Regular,
                name: &name,
                link: b"",
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (1, 0),
                atime: None,
                device: (0, 0),
                xattrs: &[],
                size: 0,
                sparse: None,
            };
            let mut archive = TarWriter::new(Vec::new());
            archive.begin(&entry).unwrap();
            archive.end().unwrap();
            let bytes = archive.finish().unwrap();
            let mut read = tar::Archive::new(bytes.as_slice());
            let first = read.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(first.path_bytes(), name.as_slice());
            bytes.len() / BLOCK
        };
        assert_eq!([100, 101, 511, 512].map(blocks), [3, 5, 5, 6]);
    }
}
