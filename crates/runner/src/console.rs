//! The log of what a machine or its agent prints, which a guest could fill at will.

use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::yield_now;
use tokio::time::timeout;

/// How large the log grows before it becomes the old one.
const LIMIT: u64 = 512 * 1024;
/// How much of it goes into an error, in bytes.
const TAIL: usize = 800;
/// How long it may take to write down what was printed.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

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

/// The log as it is being written.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    /// The end of the pipe that is read.
    source: OwnedFd,
}

impl Console {
    /// Writes down what comes through the pipe whose other end comes back, until nobody has that
    /// any more. What cannot be written is dropped: a full disk must not stop the agent. Must be
    /// called inside the runtime.
    pub(crate) fn begin(path: PathBuf) -> io::Result<(Self, OwnedFd)> {
        let (source, sink) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut reader = pipe::Receiver::from_owned_fd(source.try_clone()?)?;
        let mut log = BoundedLog::begin(&path)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                if let Err(error) = log.append(buffer.get(..length).unwrap_or_default()) {
                    tracing::debug!(%error, "a part of the agent's log was dropped");
                }
            }
        });
        Ok((Console { path, source }, sink))
    }

    /// The end of what was printed until now.
    pub(crate) async fn last_words(&self) -> String {
        let written = async {
            // A piece is read and written down in one step.
            while rustix::io::ioctl_fionread(&self.source).is_ok_and(|waiting| waiting > 0) {
                yield_now().await;
            }
        };
        // What came until then has to do, of one that never stops printing.
        let _ = timeout(SETTLE_LIMIT, written).await;
        let bytes = fs::read(&self.path).unwrap_or_default();
        let last = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
        match String::from_utf8_lossy(last).trim() {
            "" => "it left no message".to_owned(),
            text => text.to_owned(),
        }
    }
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

    #[tokio::test(flavor = "current_thread")]
    async fn the_last_words_are_all_that_was_printed_before() {
        let scratch = tempfile::tempdir().unwrap();
        let (console, sink) = Console::begin(scratch.path().join("agent.log")).unwrap();
        assert_eq!(console.last_words().await, "it left no message");
        let mut sink = File::from(sink);
        sink.write_all(&[b'x'; 60_000]).unwrap();
        sink.write_all(b"the end\n").unwrap();
        let words = console.last_words().await;
        assert!(words.ends_with("xthe end") && words.len() < TAIL, "{words}");
    }
}
