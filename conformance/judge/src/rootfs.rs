//! The root filesystem that the cases run in.

use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns `$MSB_TEST_ROOTFS`, or a root filesystem that is rebuilt when its sources change.
pub(crate) fn rootfs(conformance: &Path) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("MSB_TEST_ROOTFS") {
        return Ok(given.into());
    }
    let maker = conformance.join("make-rootfs");
    let mut sum = Sha256::new();
    for source in [&maker, &conformance.join("guest/helper.c")] {
        sum.update(fs::read(source)?);
    }
    let sum: String = sum.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let scratch = conformance.join("../target/tmp");
    let rootfs = scratch.join(format!("conformance-{sum}"));
    if !rootfs.exists() {
        fs::create_dir_all(&scratch)?;
        let building = tempfile::tempdir_in(&scratch)?;
        let root = building.path().join("root");
        if !Command::new(&maker).arg(&root).status()?.success() {
            return Err(Error::other("conformance/make-rootfs failed"));
        }
        // Another judge may have been faster.
        let _ = fs::rename(&root, &rootfs);
    }
    rootfs.canonicalize()
}
