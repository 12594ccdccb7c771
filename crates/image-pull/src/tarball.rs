//! The members of a tar archive, one after the other, whoever made it.
//!
//! The `tar` crate knows the headers. What goes from one member to the next is here, because its
//! own iterator reads names of any length into memory, and a bomb of a few kilobytes can hold one
//! of gigabytes.

use msb_image::{Error, Result};
use std::io::{self, Read};
use tar::{EntryType, Header, PaxExtensions};

/// Most bytes of a header's extension: names, links and attributes of one member.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Most bytes behind the end of the archive; tools fill up to a block of theirs.
const MAX_PADDING: u64 = 64 * 1024 * 1024;
/// Most parts of one file between its holes.
const MAX_HOLES: usize = 1_000_000;
const BLOCK: usize = 512;

/// What a member is.
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

/// One member, without its content.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// How long its content is once it is unpacked.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Where the content belongs that is there: offset and length. Empty: everywhere.
    pub(crate) sparse: Vec<(u64, u64)>,
}

/// Reads an archive.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    from: R,
    /// Content of the current member that was not read yet, and what fills up its last block.
    left: u64,
    padding: u64,
}

/// What stands in headers before a member, and is about it.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(from: R) -> TarReader<R> {
        TarReader { from, left: 0, padding: 0 }
    }

    /// The next member; what was not read of the last one is skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|error| broken(&error))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(trimmed(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(trimmed(self.extension(size)?)),
                EntryType::XHeader => extensions.pax = self.extension(size)?,
                // About everything that follows; nothing in it matters here.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
    }

    /// Reads what is behind the last member, since that belongs to the digest as well.
    pub(crate) fn finish(mut self) -> Result<()> {
        let read = io::copy(&mut (&mut self.from).take(MAX_PADDING), &mut io::sink());
        match read.map_err(|error| broken(&error))? {
            MAX_PADDING => Err(Error::bad("there is far too much behind the end of an archive")),
            _ => Ok(()),
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        loop {
            if !read_block(&mut self.from, &mut block)? {
                // Some tools leave the end out.
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
            _ => Err(Error::bad("an archive is broken: a header's checksum is wrong")),
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member> {
        let mut member = Member {
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            kind: Kind::File,
            mode: if is_blank(&header.as_old().mode) {
                0
            } else {
                header.mode().map_err(|error| broken(&error))?
            } & 0o7777,
            uid: if is_blank(&header.as_old().uid) { 0 } else { id(header.uid())? },
            gid: if is_blank(&header.as_old().gid) { 0 } else { id(header.gid())? },
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
            // Old archives mark a directory by its name only.
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
                return Err(Error::bad(format!("{name:?} is of an unknown kind, {other:?}")));
            }
        };
        if member.kind != Kind::File {
            // Some tools give links and directories a size, and none of them content.
            stored = if matches!(member.kind, Kind::HardLink(_)) { 0 } else { stored };
            member.size = 0;
        }
        self.left = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        Ok(member)
    }

    /// The map of a file with holes, in GNU's old form; returns the file's length.
    fn sparse_map(
        &mut self,
        header: &Header,
        map: &mut Vec<(u64, u64)>,
        stored: u64,
    ) -> Result<u64> {
        let wrong = || Error::bad("an archive is broken: a map of holes makes no sense");
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        let length = gnu.real_size().map_err(|_| wrong())?;
        let mut end = 0;
        let mut add = |parts: &[tar::GnuSparseHeader]| {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (offset, count) =
                    (part.offset().map_err(|_| wrong())?, part.length().map_err(|_| wrong())?);
                let from = Some(offset).filter(|offset| *offset >= end).ok_or_else(wrong)?;
                end = from.checked_add(count).filter(|end| *end <= length).ok_or_else(wrong)?;
                map.push((offset, count));
            }
            if map.len() > MAX_HOLES { Err(wrong()) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = [0; BLOCK];
            if !read_block(&mut self.from, &mut block)? {
                return Err(wrong());
            }
            let mut next = tar::GnuExtSparseHeader::new();
            next.as_mut_bytes().copy_from_slice(&block);
            add(&next.sparse)?;
            more = next.is_extended();
        }
        if map.iter().map(|(_, count)| count).sum::<u64>() != stored {
            return Err(wrong());
        }
        if map.is_empty() {
            map.push((0, 0));
        }
        Ok(length)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::bad(format!(
                "a header has {size} bytes; {MAX_EXTENSION} are allowed"
            )));
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(|error| broken(&error))?;
        self.skip_content()?;
        Ok(content)
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink());
        let skipped = skipped.map_err(|error| broken(&error))?;
        // The padding of the last member may be missing at the end of a file.
        if skipped < self.left {
            return Err(Error::bad("an archive ends in the middle of a file"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the current member.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let Some(room) = buffer.get_mut(..most) else { return Ok(0) };
        match self.from.read(room)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}

/// Some tools leave a number out that does not matter.
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
        let extension = extension.map_err(|error| broken(&error))?;
        let (key, value) = (extension.key().unwrap_or_default(), extension.value_bytes());
        let number = || {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| Error::bad(format!("an archive is broken: {key} is no number")))
        };
        match key {
            "path" => member.path = value.to_vec(),
            "linkpath" => *link = Some(value.to_vec()),
            "size" => (*stored, member.size) = (number()?, number()?),
            "uid" => member.uid = id(number().map_err(|_| io::ErrorKind::InvalidData.into()))?,
            "gid" => member.gid = id(number().map_err(|_| io::ErrorKind::InvalidData.into()))?,
            "mtime" => member.mtime = time(value).unwrap_or(member.mtime),
            key if key.starts_with("GNU.sparse") => {
                let name = String::from_utf8_lossy(&member.path).into_owned();
                let text = format!("{name:?} has holes in the form of pax, which is not supported");
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

/// A user or group; what no system has is an error and nobody's file.
fn id(found: io::Result<u64>) -> Result<u32> {
    let found = found.map_err(|error| broken(&error))?;
    u32::try_from(found)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Error::bad(format!("an archive is broken: {found} is no user")))
}

/// A time as pax has it, `1234.56789`.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = rest.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    while name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// Reads one block; false at the end of the file.
fn read_block(from: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool> {
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(Error::bad("an archive ends in the middle of a header")),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(true)
}

/// What a reader could not read is broken, unless the system could not read it.
pub(crate) fn broken(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error {
            os_error: error.raw_os_error(),
            ..Error::new(msb_image::ErrorKind::Io, format!("cannot read an archive: {error}"))
        },
        None => Error::bad(format!("an archive is broken: {error}")),
    }
}
