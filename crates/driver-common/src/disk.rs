//! The disk that holds what a sandbox changes in its image.

use crate::process::{Bound, on_path};
use msb_driver::Failure;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How large the disk looks to the guest, in bytes. On the host it takes what was written to it.
pub const DISK_BYTES: u64 = 32 << 30;
/// How long making it may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Looks whether disks can be made: with what, or why not and what would help.
pub fn probe_disk() -> Result<std::path::PathBuf, (String, String)> {
    // Where it is for administrators, which an ordinary user's PATH may not lead to.
    on_path("mkfs.ext4", &["/usr/sbin", "/sbin"]).ok_or_else(|| {
        ("mkfs.ext4 is not installed".to_owned(), "apt-get install e2fsprogs".to_owned())
    })
}

/// Makes an empty disk, unless there is one. A start that was broken off leaves none.
pub async fn make_disk(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let mkfs = probe_disk().map_err(|(why, remedy)| Failure::no_driver(why).hint(remedy))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let file = tempfile::NamedTempFile::new_in(folder)
        .map_err(|error| Failure::boot_io("create a disk in", folder, error))?;
    file.as_file()
        .set_len(DISK_BYTES)
        .map_err(|error| Failure::boot_io("make a disk of", file.path(), error))?;
    let mut command = Command::new(mkfs);
    // Nothing is written that can be left for later; no part is kept back for root.
    command.args(["-q", "-F", "-m", "0", "-J", "size=16", "-E"]);
    command.arg("lazy_itable_init=1,lazy_journal_init=1,discard,root_owner=0:0").arg(file.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| Failure::boot(format!("mkfs.ext4: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let complaint = child.stderr.take();
    let status = Bound::new(child).wait(LIMIT).await.map_err(failed)?;
    if !status.success() {
        let text = complaint.map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default();
        return Err(Failure::boot(format!("mkfs.ext4: {status}: {text}")));
    }
    file.persist(path).map_err(|error| Failure::boot_io("create", path, error.error))?;
    fs::metadata(path).map_err(|error| Failure::boot_io("look at", path, error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_disk_looks_large_takes_little_and_is_made_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("disk");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(make_disk(&path)).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.len(), DISK_BYTES);
        assert!(found.blocks() * 512 < 64 << 20, "{} KiB", found.blocks() / 2);
        runtime.block_on(make_disk(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), found.ino());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
