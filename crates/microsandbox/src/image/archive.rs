//! The file that an image is exported to.
//!
//! Invariant: the file gets its name once it is complete. This process creates it, so that it is the
//! caller's by umask and owner; the runner writes it.

use crate::error::Error;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Mode of a new file, which the umask restricts.
const MODE: u32 = 0o666;

/// An archive that is being written. Dropping it leaves nothing of it.
#[derive(Debug)]
pub(super) struct NewArchive {
    file: File,
    path: PathBuf,
    how: How,
}

/// How the file gets its name.
#[derive(Debug)]
enum How {
    /// It has one: a FIFO or a device.
    InPlace,
    /// It has none yet.
    Unnamed,
    /// It has another one in the same directory.
    Renamed(PathBuf),
}

impl NewArchive {
    /// Creates a file that is to replace `path`. A FIFO or device is written to instead.
    pub(super) fn create(path: &Path) -> Result<NewArchive, Error> {
        let failed = |error| Error::io(format!("cannot create {}", path.display()), error);
        let path = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(failed(error)),
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(failed(Errno::ISDIR.into())),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&path).map_err(failed)?;
                refuse_terminal(&file)?;
                return Ok(NewArchive { file, path, how: How::InPlace });
            }
            _ => {}
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(CWD, directory, flags, Mode::from_raw_mode(MODE)) {
            Ok(file) => Ok(NewArchive { file: file.into(), path, how: How::Unnamed }),
            // Not every file system has files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let temporary = temporary(&path);
                let mut options = File::options();
                options.write(true).create_new(true).mode(MODE);
                let file = options.open(&temporary).map_err(failed)?;
                Ok(NewArchive { file, path, how: How::Renamed(temporary) })
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Returns a descriptor to write it.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, Error> {
        let copy = self.file.try_clone().map(OwnedFd::from);
        copy.map_err(|error| Error::io(format!("cannot open {}", self.path.display()), error))
    }

    /// Gives the complete file its name.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        let named = match &self.how {
            How::InPlace => Ok(()),
            How::Renamed(temporary) => fs::rename(temporary, &self.path),
            How::Unnamed => self.link(),
        };
        named
            .map_err(|error| Error::io(format!("cannot create {}", self.path.display()), error))?;
        self.how = How::InPlace;
        Ok(())
    }

    /// Gives the file without a name its name, and takes it from another one.
    fn link(&self) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |to: &Path| linkat(CWD, own.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW);
        match link(&self.path) {
            Err(Errno::EXIST) => {
                let temporary = temporary(&self.path);
                link(&temporary)?;
                fs::rename(&temporary, &self.path).inspect_err(|_| {
                    // The first error is reported.
                    let _ = fs::remove_file(&temporary);
                })
            }
            result => Ok(result?),
        }
    }
}

impl Drop for NewArchive {
    fn drop(&mut self) {
        if let How::Renamed(temporary) = &self.how {
            // The first error is reported.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Fails if a file is a terminal, which an archive would fill with control characters.
pub(super) fn refuse_terminal(file: &impl IsTerminal) -> Result<(), Error> {
    match file.is_terminal() {
        true => Err(Error::invalid("cannot use a terminal for an archive; redirect it to a file")),
        false => Ok(()),
    }
}

/// Returns an unused name beside a file.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".msb-{}-{count}.tar", std::process::id()))
}
