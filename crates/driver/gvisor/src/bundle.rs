//! The OCI bundle of a sandbox, and the owners of its files.
//!
//! The root of the jail owns the working directory, so what is in it after a sandbox is not trusted.
//! Everything is created, and nothing that exists is used.

use crate::runsc::BUNDLE;
use msb_driver::Users;
use msb_state::Failure;
use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Creates the working directory with the configuration, for the root of the jail. Fails if it exists.
pub(crate) fn write_bundle(work: &Path, users: Users, spec: &Spec) -> Result<(), Failure> {
    let bundle = work.join(BUNDLE);
    let file = bundle.join("config.json");
    create_dir(work)?;
    create_dir(&bundle)?;
    let write = || {
        let bytes = serde_json::to_vec(spec)?;
        File::create_new(&file)?.write_all(&bytes)
    };
    write().map_err(|error| Failure::boot_io("write", &file, error))?;
    // The outermost last: until then nobody else can reach the others.
    [file.as_path(), &bundle, work].into_iter().try_for_each(|path| give(path, users))
}

/// Creates a directory of which nobody else may use anything.
pub(crate) fn create_dir(path: &Path) -> Result<(), Failure> {
    let created = fs::DirBuilder::new().mode(0o700).create(path);
    created.map_err(|error| Failure::boot_io("create", path, error))
}

/// Gives a file to the root of the jail. Follows no link.
pub(crate) fn give(path: &Path, users: Users) -> Result<(), Failure> {
    let Users::Mapped(start) = users else { return Ok(()) };
    let (user, group) = (Uid::from_raw(start), Gid::from_raw(start));
    chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| Failure::boot_io("change the owner of", path, io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn j1_what_a_stranger_left_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let (work, other) = (home.path().join("work"), home.path().join("other"));
        let write = || write_bundle(&work, Users::RootOnly, &Spec::default());

        fs::create_dir(&other).unwrap();
        symlink(&other, &work).unwrap();
        assert!(write().unwrap_err().to_string().contains("cannot create"));
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        fs::remove_file(&work).unwrap();

        fs::create_dir(&work).unwrap();
        assert!(write().unwrap_err().to_string().contains("cannot create"));
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
        fs::remove_dir(&work).unwrap();

        write().unwrap();
        assert!(Spec::load(work.join(BUNDLE).join("config.json")).is_ok());
        assert_eq!(fs::metadata(&work).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
