//! Reports changes of files, by inotify(7).
//!
//! The kernel's queue is the only one: it is read when the host has credit, and says when it has
//! overflowed.

use super::attributes::stat_open;
use super::error::{Result, busy, failed, io_failed};
use super::pool::Runner;
use super::root::{LIST, NAME, Root, check, descriptor_path};
use super::stream::Stream;
use crate::sys;
use msb_wire::fs::encode_events;
use msb_wire::limits::FS_WATCHES;
use msb_wire::{FsDone, FsEvent, FsEventKind, FsOpened, FsReply};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const WATCH: &str = "watch";
/// Bytes of events that one step reads.
const BUFFER: usize = 4 * 1024;
/// Files that are reported for one new directory; beyond it, events count as lost.
const FOUND: usize = 4 * 1024;
/// Length of a page beyond which no event is added, in bytes: below the smallest window.
const PAGE: usize = 32 * 1024;

/// A watched file or tree.
#[derive(Debug)]
struct Watcher {
    queue: OwnedFd,
    root: Arc<Root>,
    path: Vec<u8>,
    recursive: bool,
    /// The path of each watch.
    paths: HashMap<i32, Vec<u8>>,
    /// The watch of the path itself.
    own: i32,
    /// The watches of all operations.
    count: Arc<AtomicUsize>,
    has_overflowed: bool,
}

/// What one step has read.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<FsEvent>,
    is_drained: bool,
    /// Whether the watched path is gone.
    is_last: bool,
}

/// Reports changes until the path is removed, or the host gives up.
pub(super) async fn watch(
    runner: &Runner,
    stream: &Stream,
    (root, count): (Arc<Root>, Arc<AtomicUsize>),
    (path, recursive): (Vec<u8>, bool),
) -> Result<FsReply> {
    let open = move || Watcher::open(root, path, recursive, count);
    let (watcher, queue, opened) = runner.run(open).await??;
    let mut watcher = runner.keep(watcher);
    let queue = sys::watch(queue).map_err(io_failed(WATCH, b""))?;
    stream.send_opened(opened);
    let mut entries = 0;
    loop {
        stream.room().await;
        let mut ready = queue.readable().await.map_err(io_failed(WATCH, b""))?;
        let batch = watcher.with(Watcher::read).await?;
        if batch.is_drained {
            ready.clear_ready();
        }
        entries += batch.events.len() as u64;
        for page in pages(batch.events) {
            stream.send(encode_events(&page).into()).await;
        }
        if batch.is_last {
            return Ok(FsReply::Done(FsDone { entries, ..FsDone::default() }));
        }
    }
}

/// Divides events into the contents of frames.
fn pages(events: Vec<FsEvent>) -> Vec<Vec<FsEvent>> {
    let (mut pages, mut length) = (Vec::<Vec<FsEvent>>::new(), PAGE);
    for event in events {
        let own = event.path.len() + 32;
        match pages.last_mut() {
            Some(page) if length < PAGE => page.push(event),
            _ => {
                pages.push(vec![event]);
                length = 0;
            }
        }
        length += own;
    }
    pages
}

impl Watcher {
    fn open(
        root: Arc<Root>,
        path: Vec<u8>,
        recursive: bool,
        count: Arc<AtomicUsize>,
    ) -> Result<(Watcher, OwnedFd, FsOpened)> {
        check(WATCH, &path)?;
        let fd = root.open_path(&path, NAME).map_err(failed(WATCH, &path))?;
        let stat = stat_open(fd.as_fd()).map_err(failed("stat", &path))?;
        // Each user may have a number of queues only.
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let queue = queue.map_err(failed(WATCH, &path))?;
        let copy = queue.try_clone().map_err(io_failed(WATCH, &path))?;
        let mut watcher = Watcher {
            queue,
            root,
            path: path.clone(),
            recursive,
            paths: HashMap::new(),
            own: -1,
            count,
            has_overflowed: false,
        };
        match watcher.add(fd.as_fd(), &path) {
            Ok(Some(own)) => watcher.own = own,
            Ok(None) => return Err(busy(WATCH, &path, "too many files are watched")),
            Err(errno) => return Err(failed(WATCH, &path)(errno)),
        }
        if recursive {
            watcher.add_below(&path, None);
        }
        Ok((watcher, copy, FsOpened { stat: Some(stat) }))
    }

