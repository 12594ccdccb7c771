//! Downloads blobs: concurrently, resumed after a failure, with their digests verified.

use crate::remote::{Remote, RemoteError};
use futures_util::stream::{FuturesUnordered, StreamExt};
use msb_image::{Blob, Digest, Error, ErrorKind, Hasher, Result, Store, StoreLock};
use reqwest::StatusCode;
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Number of retries without progress.
const RETRIES: u32 = 4;
/// Delay before the first retry; doubled for each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// Minimum interval between reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// Source and destination of downloads.
pub(crate) struct Transfer<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) store: &'a Store,
}

/// Why a download failed.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// On this host, or because of the content.
    Local(Error),
    /// In the registry: of the blob with this digest.
    Remote(Digest, Box<RemoteError>),
}

type TransferResult<T> = std::result::Result<T, TransferError>;

impl From<Error> for TransferError {
    fn from(error: Error) -> TransferError {
        TransferError::Local(error)
    }
}

/// Progress of all downloads of an image.
struct SharedProgress<'a> {
    done: Cell<u32>,
    bytes: Cell<u64>,
    reported: Cell<Option<Instant>>,
    on_progress: RefCell<&'a mut dyn FnMut(u32, u64)>,
}

impl SharedProgress<'_> {
    fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.report(false);
    }

    /// Subtracts bytes that are discarded.
    fn subtract(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    fn report(&self, always: bool) {
        if always || self.reported.get().is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
            self.reported.set(Some(Instant::now()));
            (self.on_progress.borrow_mut())(self.done.get(), self.bytes.get());
        }
    }
}

/// Downloads blobs into the store, `parallel` of them concurrently.
pub(crate) async fn download(
    transfer: &Transfer<'_>,
    wanted: &[Blob],
    parallel: usize,
    on_progress: &mut dyn FnMut(u32, u64),
) -> TransferResult<()> {
    let shared = SharedProgress {
        done: Cell::new(0),
        bytes: Cell::new(0),
        reported: Cell::new(None),
        on_progress: RefCell::new(on_progress),
    };
    let mut pending = wanted.iter();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < parallel
            && let Some(blob) = pending.next()
        {
            running.push(download_blob(transfer, blob, &shared));
        }
        match running.next().await {
            Some(result) => result?,
            None => return Ok(()),
        }
        shared.done.set(shared.done.get() + 1);
        shared.report(true);
    }
}

/// Downloads one blob, unless another process has done so.
async fn download_blob(
    transfer: &Transfer<'_>,
    blob: &Blob,
    shared: &SharedProgress<'_>,
) -> TransferResult<()> {
    let store = transfer.store;
    let _lock = lock_digest(store, &blob.digest).await?;
    if store.blob(&blob.digest).is_file() {
        shared.add(blob.size);
        return Ok(());
    }
    let path = store.partial(&blob.digest);
    let mut partial = PartialBlob::open(&path, blob.size)?;
    shared.add(partial.length);
    let resumed = partial.length > 0;
    let mut result = partial.fill(transfer, blob, shared).await;
    if resumed
        && matches!(&result, Err(TransferError::Local(error)) if error.kind == ErrorKind::BadImage)
    {
        // The partial file may have been corrupt, and not what was downloaded.
        shared.subtract(partial.length);
        partial.restart()?;
        result = partial.fill(transfer, blob, shared).await;
    }
    match result {
        Ok(()) => Ok(store.adopt_blob(&path, &blob.digest)?),
        Err(TransferError::Local(error)) if error.kind == ErrorKind::BadImage => {
            // It cannot be resumed.
            let _ = std::fs::remove_file(&path);
            Err(TransferError::Local(error))
        }
        Err(error) => Err(error),
    }
}

