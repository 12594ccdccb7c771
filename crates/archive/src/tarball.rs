//! Reads the members of an untrusted tar archive.
//!
//! Holds at most one extension header in memory: a few compressed kilobytes can hold a name of
//! gigabytes. What a member needs and this reader does not know is refused, and never skipped.

mod fields;
mod header;
mod pax;
mod sparse;

use crate::error::{Error, Result};
use fields::Fields;
use header::{BLOCK, Header, until_nul};
use pax::Record;
use std::io::{self, Read};

/// Maximum size of an extension header: names, links and attributes of one member.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// Maximum number of bytes after the end of the archive. Tools pad to their block size.
const MAX_PADDING: u64 = 64 * 1024 * 1024;

/// The type of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and its target.
    Symlink(Vec<u8>),
    /// A hard link, and the name of the member that it is a link to.
    HardLink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
}

/// The header of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, as the archive has it: perhaps absolute, perhaps with `..`.
    pub path: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Its permissions, with the set-user-id, set-group-id and sticky bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Time of the last change of the content: seconds and nanoseconds since the Unix epoch.
    pub mtime: (i64, u32),
    /// Time of the last access, if the archive has it.
    pub atime: Option<(i64, u32)>,
    /// Length of the unpacked file.
    pub size: u64,
    /// Names and values of its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offset and length of each data segment of a sparse file. Empty if not sparse.
    pub sparse: Vec<(u64, u64)>,
}

/// Iterates over members. Reads the content of the current one.
#[derive(Debug)]
pub struct TarReader<R> {
    from: R,
    /// Unread content of the current member, and the padding after it.
    remaining: u64,
    padding: u64,
    /// Records of global headers, for all further members.
    globals: Vec<Record>,
}

/// Extension headers that precede a member.
#[derive(Debug, Default)]
struct Extensions {
    /// Names and link targets of GNU's headers.
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
    is_pending: bool,
}

impl<R: Read> TarReader<R> {
    /// Creates a reader of an uncompressed archive.
    pub fn new(from: R) -> TarReader<R> {
        TarReader { from, remaining: 0, padding: 0, globals: Vec::new() }
    }

    /// Returns the next member. Skips unread content of the current one.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                return match extensions.is_pending {
                    true => Err(Error::bad("cannot read an archive: it ends before a member")),
                    false => Ok(None),
                };
            };
            let size = header.size()?;
            match header.kind() {
                b'L' => extensions.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => extensions.link = Some(until_nul(&self.extension(size)?).to_vec()),
                // Solaris writes X.
                b'x' | b'X' => extensions.records = pax::parse(&self.extension(size)?)?,
                b'g' => {
                    let records = pax::parse(&self.extension(size)?)?;
                    pax::add_globals(&mut self.globals, records)?;
                    continue;
                }
                // The label of GNU's volumes.
                b'V' => {
                    self.set_content(size);
                    self.skip_content()?;
                    extensions = Extensions::default();
                    continue;
                }
                _ => return self.member(&header, size, extensions).map(Some),
            }
            extensions.is_pending = true;
        }
    }

    /// Reads the rest after the last member, which is part of the layer's digest.
    pub fn finish(mut self) -> Result<()> {
        let read = io::copy(&mut (&mut self.from).take(MAX_PADDING), &mut io::sink());
        match read? {
            MAX_PADDING => Err(Error::bad(format!(
                "cannot read an archive: {MAX_PADDING} bytes or more after its end"
            ))),
            _ => Ok(()),
        }
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let mut block = [0; BLOCK];
        if !read_block(&mut self.from, &mut block)? {
            // Some tools omit the end.
            return Ok(None);
        }
        if block == [0; BLOCK] {
            let ended = !read_block(&mut self.from, &mut block)? || block == [0; BLOCK];
            // Readers differ in whether a single block ends it.
            let error = || Error::bad("cannot read an archive: data after a single block of zeros");
            return if ended { Ok(None) } else { Err(error()) };
        }
        let header = Header(block);
        match header.is_intact() {
            true => Ok(Some(header)),
            false => Err(Error::bad("cannot read an archive: a header has a wrong checksum")),
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member> {
        let mut fields = Fields::default();
        fields.apply(self.globals.clone())?;
        fields.apply(extensions.records)?;
        let path = fields.sparse.name.clone().or(fields.path).or(extensions.path);
        let mut member = Member {
            path: path.unwrap_or_else(|| header.name()),
            kind: Kind::File,
            mode: header.mode()?,
            uid: fields.uid.map_or_else(|| header.uid(), Ok)?,
            gid: fields.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: match fields.mtime {
                Some(mtime) => mtime,
                None => (header.mtime()?, 0),
            },
            atime: fields.atime,
            size: fields.size.unwrap_or(size),
            xattrs: fields.xattrs,
            sparse: Vec::new(),
        };
        let link = || fields.link.or(extensions.link).unwrap_or_else(|| header.link());
        let is_directory = member.path.ends_with(b"/");
        member.kind = match header.kind() {
            // Old archives mark a directory by a trailing slash only.
            0 | b'0' | b'7' if is_directory && member.size > 0 => {
                return Err(refused(&member.path, "a directory has content"));
            }
            0 | b'0' | b'7' if is_directory => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link()),
            b'2' => Kind::Symlink(link()),
            b'3' => header.device().map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => header.device().map(|(major, minor)| Kind::Block(major, minor))?,
            // GNU's incremental archives list the names in a directory as its content.
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'M' => return Err(refused(&member.path, "it continues another volume")),
            other => {
                let text = format!("its type {:?} is not known", char::from(other));
                return Err(refused(&member.path, &text));
            }
        };
        match member.kind {
            Kind::File => {
                self.set_content(member.size);
                self.set_sparse_map(&mut member, header, fields.sparse)?;
            }
            // Some tools give others a size, too, but no content follows.
            _ => {
                self.set_content(if header.kind() == b'D' { member.size } else { 0 });
                member.size = 0;
            }
        }
        Ok(member)
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    /// Sets the segments and the length of a sparse file.
    fn set_sparse_map(
        &mut self,
        member: &mut Member,
        header: &Header,
        records: sparse::PaxSparse,
    ) -> Result<()> {
        let map = match header.kind() {
            b'S' => sparse::old_map(header, &mut self.from).map(Some),
            _ => records.map(self),
        };
        let named = |error: Error| match error.os_error {
            None => refused(&member.path, &error.message),
            Some(_) => error,
        };
        let Some((length, map)) = map.map_err(named)? else { return Ok(()) };
        sparse::check(&map, length, self.remaining).map_err(named)?;
        member.size = length;
        member.sparse = if map.is_empty() { vec![(0, 0)] } else { map };
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::bad(format!(
                "cannot read an archive: an extension header has {size} bytes; {MAX_EXTENSION} are allowed"
            )));
        }
        self.set_content(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        self.skip_content()?;
        Ok(content)
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = self.remaining.saturating_add(self.padding);
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink());
        let skipped = skipped?;
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
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated in a file")),
            read => {
                self.remaining -= read as u64;
                Ok(read)
            }
        }
    }
}

fn refused(path: &[u8], why: &str) -> Error {
    Error::bad(format!("cannot unpack {:?}: {why}", String::from_utf8_lossy(path)))
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
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
