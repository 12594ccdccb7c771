//! The reading side of the log.

use super::files::{FAILURE, numbers, path_of};
use super::record::LogRecord;
use crate::error::{Error, Failure, Result};
use crate::home::SandboxDir;
use crate::lock::SandboxLock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a reader that follows looks whether the sandbox still runs. New records wake it.
const LOOK: Duration = Duration::from_millis(50);

/// What of the log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Only this session's records.
    pub session: Option<String>,
    /// Only records from this time on.
    pub since: Option<SystemTime>,
    /// Go on with what is still to come, until the sandbox ends.
    pub follow: bool,
}

/// Reads a sandbox's log in order, also while it is written, and after the sandbox's end.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    /// Device and inode of the folder: another may be made in its place.
    identity: (u64, u64),
    options: LogOptions,
    lock: SandboxLock,
    watch: Option<OwnedFd>,
    /// The file being read, with its number.
    current: Option<(u64, BufReader<File>)>,
    /// A line that is not complete yet.
    line: Vec<u8>,
    last: u64,
    missed: u64,
    over: bool,
}

/// What a reader has.
#[derive(Debug)]
pub enum LogStep {
    /// The next record.
    Record(LogRecord),
    /// Nothing now; more may come.
    Nothing,
    /// Nothing, ever.
    End,
}

impl LogReader {
    /// Opens the log of a sandbox, running or not.
    pub fn open(dir: &SandboxDir, options: LogOptions) -> Result<Self> {
        let Some(stored) = dir.read_config()? else {
            return Err(Error::NotFound(dir.name().clone()));
        };
        let folder = dir.log();
        let identity = match identity(&folder) {
            Ok(identity) => identity,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && stored.config.log.is_none() =>
            {
                let message = format!("sandbox {} keeps no log", dir.name());
                return Err(Failure::invalid_config(message).hint("create it with a log").into());
            }
            // Its first start has not come that far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, 0),
            Err(error) => return Err(Error::io("read", &folder, error)),
        };
        let watch = if options.follow { watch(&folder) } else { None };
        Ok(LogReader {
            folder,
            identity,
            options,
            lock: SandboxLock::open(&dir.lock())?,
            watch,
            current: None,
            line: Vec::new(),
            last: 0,
            missed: 0,
            over: false,
        })
    }

    /// How many whole files were removed, since the log was full, before they could be read.
    pub fn missed_files(&self) -> u64 {
        self.missed
    }

    /// Why the log ends before its sandbox did, if it does.
    pub fn failure(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(FAILURE)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Takes one step, without waiting.
    pub fn step(&mut self) -> Result<LogStep> {
        while !self.over {
            // Asked first: what is written before the end is found by the look that follows.
            let running = self.options.follow && self.lock.is_running()?;
            match self.read()? {
                Some(record) if self.is_wanted(&record) => return Ok(LogStep::Record(record)),
                Some(_) => {}
                None if running && self.is_same_folder() => return Ok(LogStep::Nothing),
                None => self.over = true,
            }
        }
        Ok(LogStep::End)
    }

    /// Waits until a step may have more to say, a short while at most.
    pub fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        let mut fds: Vec<PollFd<'_>> =
            self.watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)).collect();
        // An interrupted wait is a short one.
        if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
            && let Some(watch) = &self.watch
        {
            // What changed does not matter, and the descriptor does not block.
            let _ = rustix::io::read(watch, &mut [0; 4096]);
        }
    }

    fn is_wanted(&self, record: &LogRecord) -> bool {
        let LogOptions { session, since, .. } = &self.options;
        session.as_ref().is_none_or(|session| *session == record.session)
            && since.is_none_or(|since| record.time >= since)
    }

    /// The next record there is.
    fn read(&mut self) -> Result<Option<LogRecord>> {
        loop {
            match self.read_line()? {
                // A line that was cut by the death of its writer is no record.
                true => {
                    let record = LogRecord::parse(&self.line);
                    self.line.clear();
                    if record.is_some() {
                        return Ok(record);
                    }
                }
                false => {
                    let Some(next) = self.next_number()? else { return Ok(None) };
                    // The file was complete before the next was begun, but perhaps not when it was
                    // read last.
                    if self.read_line()? {
                        continue;
                    }
                    self.open_file(next)?;
                }
            }
        }
    }

    /// Whether the line is complete.
    fn read_line(&mut self) -> Result<bool> {
        if self.line.ends_with(b"\n") {
            return Ok(true);
        }
        let Some((number, file)) = &mut self.current else { return Ok(false) };
        file.read_until(b'\n', &mut self.line)
            .map_err(|error| Error::io("read", &path_of(&self.folder, *number), error))?;
        Ok(self.line.ends_with(b"\n"))
    }

    fn next_number(&self) -> Result<Option<u64>> {
        Ok(numbers(&self.folder)?.into_iter().find(|number| *number > self.last))
    }

    fn open_file(&mut self, number: u64) -> Result<()> {
        let path = path_of(&self.folder, number);
        match File::open(&path) {
            Ok(file) => {
                if self.last > 0 {
                    self.missed += number - self.last - 1;
                }
                self.line.clear();
                self.last = number;
                self.current = Some((number, BufReader::with_capacity(256 * 1024, file)));
                Ok(())
            }
            // Removed since it was seen; there are later ones.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    fn is_same_folder(&mut self) -> bool {
        match identity(&self.folder) {
            Ok(identity) if self.identity == (0, 0) => {
                self.identity = identity;
                self.watch = watch(&self.folder);
                true
            }
            Ok(identity) => self.identity == identity,
            Err(_) => self.identity == (0, 0),
        }
    }
}

/// Waits where it follows; ends where there is nothing more.
impl Iterator for LogReader {
    type Item = Result<LogRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(LogStep::Record(record)) => return Some(Ok(record)),
                Ok(LogStep::Nothing) => self.wait(),
                Ok(LogStep::End) => return None,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn identity(folder: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(folder).map(|found| (found.dev(), found.ino()))
}

/// A descriptor that polls readable when something changes in the folder. Without one, of which a
/// user may have few, the reader looks again and again.
fn watch(folder: &Path) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).ok()?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
    inotify::add_watch(&watch, folder, events).ok()?;
    Some(watch)
}
