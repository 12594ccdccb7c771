//! Copies between the host and a sandbox.
//!
//! Into the sandbox, a thread packs; the agent unpacks. Out of it, a jailed process unpacks: this
//! process passes the archive on and never parses it.

use super::SandboxFsOps;
use super::failure::{of_failure, on_host};
use super::pack::{HostSource, Packed, pack};
use super::stream::{FsReadStream, FsWriteSink, Operation};
use super::types::{check_owner, checked_path};
use crate::completion::completion;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::fs_failed::FsFailed;
use crate::runtime;
use crate::sandbox::Sandbox;
use bytes::Bytes;
use msb_client::FsFailure;
use msb_state::{
    COPY_COMMIT, Copied, CopyFailure, CopyFailureKind, CopyOrder, CopyReport, CopyTask,
    begin_copy_task,
};
use msb_wire::limits::MAX_DATA;
use msb_wire::{FsCopyIn, FsCopyOut, FsDone, FsFileKind, FsOp, FsReply, FsSkipped};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Default limit of the content that is copied out of a sandbox, in bytes.
const MAX_BYTES: u64 = 64 << 30;
/// Default limit of the files that are copied out of a sandbox.
const MAX_ENTRIES: u64 = 2_000_000;
/// Longest report of the unpacking process, in bytes.
const MAX_REPORT: u64 = 1 << 20;

type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// How a file or tree is copied; see [`SandboxFsOps::copy_to_host_with`].
#[derive(Clone)]
#[must_use]
pub struct FsCopyOptions {
    keep_owner: bool,
    owner: Option<(u32, u32)>,
    no_follow: bool,
    sync: bool,
    max_bytes: u64,
    max_entries: u64,
    progress: Option<Progress>,
}

impl std::fmt::Debug for FsCopyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FsCopyOptions").finish_non_exhaustive()
    }
}

impl Default for FsCopyOptions {
    fn default() -> Self {
        FsCopyOptions {
            keep_owner: false,
            owner: None,
            no_follow: false,
            sync: false,
            max_bytes: MAX_BYTES,
            max_entries: MAX_ENTRIES,
            progress: None,
        }
    }
}

impl FsCopyOptions {
    /// Keeps owners, and with them the set-user-id and set-group-id bits. Otherwise everything
    /// belongs to the user who copies.
    pub fn keep_owner(mut self) -> Self {
        self.keep_owner = true;
        self
    }

    /// Sets owner and group of everything that is copied into a sandbox.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// Copies a symbolic link at the end of the source's path instead of following it.
    pub fn no_follow(mut self) -> Self {
        self.no_follow = true;
        self
    }

    /// Writes everything to the disk before the call succeeds.
    pub fn sync(mut self) -> Self {
        self.sync = true;
        self
    }

    /// Sets the most bytes that are copied out of a sandbox, which may be hostile; default: 64 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the most files that are copied out of a sandbox; default: 2,000,000.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// Calls a function with the number of bytes that were sent or received so far, on a thread of
    /// the library.
    pub fn on_progress(mut self, each: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(each));
        self
    }
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsCopied {
    /// Bytes of content; holes are not counted.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// The first of what was left out, each with the reason: FIFOs, sockets, devices, files that
    /// vanished, and extended attributes.
    pub skipped: Vec<(OsString, String)>,
    /// How many were left out.
    pub skipped_total: u64,
}

impl From<FsDone> for FsCopied {
    fn from(done: FsDone) -> FsCopied {
        let skipped = |FsSkipped { path, why }: FsSkipped| (OsString::from_vec(path), why);
        FsCopied {
            bytes: done.bytes,
            entries: done.entries,
            skipped: done.skipped.into_iter().map(skipped).collect(),
            skipped_total: done.skipped_total,
        }
    }
}

impl FsCopied {
    /// Adds what the sending side has left out.
    fn with(mut self, skipped: impl Iterator<Item = (OsString, String)>, total: u64) -> FsCopied {
        self.skipped.extend(skipped);
        self.skipped_total = self.skipped_total.saturating_add(total);
        self
    }
}

