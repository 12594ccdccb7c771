//! The log of what a machine or its agent prints, which a guest could fill at will.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// How large the log grows before it becomes the old one.
const LIMIT: u64 = 512 * 1024;

/// A log file of bounded size, and its predecessor.
#[derive(Debug)]
struct BoundedLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl BoundedLog {
    /// Begins anew: what was there becomes the old one, so that what is found in the log is of
    /// this start.
    fn begin(path: &Path) -> io::Result<Self> {
        match fs::rename(path, old(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => BoundedLog::open(path),
        }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(BoundedLog { path: path.to_path_buf(), file, length })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length > LIMIT {
            fs::rename(&self.path, old(&self.path))?;
            *self = BoundedLog::open(&self.path)?;
        }
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

/// Copies a pipe into a log until the pipe's end. What cannot be written is dropped: a full disk
/// must not stop the agent.
pub fn spawn(source: OwnedFd, path: &Path) -> io::Result<()> {
    let mut source = pipe::Receiver::from_owned_fd(source)?;
    let mut log = BoundedLog::begin(path)?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            if let Err(error) = log.append(buffer.get(..length).unwrap_or_default()) {
                tracing::debug!(%error, "a part of the agent's log was dropped");
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_bounded_and_keeps_the_last_lines() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("agent.log");
        fs::write(&path, "of another start").unwrap();
        let mut log = BoundedLog::begin(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        for _ in 0..100 {
            log.append(&[b'x'; 16 * 1024]).unwrap();
        }
        log.append(b"last\n").unwrap();
        let size: u64 = fs::read_dir(scratch.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(size < 3 * LIMIT, "{size}");
        assert!(fs::read(&path).unwrap().ends_with(b"last\n"));
    }
}
