//! The bounded log of what a machine or its agent prints.

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

/// Size at which the log is rotated, in bytes.
const LIMIT: u64 = 512 * 1024;
/// Bytes of the log that go into an error.
const TAIL: usize = 800;
/// Time limit for writing what was printed.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);

/// A log file of bounded size, and its predecessor.
#[derive(Debug)]
struct BoundedLog {
    path: PathBuf,
    file: File,
    length: u64,
}

impl BoundedLog {
    /// Starts an empty log and rotates the existing one: the log is of this start alone.
    fn start(path: &Path) -> io::Result<Self> {
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

/// The log while it is written.
#[derive(Debug)]
pub(crate) struct Console {
    path: PathBuf,
    /// The read end of the pipe.
    source: OwnedFd,
}

impl Console {
    /// Returns the write end of a pipe, and logs what comes through it until that is closed. Output
    /// that cannot be written is dropped: a full disk must not block the agent. Call it inside the
    /// runtime.
    pub(crate) fn start(path: PathBuf) -> io::Result<(Self, OwnedFd)> {
        let (source, sink) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut reader = pipe::Receiver::from_owned_fd(source.try_clone()?)?;
        let mut log = BoundedLog::start(&path)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                if let Err(error) = log.append(buffer.get(..length).unwrap_or_default()) {
                    tracing::debug!(%error, "dropped a part of the agent's log");
                }
            }
        });
        Ok((Console { path, source }, sink))
    }

    /// Returns the end of what was printed until now.
    pub(crate) async fn tail(&self) -> String {
        let written = async {
            // A chunk is read and written in one step.
            while rustix::io::ioctl_fionread(&self.source).is_ok_and(|waiting| waiting > 0) {
                yield_now().await;
            }
        };
        // An agent that never stops printing is cut off.
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
    fn log_stays_bounded_and_keeps_the_last_lines() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("agent.log");
        fs::write(&path, "of another start").unwrap();
        let mut log = BoundedLog::start(&path).unwrap();
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
    async fn tail_has_all_that_was_printed_before() {
        let scratch = tempfile::tempdir().unwrap();
        let (console, sink) = Console::start(scratch.path().join("agent.log")).unwrap();
        assert_eq!(console.tail().await, "it left no message");
        let mut sink = File::from(sink);
        sink.write_all(&[b'x'; 60_000]).unwrap();
        sink.write_all(b"the end\n").unwrap();
        let tail = console.tail().await;
        assert!(tail.ends_with("xthe end") && tail.len() < TAIL, "{tail}");
    }
}
