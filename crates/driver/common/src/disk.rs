//! The disk with the upper layer of a virtual machine.

use crate::process::{KillOnDrop, on_path};
use msb_state::{Error, Failure, check_trusted};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Time limit of mkfs.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the mkfs program, or the reason and the remedy if disks cannot be created.
pub fn probe_disk() -> Result<std::path::PathBuf, (String, String)> {
    // An ordinary user's PATH may lack the administrators' directories.
    let found = on_path("mkfs.ext4", &["/usr/sbin", "/sbin"]).ok_or_else(|| {
        ("mkfs.ext4 is not installed".to_owned(), "apt-get install e2fsprogs".to_owned())
    })?;
    match check_trusted(&found) {
        Err(Error::Untrusted { path, fault, remedy }) => {
            Err((format!("cannot use {}: {fault}", path.display()), remedy))
        }
        Err(error) => Err((error.to_string(), "apt-get install e2fsprogs".to_owned())),
        Ok(()) => Ok(found),
    }
}

/// Creates an empty disk of a size in MiB, unless it exists. A cancelled start leaves none. It is
/// sparse on the host; its inodes are limited with its size.
pub async fn create_disk(path: &Path, mib: u64) -> Result<(), Failure> {
    let bytes = mib.saturating_mul(1024 * 1024);
    if let Ok(found) = fs::metadata(path) {
        if found.len() == bytes {
            return Ok(());
        }
        let text =
            format!("cannot change the disk {}: it has {} MiB", path.display(), found.len() >> 20);
        return Err(Failure::invalid_config(text).hint("remove the sandbox and create it anew"));
    }
    let mkfs = probe_disk().map_err(|(why, remedy)| Failure::no_driver(why).hint(remedy))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let file = tempfile::NamedTempFile::new_in(folder)
        .map_err(|error| Failure::boot_io("create a disk in", folder, error))?;
    file.as_file()
        .set_len(bytes)
        .map_err(|error| Failure::boot_io("set the size of", file.path(), error))?;
    let mut command = Command::new(mkfs);
    // Lazy initialisation; no blocks reserved for root.
    command.args(["-q", "-F", "-m", "0", "-J", "size=16", "-E"]);
    command.arg("lazy_itable_init=1,lazy_journal_init=1,discard,root_owner=0:0").arg(file.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| Failure::boot(format!("mkfs.ext4: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let stderr = child.stderr.take();
    let status = KillOnDrop::new(child).wait(LIMIT).await.map_err(failed)?;
    if !status.success() {
        let text = stderr.map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default();
        return Err(Failure::boot(format!("mkfs.ext4: {status}: {text}")));
    }
    file.persist(path).map_err(|error| Failure::boot_io("create", path, error.error))?;
    fs::metadata(path).map_err(|error| Failure::boot_io("inspect", path, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn j4_disk_is_sparse_and_created_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("disk");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(create_disk(&path, 1000)).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.len(), 1000 << 20);
        assert!(found.blocks() * 512 < 64 << 20, "{} KiB", found.blocks() / 2);
        runtime.block_on(create_disk(&path, 1000)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), found.ino());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        let error = runtime.block_on(create_disk(&path, 2000)).unwrap_err().to_string();
        assert!(error.contains("it has 1000 MiB; remove the sandbox"), "{error}");
    }
}
