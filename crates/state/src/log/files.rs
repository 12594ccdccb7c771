//! The files of the log by their numbers.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The file with the reason why the log ended early.
pub(super) const FAILURE: &str = "failed";
/// Preallocated size of that file, since the disk may be full when it is written.
pub(super) const FAILURE_ROOM: usize = 512;

/// Returns the path of a file.
pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.log"))
}

/// Returns the numbers of the existing files, ascending.
pub(super) fn numbers(folder: &Path) -> Result<Vec<u64>> {
    let failed = |error| Error::io("read", folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}
