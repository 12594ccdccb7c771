//! Directories and files of the state.

use crate::error::{Error, Result};
use crate::state::now_ms;
use rustix::fs::Mode;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Creates a directory for its owner alone, with the parents it lacks, or makes sure that an
/// existing one is ours and closed to others.
///
/// Whoever removes it at the same time may come between any two steps; then it is made again.
pub fn create_private_dir(path: &Path) -> Result<()> {
    loop {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            // There when it was to be made, and no directory when that was looked at.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
                    return Err(Error::io("create directory", path, error));
                }
            }
            Err(error) => return Err(Error::io("create directory", path, error)),
            Ok(()) => {}
        }
        match make_private(path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

fn make_private(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| Error::io("inspect", path, error))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let error = io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to someone else");
        return Err(Error::io("use directory", path, error));
    }
    if found.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| Error::io("close to others", path, error))?;
    }
    Ok(())
}

/// Writes a file so that a reader sees the old content or the new and never a part, also when
/// the writer is killed.
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

/// How the directory of a sandbox is called while it is being removed: no sandbox has such a name.
const RETIRED: &str = ".removed-";

/// Removes the directory of a sandbox, whose lock the caller holds.
///
/// First out of the way as a whole: the name is free from that moment on, and whoever takes it
/// finds nothing of the old sandbox, nor does the removal find anything of theirs.
pub fn retire(path: &Path) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{RETIRED}{}-{}-{count}", std::process::id(), now_ms());
    let aside = path.with_file_name(name);
    match fs::rename(path, &aside) {
        Ok(()) => loop {
            match remove_tree(&aside) {
                // Whoever was on the way to its lock file has made one; nobody new finds the way.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                result => return result,
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Whether a directory is what a removal that was killed has left.
pub(crate) fn is_retired(name: &str) -> bool {
    name.starts_with(RETIRED)
}

/// Removes a directory with all it contains; nothing there is fine.
///
/// Directories that deny their owner access, as a container and the overlay leave them behind,
/// are opened up first. No symbolic link is followed.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_up(path),
        Err(error) => return Err(Error::io("remove", path, error)),
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Gives the owner access to every directory of a tree, as far as that is allowed.
fn open_up(root: &Path) {
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        // Failures show up again, with a better message, when the removal is tried once more.
        let _ = rustix::fs::chmod(&directory, Mode::RWXU);
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let directories = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path());
        waiting.extend(directories);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_directory_is_closed_to_others_even_if_it_was_open() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        create_private_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        create_private_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_tree_with_closed_directories_is_removed_and_links_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, other) = (scratch.path().join("tree"), scratch.path().join("other"));
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("closed"), Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(other.join("kept").exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn an_atomic_write_replaces_the_whole_content() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("f");
        write_atomically(&path, b"long content").unwrap();
        write_atomically(&path, b"short").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
