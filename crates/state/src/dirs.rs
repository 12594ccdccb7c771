//! Creation, replacement and removal of files and directories.

use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::tree::remove_tree;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Creates a private directory and its missing parents, or makes an existing one of ours private.
///
/// Retries if the directory is removed concurrently.
pub fn create_private_dir(path: &Path) -> Result<()> {
    loop {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // Something else than a directory, unless it was removed and created in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
                    return Err(Error::io("create directory", path, error));
                }
            }
            Err(error) => return Err(Error::io("create directory", path, error)),
            Ok(()) => {}
        }
        match make_private(path) {
            Err(Error::Io { error: source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

fn make_private(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| Error::io("inspect", path, error))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user");
        return Err(Error::io("use directory", path, error));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| Error::io("restrict the mode of", path, error))?;
    }
    Ok(())
}

/// Replaces a file atomically: a reader sees the old content or the new one, even if the writer is
/// killed.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let write = || -> io::Result<()> {
        let mut file: File = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(content)?;
        fs::rename(temporary, path)
    };
    write().map_err(|error| Error::io("write", path, error))
}

/// Prefix of a directory that is being removed, which no sandbox's name has.
const RETIRED: &str = ".removed-";

/// Renames the directory of a sandbox out of the way of its name and returns the new path; `None`
/// if it does not exist. The caller holds its lock.
///
/// From then on the name is free, and neither sandbox of that name sees files of the other.
pub(crate) fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{RETIRED}{}-{}-{count}", std::process::id(), now_ms());
    let aside = path.with_file_name(name);
    match fs::rename(path, &aside) {
        Ok(()) => Ok(Some(aside)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Removes the directory of a sandbox. The caller holds its lock. For the runner only: a guest may
/// have filled it.
pub fn retire(path: &Path) -> Result<()> {
    set_aside(path)?.map_or(Ok(()), |aside| remove_tree(&aside))
}

/// Returns whether a directory is left over from a killed removal.
pub(crate) fn is_retired(name: &str) -> bool {
    name.starts_with(RETIRED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_directory_becomes_private() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        create_private_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn atomic_write_replaces_the_whole_content() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        write_atomically(&path, b"long content").unwrap();
        write_atomically(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
