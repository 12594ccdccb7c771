//! Files in a sandbox.
//!
//! Owns: the operations as callers see them. Does not own: the protocol, which the client speaks, nor the archives of copies. Invariant: an operation
//! whose future or stream is dropped is given up, and a write that was given up leaves the old
//! content.

mod copy;
mod failure;
mod pack;
mod stream;
mod types;

pub use copy::{FsCopied, FsCopyOptions};
pub use stream::{FsReadStream, FsWatch, FsWriteSink};
pub use types::{
    FsEntry, FsEntryKind, FsEvent, FsEventKind, FsHandle, FsMetadata, FsOpenOptions, FsSetAttrs,
    FsWriteOptions,
};

use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::sandbox::Sandbox;
use bytes::Bytes;
use failure::of_refusal;
use msb_client::{Connection, FsCore};
use msb_wire::{FsOp, FsOpen, FsReply, decode_entries};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Arc, Mutex};
use stream::{Operation, malformed};
use types::{check_mode, checked_path, no_nul};

/// Most entries of a directory that are collected.
const LIST_MAX: usize = 10_000_000;

/// See [`Sandbox::fs`].
pub type Fs<'a> = SandboxFsOps<'a>;

/// Operations on the files of a sandbox.
///
/// Paths are absolute, and any bytes but NUL: `&str`, `String`, `&Path` and `&OsStr` will do. A
/// symbolic link at the end of a path is followed, unless a method says otherwise. They act as the
/// sandbox's user; see [`SandboxFsOps::as_user`].
///
/// Dropping a future gives the operation up.
#[derive(Debug, Clone)]
pub struct SandboxFsOps<'a> {
    sandbox: &'a Sandbox,
    user: Option<String>,
}

impl Sandbox {
    /// Returns the operations on its files. They need no program in the sandbox.
    pub fn fs(&self) -> SandboxFsOps<'_> {
        SandboxFsOps { sandbox: self, user: None }
    }
}

