//! Streams of content and of events.

use super::failure::of_failure;
use super::types::FsEvent;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::runtime;
use bytes::{Bytes, BytesMut};
use msb_client::FsCore;
use msb_wire::limits::MAX_DATA;
use msb_wire::{FsReply, WireError, decode_events};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Instant;

/// Most bytes that are collected in memory.
const COLLECT_MAX: usize = 4 << 30;

/// One operation, and the path that its errors name.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) core: FsCore,
    pub(super) subject: Vec<u8>,
}

impl Operation {
    /// Waits for the result.
    pub(super) async fn result(&self) -> MicrosandboxResult<FsReply> {
        self.core.result().await.map_err(|failure| of_failure(failure, &self.subject))
    }

    pub(super) async fn data(&self) -> MicrosandboxResult<Option<Bytes>> {
        self.core.data().await.map_err(|failure| of_failure(failure, &self.subject))
    }

    pub(super) async fn opened(&self) -> MicrosandboxResult<msb_wire::FsOpened> {
        self.core.opened().await.map_err(|failure| of_failure(failure, &self.subject))
    }

    pub(super) async fn write(&self, data: &[u8]) -> MicrosandboxResult<()> {
        for piece in data.chunks(MAX_DATA) {
            let mut piece = Bytes::copy_from_slice(piece);
            let written = self.core.write(&mut piece).await;
            written.map_err(|failure| of_failure(failure, &self.subject))?;
        }
        Ok(())
    }

    /// Collects all data.
    pub(super) async fn collect(&self) -> MicrosandboxResult<Bytes> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(data) = self.data().await? {
            if all.len() + first.len() + data.len() > COLLECT_MAX {
                let context = format!("more than {COLLECT_MAX} bytes; read them as a stream");
                return Err(Error::new(ErrorKind::LimitReached, Origin::Host, context));
            }
            match first.is_empty() && all.is_empty() {
                true => first = data,
                false => {
                    all.extend_from_slice(&std::mem::take(&mut first));
                    all.extend_from_slice(&data);
                }
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
}

/// The content of a file, piece by piece. Dropping it gives the rest up.
#[derive(Debug)]
pub struct FsReadStream {
    pub(super) operation: Operation,
    pub(super) size: Option<u64>,
}

impl FsReadStream {
    /// Returns the length of the file when it was opened, if a file was.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Waits for the next piece; `None` at the end. Dropping the future loses nothing.
    pub async fn recv(&self) -> MicrosandboxResult<Option<Bytes>> {
        runtime::check_fork()?;
        self.operation.data().await
    }

    /// As [`FsReadStream::recv`], without an executor: blocks up to a deadline; `None` if it passes
    /// first.
    pub fn recv_until(
        &self,
        deadline: Option<Instant>,
    ) -> Option<MicrosandboxResult<Option<Bytes>>> {
        let taken = self.operation.core.data_until(deadline)?;
        Some(taken.map_err(|failure| of_failure(failure, &self.operation.subject)))
    }

    /// Returns a descriptor that polls readable while there is data or the end.
    pub fn fd(&self) -> MicrosandboxResult<BorrowedFd<'_>> {
        descriptor(&self.operation.core)
    }

    /// Gives the rest up: a waiting call fails. Idempotent.
    pub fn close_now(&self) {
        self.operation.core.close();
    }

    /// Waits for all of it.
    pub async fn collect(self) -> MicrosandboxResult<Bytes> {
        runtime::check_fork()?;
        self.operation.collect().await
    }
}

/// Writes a file, piece by piece. The file has its new content once [`FsWriteSink::close`] has
/// succeeded. Dropped without it, the old content stays, or no file.
#[derive(Debug)]
pub struct FsWriteSink {
    pub(super) operation: Operation,
}

impl FsWriteSink {
    /// Writes all of `data`, and waits while the sandbox is behind. Fails with the reason if the
    /// file cannot be written any more.
    pub async fn write(&self, data: impl AsRef<[u8]>) -> MicrosandboxResult<()> {
        runtime::check_fork()?;
        self.operation.write(data.as_ref()).await
    }

    /// Writes as much as there is room for, and waits for room until the deadline. Returns how many
    /// bytes were taken; `None` if there was no room.
    pub fn write_until(
        &self,
        data: &[u8],
        deadline: Option<Instant>,
    ) -> Option<MicrosandboxResult<usize>> {
        let data = Bytes::copy_from_slice(data.get(..MAX_DATA).unwrap_or(data));
        let taken = self.operation.core.write_until(&data, deadline)?;
        Some(taken.map_err(|failure| of_failure(failure, &self.operation.subject)))
    }

    /// Returns a descriptor that polls readable while there is room or the end.
    pub fn fd(&self) -> MicrosandboxResult<BorrowedFd<'_>> {
        descriptor(&self.operation.core)
    }

    /// Completes the file: the sandbox has closed it without error when this succeeds.
    pub async fn close(self) -> MicrosandboxResult<()> {
        runtime::check_fork()?;
        self.operation.core.finish();
        self.operation.result().await.map(drop)
    }

    /// Ends the content; [`FsWriteSink::closed_until`] waits for the file to be complete.
    pub fn finish_now(&self) {
        self.operation.core.finish();
    }

    /// Waits until the file is complete after [`FsWriteSink::finish_now`]; `None` if the deadline
    /// passes first.
    pub fn closed_until(&self, deadline: Option<Instant>) -> Option<MicrosandboxResult<()>> {
        let ended = self.operation.core.result_until(deadline)?;
        Some(ended.map(drop).map_err(|failure| of_failure(failure, &self.operation.subject)))
    }
}

/// The changes of a file or of what is in a directory. Dropping it ends the watch.
#[derive(Debug)]
pub struct FsWatch {
    pub(super) operation: Operation,
    pub(super) queued: Mutex<VecDeque<FsEvent>>,
}

impl FsWatch {
    /// Waits for the next change; `None` once the watched path was removed. Dropping the future
    /// loses nothing.
    pub async fn recv(&self) -> MicrosandboxResult<Option<FsEvent>> {
        runtime::check_fork()?;
        loop {
            if let Some(event) = msb_client::lock(&self.queued).pop_front() {
                return Ok(Some(event));
            }
            let Some(page) = self.operation.data().await? else { return Ok(None) };
            let events = decode_events(&page).map_err(malformed)?;
            msb_client::lock(&self.queued).extend(events.into_iter().map(FsEvent::from));
        }
    }
}

pub(super) fn malformed(error: WireError) -> Error {
    let context = format!("the agent broke the protocol: {error}");
    Error::new(ErrorKind::Protocol, Origin::Agent, context)
}

fn descriptor(core: &FsCore) -> MicrosandboxResult<BorrowedFd<'_>> {
    core.fd().map_err(|error| Error::io("cannot make an event descriptor", error))
}