impl SandboxFsOps<'_> {
    /// Copies a file or tree of the host into the sandbox. `guest_path` is the copy itself, in an
    /// existing directory; an existing file is replaced, an existing directory is merged.
    ///
    /// Modes, times, links, holes and `user.` attributes are kept. Given up or failed, it leaves
    /// nothing. Links below the source are copied, never followed.
    pub async fn copy_from_host(
        &self,
        host_path: impl AsRef<Path>,
        guest_path: impl AsRef<OsStr>,
    ) -> MicrosandboxResult<()> {
        self.copy_from_host_with(host_path, guest_path, |options| options).await.map(drop)
    }

    /// As [`SandboxFsOps::copy_from_host`], with options, and returns what was left out.
    pub async fn copy_from_host_with(
        &self,
        host_path: impl AsRef<Path>,
        guest_path: impl AsRef<OsStr>,
        options: impl FnOnce(FsCopyOptions) -> FsCopyOptions,
    ) -> MicrosandboxResult<FsCopied> {
        let options = options(FsCopyOptions::default());
        let path = host_path.as_ref().to_path_buf();
        // Before the sandbox is asked for anything.
        let found = if options.no_follow { path.symlink_metadata() } else { path.metadata() };
        found.map_err(|error| on_host("copy", &path, error))?;
        let (directory, name) = split(&checked_path(guest_path.as_ref())?)?;
        let operation = Arc::new(self.start_copy_in(directory, &options).await?);
        let _guard = GiveUp(Arc::clone(&operation));
        on_thread(move || send(&path, &name, &options, &operation)).await
    }

    /// Unpacks a tar archive in an existing directory of the sandbox. Nothing is in place before
    /// [`FsWriteSink::close`] has succeeded.
    pub async fn unpack_stream(
        &self,
        directory: impl AsRef<OsStr>,
        options: impl FnOnce(FsCopyOptions) -> FsCopyOptions,
    ) -> MicrosandboxResult<FsWriteSink> {
        let directory = checked_path(directory.as_ref())?;
        let options = options(FsCopyOptions::default());
        Ok(FsWriteSink { operation: self.start_copy_in(directory, &options).await? })
    }

    /// Copies a file or tree of the sandbox to the host. `host_path` is the copy itself, in an
    /// existing directory; an existing file is replaced, an existing directory is merged.
    ///
    /// Nothing that the sandbox says makes it write elsewhere: a process that reaches only the
    /// destination unpacks the copy beside it, and moves it into place when it is complete.
    /// Everything belongs to the caller; see [`FsCopyOptions::keep_owner`].
    pub async fn copy_to_host(
        &self,
        guest_path: impl AsRef<OsStr>,
        host_path: impl AsRef<Path>,
    ) -> MicrosandboxResult<()> {
        self.copy_to_host_with(guest_path, host_path, |options| options).await.map(drop)
    }

    /// As [`SandboxFsOps::copy_to_host`], with options, and returns what was left out.
    pub async fn copy_to_host_with(
        &self,
        guest_path: impl AsRef<OsStr>,
        host_path: impl AsRef<Path>,
        options: impl FnOnce(FsCopyOptions) -> FsCopyOptions,
    ) -> MicrosandboxResult<FsCopied> {
        let options = options(FsCopyOptions::default());
        let to = Destination::find(host_path.as_ref())?;
        let root = to.root();
        let operation = self.start_copy_out(guest_path.as_ref(), root.clone(), &options).await?;
        let stat = operation.opened().await?.stat.unwrap_or_default();
        if stat.kind == FsFileKind::File && stat.allocated.min(stat.size) > options.max_bytes {
            return Err(too_large(options.max_bytes));
        }
        to.check(stat.kind == FsFileKind::Directory)?;
        let operation = Arc::new(operation);
        let _guard = GiveUp(Arc::clone(&operation));
        let sandbox = self.sandbox.clone();
        on_thread(move || receive(&sandbox, &to, root, &options, &operation)).await
    }

    /// Packs a file or tree of the sandbox into a tar archive, whose first member is called `name`.
    /// Its content is the sandbox's word: unpack it with care.
    pub async fn pack_stream(
        &self,
        path: impl AsRef<OsStr>,
        name: impl AsRef<OsStr>,
        options: impl FnOnce(FsCopyOptions) -> FsCopyOptions,
    ) -> MicrosandboxResult<FsReadStream> {
        let options = options(FsCopyOptions::default());
        let name = name.as_ref().as_bytes().to_vec();
        let operation = self.start_copy_out(path.as_ref(), name, &options).await?;
        operation.opened().await?;
        Ok(FsReadStream { operation, size: None })
    }

    async fn start_copy_in(
        &self,
        path: Vec<u8>,
        options: &FsCopyOptions,
    ) -> MicrosandboxResult<Operation> {
        let (uid, gid) = options.owner.unzip();
        check_owner(uid, gid)?;
        let request = FsCopyIn {
            path: path.clone(),
            keep_owner: options.keep_owner,
            uid,
            gid,
            no_replace: false,
            sync: options.sync,
        };
        self.start(FsOp::CopyIn(request), path).await
    }

    async fn start_copy_out(
        &self,
        path: &OsStr,
        name: Vec<u8>,
        options: &FsCopyOptions,
    ) -> MicrosandboxResult<Operation> {
        let path = checked_path(path)?;
        let request = FsCopyOut { path: path.clone(), name, follow: !options.no_follow };
        self.start(FsOp::CopyOut(request), path).await
    }
}