impl SandboxFsOps<'_> {
    /// Returns these operations as another user: `name`, `uid`, `name:group` or `uid:gid`.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Reads a file.
    pub async fn read(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<Bytes> {
        self.read_stream(path).await?.collect().await
    }

    /// Reads a file that is UTF-8.
    pub async fn read_to_string(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<String> {
        let content = self.read(path.as_ref()).await?;
        String::from_utf8(content.into()).map_err(|_| not_utf8(path.as_ref()))
    }

    /// Reads a file piece by piece.
    pub async fn read_stream(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<FsReadStream> {
        self.read_range(path, 0, None).await
    }

    /// Reads a part of a file: at most `length` bytes from `offset`; to the end without a length.
    pub async fn read_range(
        &self,
        path: impl AsRef<OsStr>,
        offset: u64,
        length: Option<u64>,
    ) -> MicrosandboxResult<FsReadStream> {
        let path = checked_path(path.as_ref())?;
        let op = FsOp::Read { path: path.clone(), offset, length, special: false };
        let operation = self.start(op, path).await?;
        let size = operation.opened().await?.stat.map(|stat| stat.size);
        Ok(FsReadStream { operation, size })
    }

    /// Reads from a handle: at most `length` bytes from `offset`; to the end without a length.
    pub async fn read_handle(
        &self,
        handle: FsHandle,
        offset: u64,
        length: Option<u64>,
    ) -> MicrosandboxResult<Bytes> {
        self.read_handle_stream(handle, offset, length).await?.collect().await
    }

    /// As [`SandboxFsOps::read_handle`], piece by piece.
    pub async fn read_handle_stream(
        &self,
        handle: FsHandle,
        offset: u64,
        length: Option<u64>,
    ) -> MicrosandboxResult<FsReadStream> {
        let op = |handle| FsOp::ReadAt { handle, offset, length };
        Ok(FsReadStream { operation: self.on_handle(handle, op)?, size: None })
    }

    /// Writes a file: the data becomes the whole content, at once. Missing directories are an
    /// error; see [`SandboxFsOps::write_with`].
    pub async fn write(
        &self,
        path: impl AsRef<OsStr>,
        data: impl AsRef<[u8]>,
    ) -> MicrosandboxResult<()> {
        self.write_with(path, data, |options| options).await
    }

    /// As [`SandboxFsOps::write`], with options: `|w| w.mode(0o600).parents()`.
    pub async fn write_with(
        &self,
        path: impl AsRef<OsStr>,
        data: impl AsRef<[u8]>,
        options: impl FnOnce(FsWriteOptions) -> FsWriteOptions,
    ) -> MicrosandboxResult<()> {
        let sink = self.write_stream_with(path, options).await?;
        sink.write(data).await?;
        sink.close().await
    }

    /// Writes a file piece by piece.
    pub async fn write_stream(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<FsWriteSink> {
        self.write_stream_with(path, |options| options).await
    }

    /// As [`SandboxFsOps::write_stream`], with options.
    pub async fn write_stream_with(
        &self,
        path: impl AsRef<OsStr>,
        options: impl FnOnce(FsWriteOptions) -> FsWriteOptions,
    ) -> MicrosandboxResult<FsWriteSink> {
        let path = checked_path(path.as_ref())?;
        let request = options(FsWriteOptions::new()).wire(path.clone())?;
        Ok(FsWriteSink { operation: self.start(FsOp::Write(request), path).await? })
    }

    /// Writes to a handle from `offset`, in place.
    pub async fn write_handle(
        &self,
        handle: FsHandle,
        offset: u64,
        data: impl AsRef<[u8]>,
    ) -> MicrosandboxResult<()> {
        let sink = self.write_handle_stream(handle, offset, None).await?;
        sink.write(data).await?;
        sink.close().await
    }

    /// As [`SandboxFsOps::write_handle`], piece by piece. `length` is a hint and has no effect.
    pub async fn write_handle_stream(
        &self,
        handle: FsHandle,
        offset: u64,
        length: Option<u64>,
    ) -> MicrosandboxResult<FsWriteSink> {
        let _ = length;
        let op = |handle| FsOp::WriteAt { handle, offset };
        Ok(FsWriteSink { operation: self.on_handle(handle, op)? })
    }

    /// Opens a file. The handle has the rights of this user until it is closed, and ends with the
    /// connection to the sandbox.
    pub async fn open_file(
        &self,
        path: impl AsRef<OsStr>,
        options: FsOpenOptions,
    ) -> MicrosandboxResult<FsHandle> {
        let path = checked_path(path.as_ref())?;
        self.open(options.wire(path.clone())?, path).await
    }

    /// Opens a directory, for [`SandboxFsOps::read_dir`] and the methods about attributes.
    pub async fn open_dir(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<FsHandle> {
        let path = checked_path(path.as_ref())?;
        let request = FsOpen { path: path.clone(), directory: true, ..FsOpen::default() };
        self.open(request, path).await
    }

    /// Closes a handle. Fails if the file system reports an error only now.
    pub async fn close_handle(&self, handle: FsHandle) -> MicrosandboxResult<()> {
        self.close_with(handle, false).await
    }

    /// Writes content and attributes of an open file to the disk, then closes it.
    pub async fn sync_and_close_handle(&self, handle: FsHandle) -> MicrosandboxResult<()> {
        self.close_with(handle, true).await
    }

    /// Lists a directory, without `.` and `..`, sorted by name.
    pub async fn list(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<Vec<FsEntry>> {
        let path = checked_path(path.as_ref())?;
        let operation = self.start(FsOp::List { path: path.clone() }, path.clone()).await?;
        let mut entries = entries(&operation, &path).await?;
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Lists the next entries of an open directory, at most `limit`. None: the end.
    pub async fn read_dir(
        &self,
        handle: FsHandle,
        limit: Option<u32>,
    ) -> MicrosandboxResult<Vec<FsEntry>> {
        let operation = self.on_handle(handle, |handle| FsOp::ReadDir { handle, limit })?;
        entries(&operation, b"").await
    }

    /// As [`SandboxFsOps::read_dir`].
    pub async fn read_dir_handle(
        &self,
        handle: FsHandle,
        limit: Option<u32>,
    ) -> MicrosandboxResult<Vec<FsEntry>> {
        self.read_dir(handle, limit).await
    }

    /// Makes a directory and its missing parents. An existing directory is no error.
    pub async fn mkdir(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<()> {
        self.mkdir_with(path, true, None).await
    }

    /// Makes a directory with a mode; default: 0755. Without `parents` an existing one is an error.
    pub async fn mkdir_with(
        &self,
        path: impl AsRef<OsStr>,
        parents: bool,
        mode: Option<u32>,
    ) -> MicrosandboxResult<()> {
        check_mode(mode)?;
        self.on_path(path.as_ref(), |path| FsOp::Mkdir { path, parents, mode }).await.map(drop)
    }

    /// Removes a file or link, which is not followed. A directory is an error.
    pub async fn remove(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<()> {
        self.on_path(path.as_ref(), |path| FsOp::Remove { path }).await.map(drop)
    }

    /// Removes a directory and everything in it.
    pub async fn remove_dir(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<()> {
        let op = |path| FsOp::RemoveDir { path, recursive: true };
        self.on_path(path.as_ref(), op).await.map(drop)
    }

    /// Removes an empty directory.
    pub async fn remove_empty_dir(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<()> {
        let op = |path| FsOp::RemoveDir { path, recursive: false };
        self.on_path(path.as_ref(), op).await.map(drop)
    }

    /// Copies a file or a tree inside the sandbox: content, modes, times, links, holes. `to` is the
    /// copy itself. Given up, it leaves nothing.
    pub async fn copy(
        &self,
        from: impl AsRef<OsStr>,
        to: impl AsRef<OsStr>,
    ) -> MicrosandboxResult<()> {
        let to = checked_path(to.as_ref())?;
        let op = |from| FsOp::Copy { from, to, recursive: true };
        self.on_path(from.as_ref(), op).await.map(drop)
    }

    /// Renames a file or directory; an existing file at the new path is replaced.
    pub async fn rename(
        &self,
        from: impl AsRef<OsStr>,
        to: impl AsRef<OsStr>,
    ) -> MicrosandboxResult<()> {
        self.rename_with(from, to, true).await
    }

    /// As [`SandboxFsOps::rename`]; without `replace` an existing file is an error.
    pub async fn rename_with(
        &self,
        from: impl AsRef<OsStr>,
        to: impl AsRef<OsStr>,
        replace: bool,
    ) -> MicrosandboxResult<()> {
        let to = checked_path(to.as_ref())?;
        let op = |from| FsOp::Rename { from, to, no_replace: !replace };
        self.on_path(from.as_ref(), op).await.map(drop)
    }

    /// Makes a symbolic link at `link_path`, which says `target`: any text, relative or absolute.
    pub async fn symlink(
        &self,
        target: impl AsRef<OsStr>,
        link_path: impl AsRef<OsStr>,
    ) -> MicrosandboxResult<()> {
        let target = no_nul(target.as_ref().as_bytes())?;
        self.on_path(link_path.as_ref(), |path| FsOp::Symlink { target, path }).await.map(drop)
    }

    /// Returns what a symbolic link says.
    pub async fn read_link(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<String> {
        let text = self.read_link_os(path.as_ref()).await?;
        text.into_string().map_err(|_| not_utf8(path.as_ref()))
    }

    /// As [`SandboxFsOps::read_link`], for one that need not be UTF-8.
    pub async fn read_link_os(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<OsString> {
        path_of(self.on_path(path.as_ref(), |path| FsOp::ReadLink { path }).await?)
    }

    /// Returns the absolute path without links, `.` and `..`. The path must exist.
    pub async fn real_path(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<String> {
        let text = self.real_path_os(path.as_ref()).await?;
        text.into_string().map_err(|_| not_utf8(path.as_ref()))
    }

    /// As [`SandboxFsOps::real_path`], for one that need not be UTF-8.
    pub async fn real_path_os(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<OsString> {
        path_of(self.on_path(path.as_ref(), |path| FsOp::RealPath { path }).await?)
    }

    /// Returns the attributes of a file.
    pub async fn stat(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<FsMetadata> {
        self.stat_with_follow(path, true).await
    }

    /// Returns the attributes of a file, or of a symbolic link itself if it is not to be followed.
    pub async fn stat_with_follow(
        &self,
        path: impl AsRef<OsStr>,
        follow_symlink: bool,
    ) -> MicrosandboxResult<FsMetadata> {
        let op = |path| FsOp::Stat { path, follow: follow_symlink };
        stat_of(self.on_path(path.as_ref(), op).await?)
    }

    /// Changes attributes of a file, or of a symbolic link itself if it is not to be followed.
    pub async fn set_stat(
        &self,
        path: impl AsRef<OsStr>,
        follow_symlink: bool,
        attrs: FsSetAttrs,
    ) -> MicrosandboxResult<()> {
        let attributes = attrs.wire()?;
        let op = |path| FsOp::SetStat { path, follow: follow_symlink, attributes };
        self.on_path(path.as_ref(), op).await.map(drop)
    }

    /// Returns the attributes of an open file or directory.
    pub async fn stat_handle(&self, handle: FsHandle) -> MicrosandboxResult<FsMetadata> {
        let operation = self.on_handle(handle, |handle| FsOp::StatHandle { handle })?;
        stat_of(operation.result().await?)
    }

    /// As [`SandboxFsOps::stat_handle`].
    pub async fn fstat(&self, handle: FsHandle) -> MicrosandboxResult<FsMetadata> {
        self.stat_handle(handle).await
    }

    /// Changes attributes of an open file or directory.
    pub async fn set_stat_handle(
        &self,
        handle: FsHandle,
        attrs: FsSetAttrs,
    ) -> MicrosandboxResult<()> {
        let attributes = attrs.wire()?;
        let op = |handle| FsOp::SetStatHandle { handle, attributes };
        self.on_handle(handle, op)?.result().await.map(drop)
    }

    /// As [`SandboxFsOps::set_stat_handle`].
    pub async fn fset_stat(&self, handle: FsHandle, attrs: FsSetAttrs) -> MicrosandboxResult<()> {
        self.set_stat_handle(handle, attrs).await
    }

    /// Returns whether a path exists. A dangling link does not; a path that the user may not look
    /// at is an error.
    pub async fn exists(&self, path: impl AsRef<OsStr>) -> MicrosandboxResult<bool> {
        match self.on_path(path.as_ref(), |path| FsOp::Exists { path }).await? {
            FsReply::Exists(exists) => Ok(exists),
            _ => Err(wrong_reply()),
        }
    }

    /// Watches a file, or what is in a directory; with `recursive`, also in those below it. Every
    /// change after this call has succeeded is reported.
    pub async fn watch(
        &self,
        path: impl AsRef<OsStr>,
        recursive: bool,
    ) -> MicrosandboxResult<FsWatch> {
        let path = checked_path(path.as_ref())?;
        let operation = self.start(FsOp::Watch { path: path.clone(), recursive }, path).await?;
        operation.opened().await?;
        Ok(FsWatch { operation, queued: Mutex::new(VecDeque::new()) })
    }

    async fn open(&self, request: FsOpen, path: Vec<u8>) -> MicrosandboxResult<FsHandle> {
        let connection = self.sandbox.connect().await?;
        let operation = self.start_on(&connection, FsOp::Open(request), path)?;
        match operation.result().await? {
            FsReply::Handle(handle) => Ok(self.sandbox.handles().add(&connection, handle)),
            _ => Err(wrong_reply()),
        }
    }

    async fn close_with(&self, handle: FsHandle, sync: bool) -> MicrosandboxResult<()> {
        let operation = self.on_handle(handle, |handle| FsOp::CloseHandle { handle, sync })?;
        self.sandbox.handles().remove(handle);
        operation.result().await.map(drop)
    }

    /// Performs an operation on one path that has a reply only.
    async fn on_path(
        &self,
        path: &OsStr,
        op: impl FnOnce(Vec<u8>) -> FsOp,
    ) -> MicrosandboxResult<FsReply> {
        let path = checked_path(path)?;
        self.start(op(path.clone()), path).await?.result().await
    }

    /// Starts an operation on a handle.
    fn on_handle(
        &self,
        handle: FsHandle,
        op: impl FnOnce(u64) -> FsOp,
    ) -> MicrosandboxResult<Operation> {
        let (connection, number) = self.sandbox.handles().find(handle)?;
        self.start_on(&connection, op(number), Vec::new())
    }

    /// Starts an operation. `subject`: the path that errors name.
    async fn start(&self, op: FsOp, subject: Vec<u8>) -> MicrosandboxResult<Operation> {
        let connection = self.sandbox.connect().await?;
        self.start_on(&connection, op, subject)
    }

    fn start_on(
        &self,
        connection: &Arc<Connection>,
        op: FsOp,
        subject: Vec<u8>,
    ) -> MicrosandboxResult<Operation> {
        let user = match &self.user {
            Some(user) => Some(user.clone()),
            None => self.sandbox.own_user()?,
        };
        match FsCore::start(connection, user, op) {
            Ok(core) => Ok(Operation { core, subject }),
            Err(refusal) => Err(of_refusal(refusal, &subject)),
        }
    }
}

/// Collects the pages of a list.
async fn entries(operation: &Operation, directory: &[u8]) -> MicrosandboxResult<Vec<FsEntry>> {
    let mut found = Vec::new();
    while let Some(page) = operation.data().await? {
        let page = decode_entries(&page).map_err(malformed)?;
        found.extend(page.into_iter().map(|entry| FsEntry::new(directory, entry)));
        if found.len() > LIST_MAX {
            let context = format!("more than {LIST_MAX} entries; read them by open_dir");
            return Err(Error::new(ErrorKind::LimitReached, Origin::Host, context));
        }
    }
    Ok(found)
}

fn stat_of(reply: FsReply) -> MicrosandboxResult<FsMetadata> {
    match reply {
        FsReply::Stat(stat) => Ok(stat.into()),
        _ => Err(wrong_reply()),
    }
}

fn path_of(reply: FsReply) -> MicrosandboxResult<OsString> {
    match reply {
        FsReply::Path(path) => Ok(OsString::from_vec(path)),
        _ => Err(wrong_reply()),
    }
}

/// The client passes on no other reply than the operation's own.
fn wrong_reply() -> Error {
    Error::internal("a reply of another kind passed the client")
}

fn not_utf8(path: &OsStr) -> Error {
    let context = format!("what {path:?} holds is not valid UTF-8");
    Error::new(ErrorKind::InvalidUtf8, Origin::Caller, context)
}
