//! One operation, from its request to its reply.

use super::Files;
use super::error::{Result, error};
use super::handles::{Handles, lock};
use super::pool::Runner;
use super::read::{Lister, Page, Reader};
use super::stream::Stream;
use super::write::{HandleWriter, Writer};
use super::{attributes, copy, names, read, watch};
use crate::connection::Channel;
use bytes::Bytes;
use msb_wire::limits::MAX_DATA;
use msb_wire::{
    FsDone, FsError, FsErrorKind, FsMessage, FsOp, FsReply, FsRequest, FsWrite, WireError,
};
use rustix::io::Errno;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use tokio::task::AbortHandle;

/// An operation that is under way on a channel. Dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Operation {
    stream: Rc<Stream>,
    task: AbortHandle,
}

impl Operation {
    /// Begins an operation.
    pub(crate) fn start(
        files: Option<&Rc<Files>>,
        handles: &Rc<Handles>,
        channel: Channel,
        request: FsRequest,
    ) -> Operation {
        let receives = request.op.receives_data();
        let stream = Rc::new(Stream::new(channel, receives, request.window));
        let task = Task { files: files.cloned(), handles: Rc::clone(handles) };
        let own = Rc::clone(&stream);
        let task = tokio::task::spawn_local(async move {
            let subject = request.op.path().to_vec();
            let last = match task.perform(&own, request).await {
                Ok(reply) => FsMessage::Reply(reply),
                Err(error) => FsMessage::Failed(with_subject(error, subject)),
            };
            own.finish(last);
        });
        Operation { stream, task: task.abort_handle() }
    }

    /// Takes data of the host.
    pub(crate) fn receive(&self, data: Bytes) -> std::result::Result<(), WireError> {
        self.stream.receive(data)
    }

    /// Takes the end of the host's data.
    pub(crate) fn complete(&self) -> std::result::Result<(), WireError> {
        self.stream.complete()
    }

    /// Takes credit of the host.
    pub(crate) fn grant(&self, limit: u64) {
        self.stream.grant(limit);
    }

