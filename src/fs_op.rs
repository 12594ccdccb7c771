//! Operations on files that continue behind their handles.
//!
//! Owns: content on its way between the caller and the sandbox, at most [`WINDOW`] bytes, and the
//! result. Invariant: closing the handle gives the operation up.

use super::async_op::AsyncOp;
use super::failure::{Failure, descriptor_failed, wrong};
use super::fs_info::Answer;
use super::fs_request::*;
use super::handle::{Object, msb_fs, open};
use super::status::MSB_E_INVALID;
use super::table::{Kind, Table};
use bytes::Bytes;
use microsandbox::pull::{Monitor, Ready, spawn};
use microsandbox::{Error, FsFailed, FsWriteOptions, MicrosandboxResult, Sandbox, SandboxFsOps};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use tokio::sync::Notify;

/// Most bytes that wait for the caller, or for the sandbox.
const WINDOW: usize = 256 << 10;

/// The object of a handle.
#[derive(Debug)]
pub(super) struct FsObject {
    pub(super) state: Monitor<State>,
    /// Notified when the caller has taken or added content, or finished it.
    moved: Notify,
    /// Notified when the handle is closed.
    closed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) op: AsyncOp<Arc<Answer>>,
    /// Details of the failure, if it is one of files.
    pub(super) failed: Option<FsFailed>,
    direction: Direction,
    content: VecDeque<Bytes>,
    queued: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// The operation has no content.
    None,
    FromSandbox,
    ToSandbox,
    /// The caller has sent all content.
    Finished,
}

impl Ready for State {
    fn is_ready(&self) -> bool {
        let is_ready = match self.direction {
            Direction::FromSandbox => self.queued > 0,
            Direction::ToSandbox => self.queued < WINDOW,
            Direction::None | Direction::Finished => false,
        };
        is_ready || self.op.is_ready()
    }
}

impl State {
    fn new(op: u32) -> State {
        let direction = match op {
            MSB_FS_OP_READ => Direction::FromSandbox,
            MSB_FS_OP_WRITE => Direction::ToSandbox,
            _ => Direction::None,
        };
        let (op, content) = (AsyncOp::new("fs"), VecDeque::new());
        State { op, failed: None, direction, content, queued: 0 }
    }

    fn push(&mut self, piece: Bytes) {
        self.queued += piece.len();
        self.content.push_back(piece);
    }

    fn pop(&mut self, most: usize) -> Option<Bytes> {
        let first = self.content.front_mut()?;
        let piece = first.split_to(most.min(first.len()));
        if first.is_empty() {
            self.content.pop_front();
        }
        self.queued -= piece.len();
        Some(piece)
    }

    /// Moves content to the caller; 0 bytes at the end, `None` if there is none yet.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Option<Result<usize, Failure>> {
        if let Err(closed) = self.op.check_open() {
            return Some(Err(closed));
        }
        if self.direction != Direction::FromSandbox {
            return Some(Err(wrong(MSB_E_INVALID, "the operation reads nothing")));
        }
        let Some(piece) = self.pop(buffer.len()) else {
            return self.op.result().map(|result| result.map(|_| 0));
        };
        for (place, byte) in buffer.iter_mut().zip(&piece) {
            *place = *byte;
        }
        Some(Ok(piece.len()))
    }

    /// Takes content of the caller; `None` if there is no room.
    pub(super) fn send(&mut self, data: &[u8]) -> Option<Result<usize, Failure>> {
        if self.direction != Direction::ToSandbox {
            let text = "the operation writes nothing, or its content is finished";
            return Some(Err(wrong(MSB_E_INVALID, text)));
        }
        if let Some(Err(failure)) = self.op.result() {
            return Some(Err(failure));
        }
        let data = data.get(..WINDOW - self.queued).unwrap_or(data);
        if data.is_empty() {
            return None;
        }
        self.push(Bytes::copy_from_slice(data));
        Some(Ok(data.len()))
    }

    /// Ends the content of the caller.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.op.check_open()?;
        match self.direction {
            Direction::ToSandbox | Direction::Finished => self.direction = Direction::Finished,
            _ => return Err(wrong(MSB_E_INVALID, "the operation writes nothing")),
        }
        Ok(())
    }
}

impl Object for FsObject {
    const WHAT: &'static str = "fs";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<FsObject> = Table::new(Kind::Fs);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.state.fd().map_err(descriptor_failed)
    }

    fn on_close(&self) {
        drop(self.state.with(|state| (state.op.close(), std::mem::take(&mut state.content))));
        self.closed.notify_one();
    }
}

