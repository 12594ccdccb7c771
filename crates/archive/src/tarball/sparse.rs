//! Maps of sparse files: GNU's old format, and its formats 0.0, 0.1 and 1.0 in pax archives.

use super::header::{BLOCK, Header, parse_number};
use super::pax::{decimal, invalid, name, number};
use crate::error::{Error, Result};
use std::io::{self, Read};

/// Maximum number of data segments.
const MAX_SEGMENTS: usize = 1_000_000;

/// Offset and length of each data segment.
pub(super) type Segments = Vec<(u64, u64)>;

/// What the records of a pax archive say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    version: (u64, u64),
    length: Option<u64>,
    count: Option<u64>,
    map: Segments,
    /// An offset whose length is in the next record.
    offset: Option<u64>,
}

impl PaxSparse {
    /// Takes a record, whose key begins with `GNU.sparse.`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"GNU.sparse.major" => self.version.0 = number(key, value)?,
            b"GNU.sparse.minor" => self.version.1 = number(key, value)?,
            b"GNU.sparse.name" => self.name = Some(name(key, value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.length = Some(number(key, value)?),
            b"GNU.sparse.numblocks" => self.count = Some(number(key, value)?),
            b"GNU.sparse.offset" => self.offset = Some(number(key, value)?),
            b"GNU.sparse.numbytes" => {
                let offset = self.offset.take().ok_or_else(|| invalid(key, value))?;
                self.map.push((offset, number(key, value)?));
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal);
                let numbers = numbers.collect::<Option<Vec<u64>>>();
                let numbers = numbers.ok_or_else(|| invalid(key, value))?;
                self.map = pairs(&numbers).ok_or_else(|| invalid(key, value))?;
            }
            _ => return Err(invalid(key, value)),
        }
        Ok(())
    }

    /// Returns the length of the file and its map, which format 1.0 has before the content. `None`
    /// if the file is not sparse.
    pub(super) fn map(self, content: &mut impl Read) -> Result<Option<(u64, Segments)>> {
        let incomplete = || malformed("its length or a part of it is missing");
        let map = match self.version {
            (0, _) if self.map.is_empty() && self.count.is_none() => {
                return if self.offset.is_none() && self.length.is_none() && self.name.is_none() {
                    Ok(None)
                } else {
                    Err(incomplete())
                };
            }
            (0, _) => {
                let declared = self.count.is_none_or(|count| count == self.map.len() as u64);
                Some(self.map)
                    .filter(|_| declared && self.offset.is_none())
                    .ok_or_else(incomplete)?
            }
            (1, 0) => read_map(content)?,
            (major, minor) => {
                return Err(malformed(&format!("format {major}.{minor} is not known")));
            }
        };
        Ok(Some((self.length.ok_or_else(incomplete)?, map)))
    }
}

/// Reads the map of format 1.0: lines of decimal numbers, padded to whole blocks.
fn read_map(content: &mut impl Read) -> Result<Segments> {
    let mut numbers = Numbers { content, block: [0; BLOCK], at: BLOCK };
    let count = numbers.next()?;
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_SEGMENTS);
    let count = count.ok_or_else(|| malformed("it has too many segments"))?;
    (0..count).map(|_| Ok((numbers.next()?, numbers.next()?))).collect()
}

/// Reads lines of decimal numbers, block by block.
struct Numbers<'a, R> {
    content: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Numbers<'_, R> {
    fn next(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        while digits.len() <= 20 {
            if self.at == BLOCK {
                self.content.read_exact(&mut self.block).map_err(read_error)?;
                self.at = 0;
            }
            let byte = self.block.get(self.at).copied().unwrap_or_default();
            self.at += 1;
            if byte == b'\n' {
                break;
            }
            digits.push(byte);
        }
        decimal(&digits).ok_or_else(|| malformed("it is not made of numbers"))
    }
}

fn read_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed("it is truncated"),
        _ => error.into(),
    }
}

/// Reads the map of GNU's old format, which goes on in blocks behind the header.
pub(super) fn old_map(header: &Header, from: &mut impl Read) -> Result<(u64, Segments)> {
    let mut map = Segments::new();
    add_old(&mut map, header.bytes(386..482))?;
    let mut more = header.bytes(482..483) != [0];
    while more {
        let mut block = [0; BLOCK];
        from.read_exact(&mut block).map_err(read_error)?;
        add_old(&mut map, block.get(..504).unwrap_or_default())?;
        more = block.get(504).is_some_and(|byte| *byte != 0);
    }
    Ok((old_number(header.bytes(483..495))?, map))
}

fn add_old(map: &mut Segments, entries: &[u8]) -> Result<()> {
    // The first empty entry ends the map of a block.
    for entry in entries.chunks_exact(24).take_while(|entry| entry.get(12) != Some(&0)) {
        let (offset, length) = entry.split_at(12);
        map.push((old_number(offset)?, old_number(length)?));
    }
    if map.len() > MAX_SEGMENTS { Err(malformed("it has too many segments")) } else { Ok(()) }
}

fn old_number(field: &[u8]) -> Result<u64> {
    let found = parse_number(field).and_then(|number| u64::try_from(number).ok());
    found.ok_or_else(|| malformed("it is not made of numbers"))
}

/// Checks that segments are in order, inside the file, and as long as the stored content.
pub(super) fn check(map: &[(u64, u64)], length: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum, mut is_odd) = (0, 0_u64, false);
    for (offset, count) in map {
        if *offset < end || *count > 0 && is_odd {
            // Readers differ in whether the next segment begins in a new block.
            return Err(malformed("its segments overlap or are no whole blocks"));
        }
        end = offset.saturating_add(*count);
        sum = sum.saturating_add(*count);
        is_odd |= !count.is_multiple_of(BLOCK as u64);
    }
    if end > length || sum != stored {
        return Err(malformed("its segments do not fit the length or the content"));
    }
    Ok(())
}

fn pairs(numbers: &[u64]) -> Option<Segments> {
    let pairs = numbers.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    let pair = |pair: &[u64]| Some((*pair.first()?, *pair.get(1)?));
    Some(pairs).filter(|_| whole)?.map(pair).collect()
}

fn malformed(why: &str) -> Error {
    Error::bad(format!("the map of a sparse file is wrong: {why}"))
}
