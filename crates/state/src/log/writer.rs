//! The writer of the log.

use super::files::{FAILURE, FAILURE_ROOM, numbers, path_of};
use super::record::{LogEvent, LogSource, put_data, put_event};
use crate::config::LogConfig;
use crate::dirs::create_private_dir;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The writer of a sandbox's log, of which there is one.
#[derive(Debug)]
pub struct LogWriter {
    folder: PathBuf,
    config: LogConfig,
    number: u64,
    file: File,
    size: u64,
    note: File,
    /// Buffer for the lines of one record.
    lines: Vec<u8>,
}

impl LogWriter {
    /// Opens the log in a directory, to append to it.
    pub fn open(folder: &Path, config: LogConfig) -> Result<Self> {
        create_private_dir(folder)?;
        let note_path = folder.join(FAILURE);
        let note = options().write(true).create(true).open(&note_path);
        let note = note.and_then(|note| {
            note.write_all_at(&[b' '; FAILURE_ROOM], 0)?;
            Ok(note)
        });
        let note = note.map_err(|error| Error::io("write", &note_path, error))?;
        let number = numbers(folder)?.last().copied().unwrap_or(1);
        let path = path_of(folder, number);
        let opened = open_at_end(&path).map_err(|error| Error::io("open", &path, error));
        let (file, size) = opened?;
        let folder = folder.to_path_buf();
        Ok(LogWriter { folder, config, number, file, size, note, lines: Vec::new() })
    }

    /// Writes output of a session.
    pub fn data(&mut self, session: &str, stream: LogSource, data: &[u8]) -> Result<()> {
        self.lines.clear();
        put_data(&mut self.lines, SystemTime::now(), session, stream, data);
        self.flush()
    }

    /// Writes an event of a session.
    pub fn event(&mut self, session: &str, event: &LogEvent) -> Result<()> {
        self.lines.clear();
        put_event(&mut self.lines, SystemTime::now(), session, event);
        self.flush()
    }

    /// Records that the log ends here, and why.
    pub fn record_failure(&self, why: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let mut text: String = format!("{time} {why}").replace('\n', " ");
        while text.len() >= FAILURE_ROOM {
            text.pop();
        }
        let mut note = text.into_bytes();
        note.resize(FAILURE_ROOM, b' ');
        // Best effort: the note is for users.
        let _ = self.note.write_all_at(&note, 0);
    }

    fn flush(&mut self) -> Result<()> {
        let length = self.lines.len() as u64;
        if self.size > 0 && self.size + length > self.config.max_bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&self.lines) {
            // Remove a partial write, so that the file ends with a whole record.
            let _ = self.file.set_len(self.size);
            return Err(Error::io("write", &path_of(&self.folder, self.number), error));
        }
        self.size += length;
        Ok(())
    }

    /// Starts the next file. Removes the oldest first, so that the limit is never exceeded.
    fn rotate(&mut self) -> Result<()> {
        let there = numbers(&self.folder)?;
        let keep = usize::try_from(self.config.files).unwrap_or(usize::MAX).saturating_sub(1);
        for number in there.iter().take(there.len().saturating_sub(keep)) {
            let path = path_of(&self.folder, *number);
            fs::remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        let number = self.number + 1;
        let path = path_of(&self.folder, number);
        let file = options().append(true).create_new(true).open(&path);
        self.file = file.map_err(|error| Error::io("create", &path, error))?;
        (self.number, self.size) = (number, 0);
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Opens a file to append to, after a whole line.
fn open_at_end(path: &Path) -> io::Result<(File, u64)> {
    let mut file = options().read(true).append(true).create(true).open(path)?;
    let mut size = file.seek(SeekFrom::End(0))?;
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != [b'\n'] {
            // An earlier writer was killed in mid-line; readers skip such a line.
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}
