//! Builds archives for tests, including malformed ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests may panic"
)]

use std::io::Write;
use tar::{EntryType, Header};

/// Builds an archive, header by header.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// Offset of the last header.
    last: usize,
}

impl Archive {
    pub(crate) fn new() -> Archive {
        Archive::default()
    }

    /// Adds a header and content, which need not match.
    pub(crate) fn raw(
        mut self,
        kind: EntryType,
        path: &[u8],
        size: u64,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Archive {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path);
        change(&mut header);
        header.set_cksum();
        self.last = self.bytes.len();
        self.bytes.extend_from_slice(header.as_bytes());
        self.content(content)
    }

    /// Adds bytes, and pads them to whole blocks.
    pub(crate) fn content(mut self, content: &[u8]) -> Archive {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Overwrites bytes of the last header, and sets its checksum.
    pub(crate) fn edit(mut self, at: usize, bytes: &[u8]) -> Archive {
        let header = &mut self.bytes[self.last..self.last + 512];
        header[at..at + bytes.len()].copy_from_slice(bytes);
        set_checksum(header, i64::from);
        self
    }

    /// Sets the checksum of the last header to the sum of signed bytes.
    pub(crate) fn signed_checksum(mut self) -> Archive {
        set_checksum(&mut self.bytes[self.last..self.last + 512], |byte| byte.cast_signed().into());
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Archive {
        let bytes = content.as_bytes();
        self.raw(EntryType::Regular, path.as_bytes(), bytes.len() as u64, bytes, |_| {})
    }

    pub(crate) fn mode(self, path: &str, kind: EntryType, mode: u32) -> Archive {
        self.raw(kind, path.as_bytes(), 0, b"", |header| header.set_mode(mode))
    }

    pub(crate) fn dir(self, path: &str) -> Archive {
        self.mode(path, EntryType::Directory, 0o755)
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Archive {
        self.link(path, target, EntryType::Symlink)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Archive {
        self.link(path, target, EntryType::Link)
    }

    fn link(self, path: &str, target: &str, kind: EntryType) -> Archive {
        self.raw(kind, path.as_bytes(), 0, b"", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    /// Adds pax records for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Archive {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(EntryType::XHeader, b"pax", content.len() as u64, &content, |_| {})
    }

    /// Adds a name or target of any length for the next member, as GNU tar does.
    pub(crate) fn long(self, kind: EntryType, text: &[u8]) -> Archive {
        let bytes = [text, b"\0"].concat();
        self.raw(kind, b"././@LongLink", bytes.len() as u64, &bytes, |_| {})
    }

    /// Returns the archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// Returns the archive without the blocks at its end.
    pub(crate) fn open_end(self) -> Vec<u8> {
        self.bytes
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Sets the checksum of a header.
pub(crate) fn set_checksum(header: &mut [u8], value: fn(u8) -> i64) {
    header[148..156].fill(b' ');
    let sum: i64 = header.iter().map(|byte| value(*byte)).sum();
    // A negative sum cannot be written.
    header[148..156].copy_from_slice(format!("{:06o}\0 ", sum.max(0)).as_bytes());
}

pub(crate) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    writer.include_checksum(true).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    xz_with(bytes, 1 << 20)
}

pub(crate) fn xz_with(bytes: &[u8], dictionary: u32) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(0);
    options.lzma_options.dict_size = dictionary;
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}
