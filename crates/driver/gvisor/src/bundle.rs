//! The OCI bundle of a sandbox, and the owners of its files.

use crate::runsc::BUNDLE;
use msb_driver::Users;
use msb_state::Failure;
use oci_spec::runtime::Spec;
use rustix::fs::{Gid, Uid};
use std::fs;
use std::io;
use std::path::Path;

/// Creates the working directory with the configuration, for the root of the jail.
pub(crate) fn write_bundle(work: &Path, users: Users, spec: &Spec) -> Result<(), Failure> {
    let bundle = work.join(BUNDLE);
    let failed = |error: io::Error| Failure::boot_io("write", &bundle, error);
    fs::create_dir_all(&bundle).map_err(failed)?;
    let file = bundle.join("config.json");
    spec.save(&file)
        .map_err(|error| Failure::boot(format!("cannot write {}: {error}", file.display())))?;
    for path in [work, &bundle, &file] {
        give(path, users)?;
    }
    Ok(())
}

/// Gives a file to the root of the jail.
pub(crate) fn give(path: &Path, users: Users) -> Result<(), Failure> {
    let Users::Mapped(start) = users else { return Ok(()) };
    let (user, group) = (Uid::from_raw(start), Gid::from_raw(start));
    rustix::fs::chown(path, Some(user), Some(group))
        .map_err(|error| Failure::boot_io("change the owner of", path, error))
}
