//! The fields of a member that extension headers set.

use super::header::check_id;
use super::pax::{Record, name, number, time};
use super::sparse::PaxSparse;
use crate::error::Result;

/// Fields of the next member that records set.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) atime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<Record>,
    pub(super) sparse: PaxSparse,
}

impl Fields {
    /// Sets fields. An empty value stands for the header's. Unknown keys change nothing.
    pub(super) fn apply(&mut self, records: Vec<Record>) -> Result<()> {
        for (key, value) in records {
            let id =
                |value: &[u8]| number(&key, value).and_then(|found| check_id(found.cast_signed()));
            let text = || Some(value.clone()).filter(|value| !value.is_empty());
            match key.as_slice() {
                b"path" => self.path = text().map(|value| name(&key, &value)).transpose()?,
                b"linkpath" => self.link = text().map(|value| name(&key, &value)).transpose()?,
                b"size" => self.size = text().map(|value| number(&key, &value)).transpose()?,
                b"uid" => self.uid = text().map(|value| id(&value)).transpose()?,
                b"gid" => self.gid = text().map(|value| id(&value)).transpose()?,
                b"mtime" => self.mtime = text().map(|value| time(&key, &value)).transpose()?,
                b"atime" => self.atime = text().map(|value| time(&key, &value)).transpose()?,
                key if key.starts_with(b"GNU.sparse.") => self.sparse.set(key, &value)?,
                key => {
                    if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((attribute.to_vec(), value));
                    }
                }
            }
        }
        Ok(())
    }
}
