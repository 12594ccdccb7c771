//! Reads the members of an untrusted tar archive.
//!
//! The `tar` crate parses the headers. Iteration is here, because the crate's iterator reads names
//! of any length into memory, and a few compressed kilobytes can hold a name of gigabytes.

use msb_image::{Error, Result};
use std::io::{self, Read};
use tar::{EntryType, Header, PaxExtensions};

/// Maximum size of an extension header: names, links and attributes of one member.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Maximum number of bytes after the end of the archive. Tools pad to their block size.
const MAX_PADDING: u64 = 64 * 1024 * 1024;
/// Maximum number of data segments of a sparse file.
const MAX_SEGMENTS: usize = 1_000_000;
const BLOCK: usize = 512;

/// The type of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Fifo,
    /// Major and minor number.
    Character(u32, u32),
    Block(u32, u32),
}

/// The header of a member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since the Unix epoch.
    pub(crate) mtime: (i64, u32),
    /// Length of the unpacked file.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Offset and length of each data segment of a sparse file. Empty if not sparse.
    pub(crate) sparse: Vec<(u64, u64)>,
}

/// Iterates over members. Reads the content of the current one.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    from: R,
    /// Unread content of the current member, and the padding after it.
    remaining: u64,
    padding: u64,
}

/// Extension headers that precede a member.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(from: R) -> TarReader<R> {
        TarReader { from, remaining: 0, padding: 0 }
    }

    /// Returns the next member. Skips unread content of the current one.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(archive_error)?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(trim_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(trim_nul(self.extension(size)?)),
                EntryType::XHeader => extensions.pax = self.extension(size)?,
                // Applies to all further members. Nothing in it is used.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
    }

    /// Reads the rest after the last member, which is part of the layer's digest.
    pub(crate) fn finish(mut self) -> Result<()> {
        let read = io::copy(&mut (&mut self.from).take(MAX_PADDING), &mut io::sink());
        match read.map_err(archive_error)? {
            MAX_PADDING => Err(Error::bad(format!(
                "cannot read an archive: {MAX_PADDING} bytes or more after its end"
            ))),
            _ => Ok(()),
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        loop {
            if !read_block(&mut self.from, &mut block)? {
                // Some tools omit the end.
                return Ok(None);
            }
            if block.iter().any(|byte| *byte != 0) {
                break;
            }
            let mut second = [0; BLOCK];
            if !read_block(&mut self.from, &mut second)? || second.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            block = second;
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum = |(at, byte): (usize, &u8)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        };
        let sum: u32 = block.iter().enumerate().map(sum).sum();
        match header.cksum() {
            Ok(found) if found == sum => Ok(Some(header)),
            _ => Err(Error::bad("cannot read an archive: a header has a wrong checksum")),
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member> {
        let mut member = Member {
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            kind: Kind::File,
            mode: if is_blank(&header.as_old().mode) {
                0
            } else {
                header.mode().map_err(archive_error)?
            } & 0o7777,
            uid: if is_blank(&header.as_old().uid) { 0 } else { check_id(header.uid())? },
            gid: if is_blank(&header.as_old().gid) { 0 } else { check_id(header.gid())? },
            mtime: (i64::try_from(header.mtime().unwrap_or(0)).unwrap_or(0), 0),
            size,
            xattrs: Vec::new(),
            sparse: Vec::new(),
        };
        let mut link = extensions.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let mut stored = size;
        apply_pax(&extensions.pax, &mut member, &mut link, &mut stored)?;
        let device = || -> Result<(u32, u32)> {
            let number = |found: io::Result<Option<u32>>| found.ok().flatten().unwrap_or(0);
            Ok((number(header.device_major()), number(header.device_minor())))
        };
        let is_directory = member.path.ends_with(b"/");
        member.kind = match header.entry_type() {
            // Old archives mark a directory by a trailing slash only.
            EntryType::Regular | EntryType::Continuous if is_directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Link => Kind::HardLink(link.unwrap_or_default()),
            EntryType::Symlink => Kind::Symlink(link.unwrap_or_default()),
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::GNUSparse => {
                member.size = self.sparse_map(header, &mut member.sparse, stored)?;
                Kind::File
            }
            other => {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                return Err(Error::bad(format!("cannot unpack {name:?}: unknown type {other:?}")));
            }
        };
        if member.kind != Kind::File {
            // Some tools give hard links a size, but no content follows.
            stored = if matches!(member.kind, Kind::HardLink(_)) { 0 } else { stored };
            member.size = 0;
        }
        self.remaining = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        Ok(member)
    }

    /// Reads the map of a sparse file in the old GNU format. Returns the file's length.
    fn sparse_map(
        &mut self,
        header: &Header,
        map: &mut Vec<(u64, u64)>,
        stored: u64,
    ) -> Result<u64> {
        let invalid = || Error::bad("cannot read an archive: invalid map of a sparse file");
        let gnu = header.as_gnu().ok_or_else(invalid)?;
        let length = gnu.real_size().map_err(|_| invalid())?;
        let mut end = 0;
        let mut add = |segments: &[tar::GnuSparseHeader]| {
            for segment in segments.iter().filter(|segment| !segment.is_empty()) {
                let (offset, count) = (
                    segment.offset().map_err(|_| invalid())?,
                    segment.length().map_err(|_| invalid())?,
                );
                let from = Some(offset).filter(|offset| *offset >= end).ok_or_else(invalid)?;
                end = from.checked_add(count).filter(|end| *end <= length).ok_or_else(invalid)?;
                map.push((offset, count));
            }
            if map.len() > MAX_SEGMENTS { Err(invalid()) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = [0; BLOCK];
            if !read_block(&mut self.from, &mut block)? {
                return Err(invalid());
            }
            let mut next = tar::GnuExtSparseHeader::new();
            next.as_mut_bytes().copy_from_slice(&block);
            add(&next.sparse)?;
            more = next.is_extended();
        }
        if map.iter().map(|(_, count)| count).sum::<u64>() != stored {
            return Err(invalid());
        }
        if map.is_empty() {
            map.push((0, 0));
        }
        Ok(length)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::bad(format!(
                "an extension header has {size} bytes; {MAX_EXTENSION} are allowed"
            )));
        }
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(archive_error)?;
        self.skip_content()?;
        Ok(content)
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = self.remaining.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink());
        let skipped = skipped.map_err(archive_error)?;
        // Some tools omit the padding after the last member.
        if skipped < self.remaining {
            return Err(Error::bad("cannot read an archive: truncated in a file"));
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the current member.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let Some(chunk) = buffer.get_mut(..most) else { return Ok(0) };
        match self.from.read(chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.remaining -= read as u64;
                Ok(read)
            }
        }
    }
}