    /// Watches an open file or directory. Returns `None` at the limit.
    fn add(&mut self, fd: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Option<i32>> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= FS_WATCHES {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Ok(None);
        }
        let wanted = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let added = inotify::add_watch(&self.queue, descriptor_path(fd).as_slice(), wanted);
        let is_new = match added {
            Ok(number) => self.paths.insert(number, path.to_vec()).is_none(),
            Err(_) => false,
        };
        if !is_new {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        match added {
            // The user's limit of watches.
            Err(Errno::NOSPC) => Ok(None),
            added => added.map(Some),
        }
    }

    /// Watches the directories below one, and reports what is in them.
    fn add_below(&mut self, path: &[u8], mut events: Option<&mut Vec<FsEvent>>) {
        let mut left = vec![path.to_vec()];
        while let Some(path) = left.pop() {
            // What vanished meanwhile, or cannot be read, has no events.
            let flags = if path == self.path { LIST } else { LIST | OFlags::NOFOLLOW };
            let Ok(mut directory) = self.root.open_path(&path, flags).and_then(Dir::new) else {
                continue;
            };
            while let Some(Ok(entry)) = directory.read() {
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let below = joined(&path, name);
                let is_directory = match entry.file_type() {
                    FileType::Unknown => super::attributes::stat(&self.root, &below, false)
                        .is_ok_and(|stat| stat.kind == msb_wire::FsFileKind::Directory),
                    kind => kind == FileType::Directory,
                };
                match events.as_deref_mut() {
                    Some(events) if events.len() < FOUND => {
                        let kind = FsEventKind::Created;
                        events.push(FsEvent {
                            kind,
                            path: below.clone(),
                            directory: is_directory,
                            cookie: 0,
                        });
                    }
                    Some(_) => self.has_overflowed = true,
                    None => {}
                }
                if is_directory && self.add_directory(&below) {
                    left.push(below);
                }
            }
        }
    }

    /// Watches a directory. Returns whether it is watched.
    fn add_directory(&mut self, path: &[u8]) -> bool {
        let flags = NAME | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(fd) = self.root.open_path(path, flags) else { return false };
        match self.add(fd.as_fd(), path) {
            Ok(Some(_)) => true,
            Ok(None) => {
                self.has_overflowed = true;
                false
            }
            Err(_) => false,
        }
    }

    /// Reads the next events.
    fn read(&mut self) -> Result<Batch> {
        let queue = self.queue.try_clone().map_err(io_failed(WATCH, &self.path))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(queue, &mut buffer);
        let mut batch = Batch::default();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_bytes().to_vec());
                    let (number, what, cookie) = (event.wd(), event.events(), event.cookie());
                    self.on(number, what, cookie, name, &mut batch);
                }
                Err(Errno::AGAIN) => {
                    batch.is_drained = true;
                    break;
                }
                Err(errno) => return Err(failed(WATCH, &self.path)(errno)),
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        if std::mem::take(&mut self.has_overflowed) {
            let (kind, path) = (FsEventKind::Overflow, self.path.clone());
            batch.events.push(FsEvent { kind, path, directory: false, cookie: 0 });
        }
        Ok(batch)
    }

    fn on(
        &mut self,
        number: i32,
        what: ReadFlags,
        cookie: u32,
        name: Option<Vec<u8>>,
        batch: &mut Batch,
    ) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.has_overflowed = true;
            if self.recursive {
                self.add_below(&self.path.clone(), None);
            }
            return;
        }
        if what.contains(ReadFlags::IGNORED) {
            self.forget(number);
            batch.is_last |= number == self.own;
            return;
        }
        // Removed before, with events left.
        let Some(path) = self.paths.get(&number) else { return };
        let directory = what.contains(ReadFlags::ISDIR);
        let (kind, path) = match (&name, number == self.own) {
            (Some(name), _) => (kind_of(what), joined(path, name)),
            (None, true) => (kind_of_self(what), path.clone()),
            // The parent of a directory reports it.
            (None, false) => return,
        };
        let Some(kind) = kind else { return };
        batch.is_last |= name.is_none() && what.contains(ReadFlags::MOVE_SELF);
        batch.events.push(FsEvent { kind, path: path.clone(), directory, cookie });
        if !self.recursive || !directory {
            return;
        }
        match kind {
            FsEventKind::Created | FsEventKind::MovedTo if self.add_directory(&path) => {
                self.add_below(&path, Some(&mut batch.events));
            }
            FsEventKind::MovedFrom => self.remove_below(&path),
            _ => {}
        }
    }

    /// Stops watching a directory that was moved away, and those below.
    fn remove_below(&mut self, path: &[u8]) {
        let is_below = |other: &[u8]| {
            other.strip_prefix(path).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        let below = self.paths.iter().filter(|(_, other)| is_below(other));
        let below: Vec<i32> = below.map(|(number, _)| *number).collect();
        for number in below {
            // Fails if the kernel has removed it already.
            let _ = inotify::remove_watch(&self.queue, number);
            self.forget(number);
        }
    }

    fn forget(&mut self, number: i32) {
        if self.paths.remove(&number).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.count.fetch_sub(self.paths.len(), Ordering::Relaxed);
    }
}

/// Returns what happened to an entry of a watched directory.
fn kind_of(what: ReadFlags) -> Option<FsEventKind> {
    let kinds = [
        (ReadFlags::CREATE, FsEventKind::Created),
        (ReadFlags::MODIFY, FsEventKind::Modified),
        (ReadFlags::CLOSE_WRITE, FsEventKind::Closed),
        (ReadFlags::ATTRIB, FsEventKind::Attributes),
        (ReadFlags::DELETE, FsEventKind::Removed),
        (ReadFlags::MOVED_FROM, FsEventKind::MovedFrom),
        (ReadFlags::MOVED_TO, FsEventKind::MovedTo),
    ];
    kinds.into_iter().find(|(flag, _)| what.contains(*flag)).map(|(_, kind)| kind)
}

/// Returns what happened to the watched path itself.
fn kind_of_self(what: ReadFlags) -> Option<FsEventKind> {
    let kinds = [
        (ReadFlags::DELETE_SELF, FsEventKind::Removed),
        (ReadFlags::UNMOUNT, FsEventKind::Removed),
        (ReadFlags::MOVE_SELF, FsEventKind::MovedFrom),
    ];
    let of_self = kinds.into_iter().find(|(flag, _)| what.contains(*flag)).map(|(_, kind)| kind);
    of_self.or_else(|| kind_of(what))
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path.last() {
        Some(b'/') => [path, name].concat(),
        _ => [path, b"/", name].concat(),
    }
}
