//! Copies of files and trees: out of the sandbox, into it, and inside it.

use super::Files;
use super::error::{Result, busy, failed, invalid};
use super::pack::{PackReader, Packer};
use super::pool::Runner;
use super::root::{Location, NAME, Root, check, kind_at};
use super::stream::Stream;
use super::unpack::unpack;
use bytes::{Buf, Bytes};
use crossbeam_channel::{Receiver, unbounded};
use msb_wire::{FsCopyIn, FsCopyOut, FsDone, FsOpened, FsReply};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

const COPY: &str = "copy";
/// Copies into the sandbox and inside it that run at once: each has a thread (a count).
pub(super) const COPIES: usize = 16;
/// How long a copy waits for others.
const PATIENCE: Duration = Duration::from_secs(10);

async fn permit(copies: &Semaphore) -> Result<SemaphorePermit<'_>> {
    match timeout(PATIENCE, copies.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy(COPY, b"", "too many copies run at once")),
    }
}

/// Sends a file or tree as an archive.
pub(super) async fn copy_out(
    runner: &Runner,
    stream: &Stream,
    root: Arc<Root>,
    request: FsCopyOut,
) -> Result<FsReply> {
    let open = move || {
        check(COPY, &request.path)?;
        let FsCopyOut { path, name, follow } = request;
        let place = if follow { root.target(&path) } else { root.place(&path) };
        let place = place.map_err(failed("open", &path))?;
        let stat = super::attributes::stat_at(&place.directory, &place.name);
        let stat = stat.map_err(failed("stat", &path))?;
        let place = Location { path, ..place };
        Ok((Packer::new(&place, &name)?, FsOpened { stat: Some(stat) }))
    };
    let (packer, opened) = runner.run(open).await??;
    stream.send_opened(opened);
    let mut packer = runner.keep(packer);
    loop {
        let most = stream.room().await;
        let piece = packer.with(move |packer| packer.next(most)).await?;
        if piece.is_empty() {
            return packer.finish(|mut packer| Ok(packer.done())).await.map(FsReply::Done);
        }
        stream.send(piece.into()).await;
    }
}

/// Unpacks the host's archive.
pub(super) async fn copy_in(
    files: &Files,
    runner: &Runner,
    stream: &Stream,
    request: FsCopyIn,
) -> Result<FsReply> {
    let _permit = permit(&files.copies).await?;
    let (send, pieces) = unbounded();
    let (consumed, mut released) = mpsc::unbounded_channel();
    let input = Input { pieces, piece: Bytes::new(), length: 0, is_complete: false, consumed };
    let root = Arc::clone(&files.root);
    let job = runner.run(move || {
        check(COPY, &request.path)?;
        let flags = NAME | OFlags::DIRECTORY;
        let directory = root.open_path(&request.path, flags);
        unpack(&directory.map_err(failed("open", &request.path))?, &request, input)
    });
    // Bounded by the credit, which returns when a piece was unpacked.
    let feed = async {
        let mut is_complete = false;
        loop {
            tokio::select! {
                piece = stream.next(), if !is_complete => {
                    is_complete = piece.is_none();
                    // Fails if the job has ended, which the other branch sees.
                    let _ = send.send(piece);
                }
                length = released.recv() => match length {
                    Some(length) => stream.release(length),
                    None => pending().await,
                }
            }
        }
    };
    tokio::select! {
        result = job => result?.map(FsReply::Done),
        result = feed => result,
    }
}

/// The host's archive, as its pieces arrive.
struct Input {
    /// `None` is the end; without it, the host has given up.
    pieces: Receiver<Option<Bytes>>,
    piece: Bytes,
    /// Length of the whole piece, until its credit is given back.
    length: usize,
    is_complete: bool,
    consumed: mpsc::UnboundedSender<usize>,
}

impl io::Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_complete {
            match self.pieces.recv() {
                Ok(Some(piece)) => {
                    self.length = piece.len();
                    self.piece = piece;
                }
                Ok(None) => self.is_complete = true,
                Err(_) => return Err(io::Error::other("the host has given up")),
            }
            self.release();
        }
        let count = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        self.release();
        Ok(count)
    }
}

impl Input {
    /// Gives back the credit of a piece that is used up.
    fn release(&mut self) {
        if self.piece.is_empty() && !self.is_complete {
            // Nobody listens once the host has given up.
            let _ = self.consumed.send(std::mem::take(&mut self.length));
        }
    }
}

/// Copies a file or tree inside the sandbox.
pub(super) async fn copy_inside(
    files: &Files,
    runner: &Runner,
    from: Vec<u8>,
    to: Vec<u8>,
    recursive: bool,
) -> Result<FsReply> {
    let _permit = permit(&files.copies).await?;
    let root = Arc::clone(&files.root);
    let keep_owner = runner.is_root();
    let copy = move |is_cancelled: &dyn Fn() -> bool| {
        check(COPY, &from)?;
        check(COPY, &to)?;
        let source = root.target(&from).map_err(failed("open", &from))?;
        let source = Location { path: from, ..source };
        let target = root.target(&to).map_err(failed("open", &to))?;
        check_source(&source, &target, recursive)?;
        let packer = Packer::new(&source, &target.name)?;
        let (parent, _) = super::root::split(&target.path);
        let request = FsCopyIn { path: parent.to_vec(), keep_owner, ..FsCopyIn::default() };
        let mut reader = PackReader::new(packer, is_cancelled);
        let unpacked = unpack(&target.directory, &request, &mut reader);
        let packed = reader.packer.done();
        match (reader.error, unpacked) {
            (Some(error), _) | (None, Err(error)) => Err(error),
            (None, Ok(unpacked)) => Ok(joined(packed, unpacked)),
        }
    };
    runner.run_long(copy).await?.map(FsReply::Done)
}

fn joined(packed: FsDone, mut unpacked: FsDone) -> FsDone {
    unpacked.skipped_total += packed.skipped_total;
    let room = msb_wire::limits::FS_SKIPPED.saturating_sub(unpacked.skipped.len());
    unpacked.skipped.extend(packed.skipped.into_iter().take(room));
    unpacked
}

/// Checks that a source may be copied to a target.
fn check_source(source: &Location, target: &Location, recursive: bool) -> Result<()> {
    let failed = failed(COPY, &source.path);
    match kind_at(&source.directory, &source.name).map_err(&failed)? {
        None => return Err(failed(Errno::NOENT)),
        Some(FileType::Directory) if !recursive => return Err(failed(Errno::ISDIR)),
        Some(FileType::Directory) => {}
        Some(_) => return Ok(()),
    }
    let directory = source.open(NAME | OFlags::DIRECTORY, Mode::empty()).map_err(&failed)?;
    match is_below(&target.directory, &directory).map_err(&failed)? {
        true => Err(invalid(COPY, &source.path, "it cannot be copied into itself")),
        false => Ok(()),
    }
}

/// Returns whether a directory is another one, or below it.
fn is_below(directory: &OwnedFd, above: &OwnedFd) -> rustix::io::Result<bool> {
    let id = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|found| (found.st_dev, found.st_ino));
    let above = id(above)?;
    let flags = NAME | OFlags::DIRECTORY;
    let mut at = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    loop {
        let own = id(&at)?;
        let parent = rustix::fs::openat(&at, c"..", flags, Mode::empty())?;
        if own == above {
            return Ok(true);
        }
        if id(&parent)? == own {
            return Ok(false);
        }
        at = parent;
    }
}