/// Gives an operation up when the future is dropped that waits for its thread.
struct GiveUp(Arc<Operation>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.core.close();
    }
}

/// Splits an absolute path of the sandbox into the directory and the name in it. The name of the
/// root is empty.
fn split(path: &[u8]) -> MicrosandboxResult<(Vec<u8>, Vec<u8>)> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = path.get(..end).unwrap_or_default();
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (directory, name) = path.split_at(slash.map_or(0, |slash| slash + 1));
    match name {
        b"." | b".." => {
            let path = OsStr::from_bytes(path);
            Err(Error::invalid(format!("the path {path:?} does not end in a name")))
        }
        b"" => Ok((b"/".to_vec(), Vec::new())),
        _ => Ok((directory.to_vec(), name.to_vec())),
    }
}

/// Packs into the operation, and waits for its end. Blocks.
fn send(
    path: &Path,
    name: &[u8],
    options: &FsCopyOptions,
    operation: &Operation,
) -> Result<FsCopied, Error> {
    let mut to = ToAgent::new(operation, options.progress.clone());
    let source = HostSource { path, name, follow: !options.no_follow };
    let packed = match pack(&source, &mut to) {
        Ok(packed) => packed,
        Err(Some(error)) => return Err(error),
        Err(None) => {
            let failure = to.failure.take().unwrap_or(FsFailure::Closed);
            return Err(of_failure(failure, &operation.subject));
        }
    };
    operation.core.finish();
    let reply = operation.core.result_until(None).unwrap_or(Err(FsFailure::Closed));
    let Packed { skipped, skipped_total } = packed;
    let skipped = skipped.into_iter().map(|(path, why)| (path.into_os_string(), why));
    match reply.map_err(|failure| of_failure(failure, &operation.subject))? {
        FsReply::Done(done) => Ok(FsCopied::from(done).with(skipped, skipped_total)),
        _ => Err(Error::internal("a reply of another kind passed the client")),
    }
}

/// Writes to an operation.
struct ToAgent<'a> {
    operation: &'a Operation,
    buffer: Vec<u8>,
    sent: u64,
    progress: Option<Progress>,
    /// Why the last write failed.
    failure: Option<FsFailure>,
}