/// Waits for another writer of the same blob, on another thread.
async fn lock_digest(store: &Store, digest: &Digest) -> Result<StoreLock> {
    let (store, digest) = (store.clone(), digest.clone());
    let locked = tokio::task::spawn_blocking(move || store.lock_digest(&digest)).await;
    locked.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Io, format!("cannot lock a blob: {error}")))
    })
}

/// A partial download.
struct PartialBlob<'a> {
    path: &'a Path,
    file: File,
    hasher: Hasher,
    length: u64,
}

impl<'a> PartialBlob<'a> {
    fn open(path: &'a Path, size: u64) -> Result<PartialBlob<'a>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let failed = |error| Error::io("open", path, error);
        let mut file = options.open(path).map_err(failed)?;
        let (mut hasher, mut length) = (Hasher::default(), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            hasher.update(buffer.get(..read).unwrap_or_default());
            length += read as u64;
            if read == 0 {
                break;
            }
        }
        let mut partial = PartialBlob { path, file, hasher, length };
        if length > size {
            partial.restart()?;
        }
        Ok(partial)
    }

    fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        let restarted = self.file.set_len(0).and_then(|()| self.file.rewind());
        restarted.map_err(|error| Error::io("truncate", self.path, error))?;
        (self.hasher, self.length) = (Hasher::default(), 0);
        Ok(())
    }

    /// Downloads the rest, over several connections if necessary, and verifies the digest.
    async fn fill(
        &mut self,
        transfer: &Transfer<'_>,
        blob: &Blob,
        shared: &SharedProgress<'_>,
    ) -> TransferResult<()> {
        let mut failures = 0;
        while self.length < blob.size {
            let before = self.length;
            let error = match self.receive(transfer, blob, shared).await {
                Ok(()) => RemoteError::Cut,
                Err(ReceiveError::Remote(error)) => error,
                Err(ReceiveError::Local(error)) => return Err(error.into()),
            };
            failures = if self.length > before { 0 } else { failures };
            if self.length == blob.size {
                break;
            }
            if failures >= RETRIES || !error.is_transient() {
                return Err(TransferError::Remote(blob.digest.clone(), Box::new(error)));
            }
            tokio::time::sleep(FIRST_BACKOFF * 2_u32.pow(failures)).await;
            failures += 1;
        }
        let found = self.hasher.clone().finish();
        if found != blob.digest && blob.size == 0 {
            let text = format!("cannot download {}: its manifest gives no size", blob.digest);
            return Err(Error::bad(text).into());
        }
        if found != blob.digest {
            let text = format!("a download has the digest {found}, not {}", blob.digest);
            return Err(Error::bad(text).into());
        }
        Ok(())
    }

    /// Downloads over one connection until it ends.
    async fn receive(
        &mut self,
        transfer: &Transfer<'_>,
        blob: &Blob,
        shared: &SharedProgress<'_>,
    ) -> std::result::Result<(), ReceiveError> {
        let path = format!("blobs/{}", blob.digest);
        let response = transfer.remote.get(&path, "*/*", self.length).await?;
        if self.length > 0 && response.status() != StatusCode::PARTIAL_CONTENT {
            // The registry does not support ranges.
            shared.subtract(self.length);
            self.restart()?;
        }
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(RemoteError::from)?;
            if self.length + chunk.len() as u64 > blob.size {
                let text = format!("a download is longer than {} bytes", blob.size);
                return Err(Error::bad(text).into());
            }
            self.file.write_all(&chunk).map_err(|error| Error::io("write", self.path, error))?;
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            shared.add(chunk.len() as u64);
        }
        Ok(())
    }
}

/// Why a connection ended early.
enum ReceiveError {
    Local(Error),
    Remote(RemoteError),
}

impl From<Error> for ReceiveError {
    fn from(error: Error) -> ReceiveError {
        ReceiveError::Local(error)
    }
}

impl From<RemoteError> for ReceiveError {
    fn from(error: RemoteError) -> ReceiveError {
        ReceiveError::Remote(error)
    }
}
