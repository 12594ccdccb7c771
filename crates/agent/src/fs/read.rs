//! Reading of files and directories, a piece at a time.

use super::attributes::{stat_at, stat_open};
use super::error::{Result, failed, io_failed};
use super::root::{LIST, Root, SAFE, check, check_open};
use msb_wire::fs::encode_entries;
use msb_wire::{FsEntry, FsOpened};
use rustix::fs::{Dir, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const READ: &str = "read";
const OPEN: &str = "open";
const LIST_DIRECTORY: &str = "list";
/// Length of a page beyond which no entry is added, in bytes: below the smallest window.
const PAGE: usize = 32 * 1024;
/// Length of an entry without its name, at most.
const ENTRY: usize = 192;

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Reader {
    file: Arc<File>,
    path: Vec<u8>,
    offset: u64,
    left: u64,
    /// Whether it has no positions: a FIFO or terminal.
    is_stream: bool,
}

/// Opens a file to read it.
pub(super) fn open(
    root: &Root,
    path: Vec<u8>,
    (offset, length): (u64, Option<u64>),
    special: bool,
) -> Result<(Reader, FsOpened)> {
    check(READ, &path)?;
    let fd = root.open_path(&path, OFlags::RDONLY | SAFE).map_err(failed(OPEN, &path))?;
    check_open(READ, &path, fd.as_fd(), special)?;
    let stat = stat_open(fd.as_fd()).map_err(failed("stat", &path))?;
    let reader = Reader::new(Arc::new(fd.into()), path, offset, length)?;
    Ok((reader, FsOpened { stat: Some(stat) }))
}

impl Reader {
    /// Creates a reader of an open file.
    pub(super) fn new(
        file: Arc<File>,
        path: Vec<u8>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Reader> {
        if i64::try_from(offset).is_err() {
            return Err(failed(READ, &path)(Errno::INVAL));
        }
        let left = length.unwrap_or(u64::MAX).min(i64::MAX as u64 - offset);
        Ok(Reader { file, path, offset, left, is_stream: false })
    }

    /// Reads the next piece; empty at the end.
    pub(super) fn next(&mut self, most: usize) -> Result<Vec<u8>> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        let mut buffer = vec![0; most];
        let mut count = 0;
        // Fills the piece, since each has its cost.
        while let Some(rest) = buffer.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok(0) => break,
                Ok(read) => {
                    count += read;
                    self.offset += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What was read comes first; the error comes again.
                Err(_) if count > 0 => break,
                Err(error) => return Err(io_failed(READ, &self.path)(error)),
            }
        }
        buffer.truncate(count);
        self.left -= count as u64;
        Ok(buffer)
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.is_stream {
            match self.file.read_at(buffer, self.offset) {
                Err(error) if error.raw_os_error() == Some(Errno::SPIPE.raw_os_error()) => {
                    self.is_stream = true;
                }
                result => return result,
            }
        }
        (&*self.file).read(buffer)
    }
}

/// A directory that is being listed.
#[derive(Debug)]
pub(super) struct Lister {
    directory: Dir,
    path: Vec<u8>,
}

/// A page of entries.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) payload: Vec<u8>,
    pub(super) entries: usize,
    pub(super) is_last: bool,
}

impl Lister {
    pub(super) fn open(root: &Root, path: Vec<u8>) -> Result<Lister> {
        check(LIST_DIRECTORY, &path)?;
        let opened = root.open_path(&path, LIST).and_then(Dir::new);
        let directory = opened.map_err(failed(LIST_DIRECTORY, &path))?;
        Ok(Lister { directory, path })
    }

    pub(super) fn fd(&self) -> Result<std::os::fd::BorrowedFd<'_>> {
        self.directory.fd().map_err(failed(LIST_DIRECTORY, &self.path))
    }

    /// Returns the next entries.
    pub(super) fn next(&mut self, most: usize) -> Result<Page> {
        let (mut entries, mut length) = (Vec::new(), 0);
        let mut is_last = false;
        while entries.len() < most && length < PAGE {
            let Some(entry) = self.directory.read() else {
                is_last = true;
                break;
            };
            let entry = entry.map_err(failed(LIST_DIRECTORY, &self.path))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            // One that vanished meanwhile is not there.
            if let Some(stat) = self.stat(name)? {
                length += ENTRY + name.len();
                entries.push(FsEntry { name: name.to_vec(), stat });
            }
        }
        Ok(Page { payload: encode_entries(&entries), entries: entries.len(), is_last })
    }

    fn stat(&self, name: &[u8]) -> Result<Option<msb_wire::FsStat>> {
        let path = || [self.path.as_slice(), b"/", name].concat();
        match stat_at(self.fd()?, name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("stat", &path())(errno)),
        }
    }
}

/// Opens a path for a handle; see [`msb_wire::FsOpen`].
pub(super) fn open_handle(root: &Root, request: &msb_wire::FsOpen) -> Result<Opened> {
    check(OPEN, &request.path)?;
    super::attributes::check_mode(OPEN, &request.path, request.mode)?;
    let wrong = |why| Err(super::error::invalid(OPEN, &request.path, why));
    let writes = request.write || request.append;
    if request.directory {
        if request.read || writes || request.create || request.truncate {
            return wrong("a directory can only be opened by itself");
        }
        let flags = if request.no_follow { LIST | OFlags::NOFOLLOW } else { LIST };
        let directory = root.open_path(&request.path, flags).and_then(Dir::new);
        let directory = directory.map_err(failed(OPEN, &request.path))?;
        return Ok(Opened::Directory(Lister { directory, path: request.path.clone() }));
    }
    if !request.read && !writes {
        return wrong("neither read, write, append nor directory is asked for");
    }
    if request.create && !writes || request.exclusive && !request.create {
        return wrong("create needs write, and exclusive needs create");
    }
    if request.truncate && !request.write {
        return wrong("truncate needs write");
    }
    let mut flags = SAFE;
    flags |= match (request.read, writes) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (wanted, flag) in [(request.append, OFlags::APPEND), (request.no_follow, OFlags::NOFOLLOW)]
    {
        if wanted {
            flags |= flag;
        }
    }
    let file = match request.create {
        true => super::write::create(root, &request.path, flags, request.exclusive, request.mode)?,
        false => root.open_path(&request.path, flags).map_err(failed(OPEN, &request.path))?,
    };
    check_open(OPEN, &request.path, file.as_fd(), request.special)?;
    if request.truncate {
        rustix::fs::ftruncate(&file, 0).map_err(failed("truncate", &request.path))?;
    }
    Ok(Opened::File(file.into()))
}

/// What a handle is of.
#[derive(Debug)]
pub(super) enum Opened {
    File(File),
    Directory(Lister),
}