impl<'a> ToAgent<'a> {
    fn new(operation: &'a Operation, progress: Option<Progress>) -> ToAgent<'a> {
        let buffer = Vec::with_capacity(MAX_DATA);
        ToAgent { operation, buffer, sent: 0, progress, failure: None }
    }
}

impl Write for ToAgent<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let step = data.len().min(MAX_DATA - self.buffer.len());
        self.buffer.extend_from_slice(data.get(..step).unwrap_or_default());
        if self.buffer.len() == MAX_DATA {
            self.flush()?;
        }
        Ok(step)
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(MAX_DATA));
        let mut data = Bytes::from(full);
        self.sent += data.len() as u64;
        while !data.is_empty() {
            match self.operation.core.write_until(&data, None) {
                Some(Ok(taken)) => drop(data.split_to(taken)),
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                None => {}
            }
        }
        if let Some(progress) = &self.progress {
            progress(self.sent);
        }
        Ok(())
    }
}

/// Where a copy goes on the host.
#[derive(Debug)]
struct Destination {
    /// As the caller gave it.
    path: PathBuf,
    /// An existing directory, absolute and without links.
    into: PathBuf,
    /// The name in it; `None`: the copy is merged into it.
    name: Option<OsString>,
    /// Whether something that is no directory is there.
    is_file: bool,
}

impl Destination {
    fn find(path: &Path) -> MicrosandboxResult<Destination> {
        let failed = |error| on_host("copy to", path, error);
        if path.is_dir() {
            let into = path.canonicalize().map_err(failed)?;
            return Ok(Destination { path: path.into(), into, name: None, is_file: false });
        }
        let Some(name) = path.file_name() else {
            return Err(failed(io::Error::from_raw_os_error(Errno::NOENT.raw_os_error())));
        };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let into = parent.canonicalize().map_err(failed)?;
        let is_file = path.symlink_metadata().is_ok();
        Ok(Destination { path: path.into(), into, name: Some(name.to_owned()), is_file })
    }

    /// Returns the name of the first member.
    fn root(&self) -> Vec<u8> {
        self.name.as_deref().map_or(b"copy".to_vec(), |name| name.as_bytes().to_vec())
    }

    /// Fails if the copy cannot take the place of what is there.
    fn check(&self, is_directory: bool) -> MicrosandboxResult<()> {
        let errno = match (self.name.is_none(), is_directory) {
            (true, false) => Errno::ISDIR,
            (false, true) if self.is_file => Errno::NOTDIR,
            _ => return Ok(()),
        };
        Err(on_host("copy to", &self.path, errno))
    }
}

/// Passes the archive of an operation on to the process that unpacks it. Blocks.
fn receive(
    sandbox: &Sandbox,
    to: &Destination,
    root: Vec<u8>,
    options: &FsCopyOptions,
    operation: &Operation,
) -> Result<FsCopied, Error> {
    let order = CopyOrder {
        into: to.into.as_os_str().as_bytes().to_vec(),
        root,
        target: to.name.as_ref().map(|name| name.as_bytes().to_vec()),
        keep_owner: options.keep_owner,
        sync: options.sync,
        max_bytes: options.max_bytes,
        max_entries: options.max_entries,
    };
    let companions = crate::library::companions()?;
    let (home, require) = sandbox.surroundings();
    let CopyTask { control, data, report, mut child } =
        begin_copy_task(home, &companions, &order, require)?;
    let passed = pass_on(operation, File::from(data), options.progress.as_ref());
    let mut control = File::from(control);
    let done = match &passed {
        // It says itself why if it has gone.
        Ok(Some(done)) => control.write_all(COPY_COMMIT.as_bytes()).ok().map(|()| done.clone()),
        _ => None,
    };
    drop(control);
    let mut line = Vec::new();
    // What it could not say is missing.
    let _ = File::from(report).take(MAX_REPORT).read_to_end(&mut line);
    // Fails if the host program reaps every child itself.
    let _ = child.wait();
    // The agent's failure is the reason for the other.
    passed.map_err(|failure| of_failure(failure, &operation.subject))?;
    match serde_json::from_slice(&line) {
        Ok(CopyReport::Done(copied)) => {
            let done = done.map(FsCopied::from).unwrap_or_default();
            Ok(copied_of(copied).with(done.skipped.into_iter(), done.skipped_total))
        }
        Ok(CopyReport::Failed(failure)) => Err(copy_error(failure, &to.path)),
        Err(_) => {
            let context = "the process that unpacks the copy died; see images.log";
            Err(Error::new(ErrorKind::Io, Origin::Host, context))
        }
    }
}