/// Whether a numeric field is blank, as some tools write it.
fn is_blank(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

fn apply_pax(
    pax: &[u8],
    member: &mut Member,
    link: &mut Option<Vec<u8>>,
    stored: &mut u64,
) -> Result<()> {
    for extension in PaxExtensions::new(pax) {
        let extension = extension.map_err(archive_error)?;
        let (key, value) = (extension.key().unwrap_or_default(), extension.value_bytes());
        let number = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| Error::bad(format!("cannot read an archive: {key} is not a number")))
        };
        match key {
            "path" => member.path = value.to_vec(),
            "linkpath" => *link = Some(value.to_vec()),
            "size" => (*stored, member.size) = (number()?, number()?),
            "uid" => {
                member.uid = check_id(number().map_err(|_| io::ErrorKind::InvalidData.into()))?
            }
            "gid" => {
                member.gid = check_id(number().map_err(|_| io::ErrorKind::InvalidData.into()))?
            }
            "mtime" => member.mtime = parse_time(value).unwrap_or(member.mtime),
            key if key.starts_with("GNU.sparse") => {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let text =
                    format!("cannot unpack {name:?}: sparse files in pax format are not supported");
                return Err(Error::bad(text));
            }
            key => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    member.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// Checks a user or group id.
fn check_id(found: io::Result<u64>) -> Result<u32> {
    let found = found.map_err(archive_error)?;
    u32::try_from(found).ok().filter(|id| *id != u32::MAX).ok_or_else(|| {
        Error::bad(format!("cannot read an archive: {found} is no user or group id"))
    })
}

/// Parses a time of pax, such as `1234.56789`.
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = rest.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn trim_nul(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// Reads one block. Returns false at the end of the file.
fn read_block(from: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(Error::bad("cannot read an archive: truncated in a header")),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(archive_error(error)),
        }
    }
    Ok(true)
}

/// Converts an error of a reader: a failed system call, else a malformed archive.
pub(crate) fn archive_error(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error {
            os_error: error.raw_os_error(),
            ..Error::new(msb_image::ErrorKind::Io, format!("cannot read an archive: {error}"))
        },
        None => Error::bad(format!("cannot read an archive: {error}")),
    }
}