    /// Looks again whether the connection has room.
    pub(crate) fn wake(&self) {
        self.stream.wake();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An error that names no path is about that of the request.
fn with_subject(error: FsError, path: Vec<u8>) -> FsError {
    match error.path.is_empty() {
        true => FsError { path, ..error },
        false => error,
    }
}

/// What an operation uses.
struct Task {
    files: Option<Rc<Files>>,
    handles: Rc<Handles>,
}

impl Task {
    async fn perform(self, stream: &Stream, request: FsRequest) -> Result<FsReply> {
        let name = request.op.name();
        let unsupported = || {
            let why = "not supported by this agent";
            Err(error(FsErrorKind::Unsupported, Errno::OPNOTSUPP, name, b"", why))
        };
        let Some(files) = &self.files else { return unsupported() };
        let runner = files.runner(request.user.as_deref()).await?;
        let root = Arc::clone(&files.root);
        let step = match request.op {
            FsOp::Read { path, offset, length, special } => {
                let open = move || read::open(&root, path, (offset, length), special);
                let (reader, opened) = runner.run(open).await??;
                stream.send_opened(opened);
                return send(&runner, stream, reader).await;
            }
            FsOp::ReadAt { handle, offset, length } => {
                let file = self.handles.file(name, handle)?;
                let reader = Reader::new(file, Vec::new(), offset, length)?;
                return send(&runner, stream, reader).await;
            }
            FsOp::Write(request) => return write(&runner, stream, root, request).await,
            FsOp::WriteAt { handle, offset } => {
                let writer = HandleWriter::new(self.handles.file(name, handle)?, offset)?;
                return write_at(&runner, stream, writer).await;
            }
            FsOp::Open(request) => {
                let opened = runner.run(move || read::open_handle(&root, &request)).await??;
                return self.handles.add(&runner, opened).map(FsReply::Handle);
            }
            FsOp::CloseHandle { handle, sync } => {
                let handle = self.handles.take(handle)?;
                return handle.finish(move |handle| handle.close(sync)).await.map(done);
            }
            FsOp::List { path } => {
                let lister = runner.run(move || Lister::open(&root, path)).await??;
                let lister = Arc::new(Mutex::new(lister));
                return list(&runner, stream, lister, usize::MAX).await;
            }
            FsOp::ReadDir { handle, limit } => {
                let lister = self.handles.directory(name, handle)?;
                let limit = limit.map_or(usize::MAX, |limit| limit as usize);
                return list(&runner, stream, lister, limit).await;
            }
            FsOp::StatHandle { handle } => {
                let handle = self.handles.get(name, handle)?;
                let stat = move || {
                    handle.with_fd(|fd| {
                        attributes::stat_open(fd).map_err(super::error::failed("stat", b""))
                    })
                };
                return runner.run(stat).await?.map(FsReply::Stat);
            }
            FsOp::SetStatHandle { handle, attributes: new } => {
                let handle = self.handles.get(name, handle)?;
                let set = move || handle.with_fd(|fd| attributes::set_open(fd, &new));
                return runner.run(set).await?.map(done);
            }
            FsOp::RemoveDir { path, recursive } => {
                let remove = move |is_cancelled: &dyn Fn() -> bool| {
                    names::remove_directory(&root, &path, recursive, is_cancelled)
                };
                let entries = runner.run_long(remove).await??;
                return Ok(FsReply::Done(FsDone { entries, ..FsDone::default() }));
            }
            FsOp::Copy { from, to, recursive } => {
                return copy::copy_inside(files, &runner, from, to, recursive).await;
            }
            FsOp::CopyIn(request) => return copy::copy_in(files, &runner, stream, request).await,
            FsOp::CopyOut(request) => {
                return copy::copy_out(&runner, stream, root, request).await;
            }
            FsOp::Watch { path, recursive } => {
                let shared = (root, Arc::clone(&files.watches));
                return watch::watch(&runner, stream, shared, (path, recursive)).await;
            }
            FsOp::Unknown => return unsupported(),
            op => op,
        };
        runner.run(move || on_names(&root, step)).await?
    }
}

/// Performs an operation of one step.
fn on_names(root: &super::Root, op: FsOp) -> Result<FsReply> {
    match op {
        FsOp::Stat { path, follow } => attributes::stat(root, &path, follow).map(FsReply::Stat),
        FsOp::SetStat { path, follow, attributes: new } => {
            attributes::set(root, &path, follow, &new).map(done)
        }
        FsOp::Mkdir { path, parents, mode } => names::mkdir(root, &path, parents, mode).map(done),
        FsOp::Remove { path } => names::remove(root, &path).map(done),
        FsOp::Rename { from, to, no_replace } => {
            names::rename(root, &from, &to, no_replace).map(done)
        }
        FsOp::Symlink { target, path } => names::symlink(root, &target, &path).map(done),
        FsOp::ReadLink { path } => names::read_link(root, &path).map(FsReply::Path),
        FsOp::RealPath { path } => names::real_path(root, &path).map(FsReply::Path),
        FsOp::Exists { path } => names::exists(root, &path).map(FsReply::Exists),
        op => {
            let why = "not supported by this agent";
            Err(error(FsErrorKind::Unsupported, Errno::OPNOTSUPP, op.name(), b"", why))
        }
    }
}

fn done(_: ()) -> FsReply {
    FsReply::Done(FsDone::default())
}

/// Sends the content of a file.
async fn send(runner: &Runner, stream: &Stream, reader: Reader) -> Result<FsReply> {
    let (mut reader, mut bytes) = (runner.keep(reader), 0);
    loop {
        let most = stream.room().await.min(MAX_DATA);
        let data = reader.with(move |reader| reader.next(most)).await?;
        if data.is_empty() {
            return Ok(FsReply::Done(FsDone { bytes, ..FsDone::default() }));
        }
        bytes += data.len() as u64;
        stream.send(data.into()).await;
    }
}

/// Sends the entries of a directory.
async fn list(
    runner: &Runner,
    stream: &Stream,
    lister: Arc<Mutex<Lister>>,
    limit: usize,
) -> Result<FsReply> {
    let (mut lister, mut sent) = (runner.keep(lister), 0);
    while sent < limit {
        stream.room().await;
        let next = move |lister: &mut Arc<Mutex<Lister>>| lock(lister)?.next(limit - sent);
        let Page { payload, entries, is_last } = lister.with(next).await?;
        sent += entries;
        if entries > 0 {
            stream.send(payload.into()).await;
        }
        if is_last {
            break;
        }
    }
    Ok(FsReply::Done(FsDone { entries: sent as u64, ..FsDone::default() }))
}

/// Writes a file from the host's data.
async fn write(
    runner: &Runner,
    stream: &Stream,
    root: Arc<super::Root>,
    request: FsWrite,
) -> Result<FsReply> {
    let writer = runner.run(move || Writer::open(&root, request)).await??;
    let mut writer = runner.keep(writer);
    while let Some(data) = stream.next().await {
        let length = data.len();
        writer.with(move |writer| writer.write(&data)).await?;
        stream.release(length);
    }
    let bytes = writer.finish(Writer::finish).await?;
    Ok(FsReply::Done(FsDone { bytes, ..FsDone::default() }))
}

/// Writes to an open file from the host's data.
async fn write_at(runner: &Runner, stream: &Stream, writer: HandleWriter) -> Result<FsReply> {
    let mut writer = runner.keep(writer);
    while let Some(data) = stream.next().await {
        let length = data.len();
        writer.with(move |writer| writer.write(&data)).await?;
        stream.release(length);
    }
    let bytes = writer.finish(|writer| Ok(writer.written)).await?;
    Ok(FsReply::Done(FsDone { bytes, ..FsDone::default() }))
}