impl FsObject {
    /// Starts an operation.
    pub(super) fn begin(sandbox: Sandbox, request: Request) -> Result<*mut msb_fs, Failure> {
        let state = Monitor::new(State::new(request.fields.op));
        let object = Arc::new(FsObject { state, moved: Notify::new(), closed: Notify::new() });
        // Checked before anything happens.
        let attributes = request.attributes()?;
        let options = match request.fields.op {
            MSB_FS_OP_WRITE => request.write_options()?,
            _ => FsWriteOptions::new(),
        };
        let handle = open(Arc::clone(&object))?;
        spawn(async move {
            let mut fs = sandbox.fs();
            if let Some(user) = &request.user {
                fs = fs.as_user(user);
            }
            let work = async {
                match request.fields.op {
                    MSB_FS_OP_READ => object.read(&fs, &request).await,
                    MSB_FS_OP_WRITE => {
                        let sink = fs.write_stream_with(&request.path, |_| options).await?;
                        object.write(sink).await
                    }
                    MSB_FS_OP_SET_STAT => {
                        let follow = !request.has(MSB_FS_NO_FOLLOW);
                        done(fs.set_stat(&request.path, follow, attributes).await)
                    }
                    _ => perform(&fs, &request).await,
                }
            };
            tokio::select! {
                result = work => object.complete(result),
                () = object.closed.notified() => {}
            }
        })?;
        Ok(handle)
    }

    /// Notes that the caller has moved content.
    pub(super) fn note_moved(&self) {
        self.moved.notify_one();
    }

    async fn read(&self, fs: &SandboxFsOps<'_>, request: &Request) -> MicrosandboxResult<Answer> {
        let length = Some(request.fields.length).filter(|length| *length > 0);
        let stream = fs.read_range(&request.path, request.fields.offset, length).await?;
        while let Some(piece) = stream.recv().await? {
            while self.state.with(|state| state.queued >= WINDOW) {
                self.moved.notified().await;
            }
            self.state.with(|state| state.push(piece));
        }
        Ok(Answer::Done)
    }

    async fn write(&self, sink: microsandbox::FsWriteSink) -> MicrosandboxResult<Answer> {
        loop {
            let next = self.state.with(|state| (state.pop(WINDOW), state.direction));
            match next {
                (Some(piece), _) => sink.write(piece).await?,
                (None, Direction::Finished) => return done(sink.close().await),
                (None, _) => self.moved.notified().await,
            }
        }
    }

    fn complete(&self, result: MicrosandboxResult<Answer>) {
        drop(self.state.with(|state| {
            if let Err(Error::Fs(failed)) = &result {
                state.failed = Some(failed.clone());
            }
            state.op.complete(result.map(Arc::new).map_err(Failure::from))
        }));
    }
}

/// Performs an operation without content.
async fn perform(fs: &SandboxFsOps<'_>, request: &Request) -> MicrosandboxResult<Answer> {
    let Request { fields, path, to, .. } = request;
    match fields.op {
        MSB_FS_OP_STAT => {
            let stat = fs.stat_with_follow(path, !request.has(MSB_FS_NO_FOLLOW)).await?;
            Ok(Answer::Stat(Box::new(stat)))
        }
        MSB_FS_OP_EXISTS => fs.exists(path).await.map(Answer::Exists),
        MSB_FS_OP_LIST => fs.list(path).await.map(Answer::Entries),
        MSB_FS_OP_MKDIR => {
            done(fs.mkdir_with(path, request.has(MSB_FS_PARENTS), request.mode()).await)
        }
        MSB_FS_OP_REMOVE => done(fs.remove(path).await),
        MSB_FS_OP_REMOVE_DIR if request.has(MSB_FS_RECURSIVE) => done(fs.remove_dir(path).await),
        MSB_FS_OP_REMOVE_DIR => done(fs.remove_empty_dir(path).await),
        MSB_FS_OP_RENAME => done(fs.rename_with(path, to, !request.has(MSB_FS_NO_REPLACE)).await),
        MSB_FS_OP_COPY => done(fs.copy(path, to).await),
        MSB_FS_OP_COPY_FROM_HOST => done(fs.copy_from_host(path, to).await),
        MSB_FS_OP_COPY_TO_HOST => done(fs.copy_to_host(path, to).await),
        MSB_FS_OP_SYMLINK => done(fs.symlink(to, path).await),
        MSB_FS_OP_READ_LINK => fs.read_link_os(path).await.map(Answer::Path),
        MSB_FS_OP_REAL_PATH => fs.real_path_os(path).await.map(Answer::Path),
        MSB_FS_OP_OPEN_DIR => fs.open_dir(path).await.map(Answer::Dir),
        MSB_FS_OP_READ_DIR => {
            let limit = Some(fields.limit).filter(|limit| *limit > 0);
            fs.read_dir(fields.dir, limit).await.map(Answer::Entries)
        }
        // Unknown ones were refused.
        _ => done(fs.close_handle(fields.dir).await),
    }
}

fn done(result: MicrosandboxResult<()>) -> MicrosandboxResult<Answer> {
    result.map(|()| Answer::Done)
}
