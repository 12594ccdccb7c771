//! What msb writes to its standard streams on behalf of a command or a sandbox.

use crate::failure::Failure;
use crate::stdio;
use crate::text;
use serde_json::Value;
use std::fs::File;
use std::io;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// Prints text on standard output.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let written =
        stdio::duplicate(io::stdout()).and_then(|file| stdio::write_all(&file, text.as_ref()));
    written.map_err(|error| Failure::write(Stream::Stdout.name(), &error))
}

/// Prints a JSON document, escaped so that nothing in it controls a terminal.
pub(crate) fn print_json(document: &Value) -> Result<(), Failure> {
    print(microsandbox::escape_json(&format!("{document:#}\n")).as_bytes())
}

/// How one entry of a list is shown: in JSON, by its id alone, or as rows of a table.
pub(crate) struct Entry<T, const N: usize> {
    pub(crate) json: fn(&T) -> Value,
    pub(crate) id: fn(&T) -> &str,
    pub(crate) heads: [&'static str; N],
    pub(crate) rows: fn(&T) -> Vec<[String; N]>,
}

/// Prints a list as one JSON array, as ids if `quiet`, or as a table.
pub(crate) fn print_list<T, const N: usize>(
    all: &[T],
    entry: &Entry<T, N>,
    json: bool,
    quiet: bool,
) -> Result<u8, Failure> {
    if json {
        print_json(&all.iter().map(entry.json).collect())?;
    } else if quiet {
        print(text::lines(all.iter().map(entry.id)))?;
    } else {
        print(text::table(entry.heads, all.iter().flat_map(entry.rows).collect()))?;
    }
    Ok(0)
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "standard output",
            Stream::Stderr => "standard error",
        }
    }
}

/// Both output streams. One write at a time for both keeps the order of output where they lead to
/// the same file.
#[derive(Debug)]
pub(crate) struct Outputs {
    stdout: Arc<File>,
    stderr: Arc<File>,
    pending: Option<(Stream, JoinHandle<io::Result<()>>)>,
}

impl Outputs {
    pub(crate) fn open() -> Result<Self, Failure> {
        let open = |stream: Stream, file: io::Result<File>| {
            file.map(Arc::new).map_err(|error| Failure::write(stream.name(), &error))
        };
        let stdout = open(Stream::Stdout, stdio::duplicate(io::stdout()))?;
        let stderr = open(Stream::Stderr, stdio::duplicate(io::stderr()))?;
        Ok(Outputs { stdout, stderr, pending: None })
    }

    fn file(&self, stream: Stream) -> &Arc<File> {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// Writes and blocks until done.
    pub(crate) fn write(&self, stream: Stream, data: &[u8]) -> Result<(), Failure> {
        let written = stdio::write_all(self.file(stream), data);
        written.map_err(|error| Failure::write(stream.name(), &error))
    }

    /// Starts a write on a thread that may block.
    pub(crate) fn start_write(&mut self, stream: Stream, data: impl AsRef<[u8]> + Send + 'static) {
        let file = Arc::clone(self.file(stream));
        let task = spawn_blocking(move || stdio::write_all(&file, data.as_ref()));
        self.pending = Some((stream, task));
    }

    /// Whether a started write has not been waited for.
    pub(crate) fn is_writing(&self) -> bool {
        self.pending.is_some()
    }

    /// Waits for the started write. Cancel-safe: the write continues and can be awaited again.
    pub(crate) async fn written(&mut self) -> Result<(), Failure> {
        let Some((stream, task)) = &mut self.pending else { return Ok(()) };
        let (stream, result) = (*stream, task.await);
        self.pending = None;
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|error| Failure::write(stream.name(), &error))
    }
}
