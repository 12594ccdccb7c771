//! Archives that are read from or written to a descriptor of the caller: a pipe, a FIFO, a file.

use crate::tree::free_space;
use msb_image::{Error, ErrorKind, Result, Store};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Disk space that a copy leaves free, in bytes.
const RESERVED: u64 = 32 * 1024 * 1024;

/// A descriptor that another process may have made non-blocking. Blocks all the same.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) File);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) => wait_to_retry(error, &self.0, PollFlags::IN)?,
                result => return result,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) => wait_to_retry(error, &self.0, PollFlags::OUT)?,
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Waits until a call that would have blocked can be repeated; any other failure is returned.
fn wait_to_retry(error: io::Error, file: &File, until: PollFlags) -> io::Result<()> {
    if error.kind() != io::ErrorKind::WouldBlock {
        return Err(error);
    }
    match poll(&mut [PollFd::new(file, until)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A copy of a stream in the store, which can be read several times. Removed on drop.
#[derive(Debug)]
pub(crate) struct Spool(PathBuf);

impl Spool {
    /// Copies a stream until its end.
    pub(crate) fn fill(store: &Store, from: File) -> Result<Spool> {
        let spool = Spool(store.temporary());
        let failed = |error| Error::io("write", spool.path(), error);
        let mut to = File::create_new(spool.path()).map_err(failed)?;
        let free = free_space(spool.path())?.0.saturating_sub(RESERVED);
        match io::copy(&mut Stream(from).take(free), &mut to).map_err(failed)? {
            0 => Err(Error::bad("the archive is empty")),
            length if length < free => Ok(spool),
            _ => {
                let text = "the disk is too full for a copy of the archive";
                Err(Error::new(ErrorKind::NoSpace, text))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // The next pull removes what is left.
        let _ = fs::remove_file(&self.0);
    }
}