/// Passes data on to its end. `None`: the process takes no more.
fn pass_on(
    operation: &Operation,
    mut to: File,
    progress: Option<&Progress>,
) -> Result<Option<FsDone>, FsFailure> {
    let mut received = 0;
    loop {
        match operation.core.data_until(None).unwrap_or(Ok(None))? {
            Some(data) => {
                if to.write_all(&data).is_err() {
                    return Ok(None);
                }
                received += data.len() as u64;
                if let Some(progress) = progress {
                    progress(received);
                }
            }
            None => {
                return match operation.core.result_until(None).unwrap_or(Err(FsFailure::Closed))? {
                    FsReply::Done(done) => Ok(Some(done)),
                    _ => Ok(None),
                };
            }
        }
    }
}

fn copied_of(copied: Copied) -> FsCopied {
    let skipped = |(path, why)| (OsString::from_vec(path), why);
    FsCopied {
        bytes: copied.bytes,
        entries: copied.entries,
        skipped: copied.skipped.into_iter().map(skipped).collect(),
        skipped_total: copied.skipped_total,
    }
}

fn copy_error(failure: CopyFailure, to: &Path) -> Error {
    let CopyFailure { kind, errno, operation, path, message } = failure;
    let member = OsStr::from_bytes(&path);
    match (kind, errno) {
        (CopyFailureKind::Host, Some(errno)) => {
            let (_, below) =
                path.split_at(path.iter().position(|b| *b == b'/').unwrap_or(path.len()));
            let below = OsStr::from_bytes(below.strip_prefix(b"/").unwrap_or(below));
            let full = if below.is_empty() { to.to_path_buf() } else { to.join(below) };
            Error::Fs(FsFailed::on_host(&operation, &full, errno))
        }
        (CopyFailureKind::Host, None) => {
            let context = format!("cannot copy to {}: {message}", to.display());
            Error::new(ErrorKind::Io, Origin::Host, context)
        }
        (CopyFailureKind::Limit, _) => {
            let context = format!("cannot copy {member:?}: {message}");
            Error::new(ErrorKind::LimitReached, Origin::Host, context)
        }
        (CopyFailureKind::Archive, _) => {
            let context = format!("the sandbox sent a wrong archive: {member:?}: {message}");
            Error::new(ErrorKind::Protocol, Origin::Agent, context)
        }
    }
}

fn too_large(limit: u64) -> Error {
    let context = format!("the copy has more than {limit} bytes, its limit");
    Error::new(ErrorKind::LimitReached, Origin::Host, context)
}

/// Runs blocking work on a thread of its own.
async fn on_thread<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> MicrosandboxResult<T> {
    let (promise, pending) = completion();
    runtime::get()?;
    runtime::spawn_thread("msb-copy", move || promise.complete(f()))?;
    pending.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_guest_paths_are_split_at_the_last_name() {
        let parts = |path: &str| {
            let (directory, name) = split(path.as_bytes()).unwrap();
            [directory, name].map(|part| String::from_utf8(part).unwrap())
        };
        assert_eq!(parts("/a/b"), ["/a/", "b"]);
        assert_eq!(parts("/a//b//"), ["/a//", "b"]);
        assert_eq!(parts("/b"), ["/", "b"]);
        assert_eq!(parts("/"), ["/", ""]);
        for bad in ["/a/.", "/a/..", "/.."] {
            assert!(split(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
