//! Downloading blobs: several at once, each from where it stopped, each verified.

use futures_util::stream::{FuturesUnordered, StreamExt};
use msb_image::{Blob, Digest, Error, ErrorKind, Hasher, Result, Store};
use oci_client::client::BlobResponse;
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::{Client, Reference as Remote};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a transfer that broke off is taken up again without a byte in between.
const RETRIES: u32 = 4;
/// How long the first of these waits; each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How often it is said how far it is.
const PERIOD: Duration = Duration::from_millis(50);

/// From where, and to where.
pub(crate) struct Transfer<'a> {
    pub(crate) client: &'a Client,
    pub(crate) remote: &'a Remote,
    pub(crate) store: &'a Store,
}

/// Why a transfer failed, and on which side.
#[derive(Debug)]
pub(crate) enum Failed {
    Here(Error),
    There(Box<OciDistributionError>),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Here(error)
    }
}

impl From<OciDistributionError> for Failed {
    fn from(error: OciDistributionError) -> Failed {
        Failed::There(Box::new(error))
    }
}

/// What all transfers of an image share.
struct Shared<'a> {
    done: Cell<u32>,
    bytes: Cell<u64>,
    said: Cell<Option<Instant>>,
    each: RefCell<&'a mut dyn FnMut(u32, u64)>,
}

impl Shared<'_> {
    fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_add(bytes));
        self.tell(false);
    }

    /// A part that turned out to be worth nothing.
    fn take_back(&self, bytes: u64) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    fn tell(&self, always: bool) {
        if always || self.said.get().is_none_or(|said| said.elapsed() >= PERIOD) {
            self.said.set(Some(Instant::now()));
            (self.each.borrow_mut())(self.done.get(), self.bytes.get());
        }
    }
}

/// Gets blobs into the store, so many at once.
pub(crate) async fn download(
    transfer: &Transfer<'_>,
    wanted: &[Blob],
    parallel: usize,
    each: &mut dyn FnMut(u32, u64),
) -> std::result::Result<(), Failed> {
    let shared = Shared {
        done: Cell::new(0),
        bytes: Cell::new(0),
        said: Cell::new(None),
        each: RefCell::new(each),
    };
    let mut waiting = wanted.iter();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < parallel
            && let Some(blob) = waiting.next()
        {
            running.push(one(transfer, blob, &shared));
        }
        match running.next().await {
            Some(result) => result?,
            None => return Ok(()),
        }
        shared.done.set(shared.done.get() + 1);
        shared.tell(true);
    }
}

/// Gets one blob, unless somebody else does so meanwhile.
async fn one(
    transfer: &Transfer<'_>,
    blob: &Blob,
    shared: &Shared<'_>,
) -> std::result::Result<(), Failed> {
    let store = transfer.store;
    let _lock = hold(store, &blob.digest).await?;
    if store.blob(&blob.digest).is_file() {
        shared.add(blob.size);
        return Ok(());
    }
    let path = store.partial(&blob.digest);
    let mut part = Part::open(&path, blob.size)?;
    shared.add(part.length);
    let resumed = part.length > 0;
    let mut result = part.fill(transfer, blob, shared).await;
    if resumed && matches!(&result, Err(Failed::Here(error)) if error.kind == ErrorKind::BadImage) {
        // The part that was there was broken, and not what came.
        shared.take_back(part.length);
        part.restart()?;
        result = part.fill(transfer, blob, shared).await;
    }
    match result {
        Ok(()) => Ok(store.adopt_blob(&path, &blob.digest)?),
        Err(Failed::Here(error)) if error.kind == ErrorKind::BadImage => {
            // Worth nothing to anybody.
            let _ = std::fs::remove_file(&path);
            Err(Failed::Here(error))
        }
        Err(error) => Err(error),
    }
}

/// Waits for whoever makes the same blob, without keeping the others from going on.
async fn hold(store: &Store, digest: &Digest) -> Result<msb_image::Hold> {
    let (store, digest) = (store.clone(), digest.clone());
    let waited = tokio::task::spawn_blocking(move || store.hold_digest(&digest)).await;
    waited.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, format!("cannot wait: {error}"))))
}

/// A blob of which a part is there.
struct Part<'a> {
    path: &'a Path,
    file: File,
    hasher: Hasher,
    length: u64,
}

impl<'a> Part<'a> {
    fn open(path: &'a Path, size: u64) -> Result<Part<'a>> {
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
        let mut part = Part { path, file, hasher, length };
        if length > size {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        let restarted = self.file.set_len(0).and_then(|()| self.file.rewind());
        restarted.map_err(|error| Error::io("shorten", self.path, error))?;
        (self.hasher, self.length) = (Hasher::default(), 0);
        Ok(())
    }

    /// Gets what is missing, also over several connections, and verifies the whole.
    async fn fill(
        &mut self,
        transfer: &Transfer<'_>,
        blob: &Blob,
        shared: &Shared<'_>,
    ) -> std::result::Result<(), Failed> {
        let mut failures = 0;
        while self.length < blob.size {
            let before = self.length;
            match self.go_on(transfer, blob, shared).await {
                Ok(()) if self.length > before => failures = 0,
                Ok(()) => {
                    let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                    failures = pause(failures, error.into()).await?;
                }
                Err(Failed::There(error)) if is_passing(&error) => {
                    failures = if self.length > before { 0 } else { failures };
                    failures = pause(failures, *error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let found = self.hasher.clone().finish();
        if found != blob.digest {
            let text = format!("what came has the digest {found}, not {}", blob.digest);
            return Err(Error::bad(text).into());
        }
        Ok(())
    }

    /// One connection's worth.
    async fn go_on(
        &mut self,
        transfer: &Transfer<'_>,
        blob: &Blob,
        shared: &Shared<'_>,
    ) -> std::result::Result<(), Failed> {
        let descriptor = OciDescriptor {
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let mut stream = if self.length == 0 {
            transfer.client.pull_blob_stream(transfer.remote, &descriptor).await?.stream
        } else {
            let offset = self.length;
            let client = transfer.client;
            match client
                .pull_blob_stream_partial(transfer.remote, &descriptor, offset, None)
                .await?
            {
                BlobResponse::Partial(stream) => stream.stream,
                // A registry that knows no ranges starts again.
                BlobResponse::Full(stream) => {
                    shared.take_back(self.length);
                    self.restart()?;
                    stream.stream
                }
            }
        };
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(OciDistributionError::from)?;
            if self.length + chunk.len() as u64 > blob.size {
                return Err(Error::bad(format!("more came than the {} bytes", blob.size)).into());
            }
            self.file.write_all(&chunk).map_err(|error| Error::io("write", self.path, error))?;
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            shared.add(chunk.len() as u64);
        }
        Ok(())
    }
}

/// Whether the same question may have another answer in a moment.
fn is_passing(error: &OciDistributionError) -> bool {
    use OciDistributionError as Oci;
    match error {
        Oci::RequestError(_) | Oci::IoError(_) => true,
        Oci::ServerError { code, .. } => matches!(code, 429 | 500..=599),
        _ => false,
    }
}

/// Waits a while before the next try, or gives up.
async fn pause(failures: u32, error: OciDistributionError) -> std::result::Result<u32, Failed> {
    if failures >= RETRIES {
        return Err(error.into());
    }
    tokio::time::sleep(FIRST_WAIT * 2_u32.pow(failures)).await;
    Ok(failures + 1)
}
