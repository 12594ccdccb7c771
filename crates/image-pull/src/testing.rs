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
pub(crate) struct Archive(Vec<u8>);

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
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
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

    /// Returns the archive.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// Returns the archive without the blocks at its end.
    pub(crate) fn open_end(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}
