//! One operation on files behind its handle.
//!
//! Dropping the handle gives the operation up. Every wait has two forms: a future, and a call that
//! blocks up to a deadline; a descriptor polls readable while neither would wait.

use crate::connection::Connection;
use crate::error::Error;
use crate::fs_queue::{FsChannel, FsFailure, FsQueue, WINDOW};
use crate::link::Route;
use bytes::Bytes;
use msb_wire::limits::TEXT;
use msb_wire::{
    FsError, FsErrorKind, FsMessage, FsOp, FsOpened, FsReply, FsRequest, Kind, Message,
};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// Linux's `errno` for "file name too long".
const ENAMETOOLONG: i32 = 36;

/// See the module.
#[derive(Debug)]
pub struct FsCore {
    connection: Arc<Connection>,
    id: u32,
    channel: Arc<FsChannel>,
}

/// Why an operation could not be requested.
#[derive(Debug)]
pub enum FsRefusal {
    /// The agent is too old.
    Unsupported,
    /// The request does not fit into a frame: what the kernel says about such a path.
    TooLong(FsError),
    /// The connection, or a bound of it.
    Connection(Error),
}

impl FsCore {
    /// Requests an operation. `user`: as whom.
    pub fn start(
        connection: &Arc<Connection>,
        user: Option<String>,
        op: FsOp,
    ) -> Result<FsCore, FsRefusal> {
        if !connection.has_files() {
            return Err(FsRefusal::Unsupported);
        }
        let operation = op.name();
        let channel = Arc::new(FsChannel::new(&op));
        let window = if op.sends_data() { WINDOW } else { 0 };
        let request = Message::Fs(FsMessage::Request(FsRequest { user, window, op }));
        let opened = connection
            .link
            .open(request, |id| (Route::Fs(Arc::clone(&channel)), id))
            .map_err(FsRefusal::Connection)?;
        let Some(id) = opened else { return Err(FsRefusal::TooLong(too_long(operation))) };
        Ok(FsCore { connection: Arc::clone(connection), id, channel })
    }

    /// Waits until the agent has begun an operation that it announces.
    pub async fn opened(&self) -> Result<FsOpened, FsFailure> {
        self.channel.queue.until(FsQueue::take_opened).await
    }

    /// Waits for data; `None` at the end. Dropping the future loses nothing.
    pub async fn data(&self) -> Result<Option<Bytes>, FsFailure> {
        let taken = self.channel.queue.until(FsQueue::take_data).await?;
        Ok(self.granted(taken))
    }

    /// As [`FsCore::data`], but blocks; `None` if the deadline passes first.
    pub fn data_until(
        &self,
        deadline: Option<Instant>,
    ) -> Option<Result<Option<Bytes>, FsFailure>> {
        let taken = self.channel.queue.sleep(deadline, FsQueue::take_data)?;
        Some(taken.map(|taken| self.granted(taken)))
    }

    /// Waits for the result.
    pub async fn result(&self) -> Result<FsReply, FsFailure> {
        self.channel.queue.until(|queue| queue.result()).await
    }

    /// As [`FsCore::result`], but blocks; `None` if the deadline passes first.
    pub fn result_until(&self, deadline: Option<Instant>) -> Option<Result<FsReply, FsFailure>> {
        self.channel.queue.sleep(deadline, |queue| queue.result())
    }

    /// Sends data as credit allows. What was sent before the future is dropped stays sent.
    pub async fn write(&self, data: &mut Bytes) -> Result<(), FsFailure> {
        while !data.is_empty() {
            let sent = self.channel.queue.until(|queue| self.send(queue, data)).await?;
            drop(data.split_to(sent));
        }
        Ok(())
    }

    /// As [`FsCore::write`], but blocks, and returns how much was taken; `None` if the deadline
    /// passes first.
    pub fn write_until(
        &self,
        data: &Bytes,
        deadline: Option<Instant>,
    ) -> Option<Result<usize, FsFailure>> {
        if data.is_empty() {
            return Some(Ok(0));
        }
        self.channel.queue.sleep(deadline, |queue| self.send(queue, data))
    }

    /// Ends the data: the agent completes the operation.
    pub fn finish(&self) {
        self.channel.queue.with(|queue| {
            if queue.finish() {
                // Under the lock, after all data. Fails only when the connection is lost, which
                // ends the operation, too.
                let _ = self.connection.link.send(self.id, Message::Fs(FsMessage::Eof));
            }
        });
    }

    /// Returns a descriptor that polls readable while a wait would end at once.
    pub fn fd(&self) -> std::io::Result<BorrowedFd<'_>> {
        self.channel.queue.fd()
    }

    /// Gives the operation up, and wakes every waiter. Idempotent.
    pub fn close(&self) {
        if self.channel.queue.with(FsQueue::close) {
            self.connection.link.close(self.id);
        }
    }

    fn granted(&self, taken: Option<(Bytes, Option<u64>)>) -> Option<Bytes> {
        let (data, grant) = taken?;
        if let Some(limit) = grant {
            self.connection.link.grant(self.id, limit);
        }
        Some(data)
    }

    /// Sends as much as there is credit for; `None` if there is none.
    fn send(&self, queue: &mut FsQueue, data: &Bytes) -> Option<Result<usize, FsFailure>> {
        let mut sent = 0;
        let pushed = self.connection.link.submit(|outbox| {
            while sent < data.len() {
                let step = queue.spend(data.len() - sent)?;
                if step == 0 {
                    break;
                }
                outbox.push_data(Kind::FsData, self.id, data.slice(sent..sent + step));
                sent += step;
            }
            Ok(())
        });
        match pushed {
            Ok(Err(failure)) => Some(Err(failure)),
            Ok(Ok(())) => (sent > 0).then_some(Ok(sent)),
            // The connection is lost, which the queue is about to hear; or this is a forked child.
            Err(_) => match self.connection.lost() {
                Some(lost) => Some(Err(FsFailure::Lost(lost))),
                None => Some(Err(FsFailure::Closed)),
            },
        }
    }
}

impl Drop for FsCore {
    fn drop(&mut self) {
        self.close();
    }
}

fn too_long(operation: &str) -> FsError {
    FsError {
        kind: FsErrorKind::of(ENAMETOOLONG),
        errno: ENAMETOOLONG,
        operation: operation.to_owned(),
        path: Vec::new(),
        message: format!("a path is too long; at most {TEXT} bytes are allowed"),
    }
}
