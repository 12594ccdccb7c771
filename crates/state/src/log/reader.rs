//! The reader of the log.

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

/// How often a following reader checks whether the sandbox still runs. New records wake it.
const CHECK_PERIOD: Duration = Duration::from_millis(50);

/// Which records to read.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Only this session's records.
    pub session: Option<String>,
    /// Only records from this time on.
    pub since: Option<SystemTime>,
    /// Follow the log until the sandbox ends.
    pub follow: bool,
}

/// Reads a sandbox's log in order, also while it is written and after the sandbox has ended.
#[derive(Debug)]
pub struct LogReader {
    folder: PathBuf,
    /// Device and inode of the folder, which may be replaced.
    identity: (u64, u64),
    options: LogOptions,
    lock: SandboxLock,
    watch: Option<OwnedFd>,
    /// The file being read, with its number.
    current: Option<(u64, BufReader<File>)>,
    /// The current, incomplete line.
    line: Vec<u8>,
    last: u64,
    missed: u64,
    over: bool,
}

/// The result of a step.
#[derive(Debug)]
pub enum LogStep {
    /// The next record.
    Record(LogRecord),
    /// No record now; more may come.
    Nothing,
    /// No more records.
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
            // Its first start has not created the log yet.
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

    /// Returns how many whole files were rotated away before they were read.
    pub fn missed_files(&self) -> u64 {
        self.missed
    }

    /// Returns why the log ended before the sandbox, if it did.
    pub fn failure(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(FAILURE)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Returns the next record without waiting.
    pub fn step(&mut self) -> Result<LogStep> {
        while !self.over {
            // Check first: the read below then finds everything written before the end.
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

    /// Waits for new records, for a short time at most.
    pub fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: CHECK_PERIOD.subsec_nanos().into() };
        let mut fds: Vec<PollFd<'_>> =
            self.watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)).collect();
        if poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
            && let Some(watch) = &self.watch
        {
            // Discards the events; the descriptor is non-blocking.
            let _ = rustix::io::read(watch, &mut [0; 4096]);
        }
    }

    fn is_wanted(&self, record: &LogRecord) -> bool {
        let LogOptions { session, since, .. } = &self.options;
        session.as_ref().is_none_or(|session| *session == record.session)
            && since.is_none_or(|since| record.time >= since)
    }

    /// Returns the next available record.
    fn read(&mut self) -> Result<Option<LogRecord>> {
        loop {
            match self.read_line()? {
                // A truncated line is skipped.
                true => {
                    let record = LogRecord::parse(&self.line);
                    self.line.clear();
                    if record.is_some() {
                        return Ok(record);
                    }
                }
                false => {
                    let Some(next) = self.next_number()? else { return Ok(None) };
                    // The file was completed before the next one was started, perhaps after the
                    // last read.
                    if self.read_line()? {
                        continue;
                    }
                    self.open_file(next)?;
                }
            }
        }
    }

    /// Reads on; returns whether the line is complete.
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
            // Rotated away in the meantime; there are later ones.
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

/// Blocks while following.
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

/// Returns a descriptor that polls readable when the folder changes. Without inotify, which is
/// limited per user, the reader polls.
fn watch(folder: &Path) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).ok()?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
    inotify::add_watch(&watch, folder, events).ok()?;
    Some(watch)
}
