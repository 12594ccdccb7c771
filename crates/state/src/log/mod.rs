//! The session log: the output of a sandbox's sessions, byte for byte.
//!
//! Owns: the files `00000001.log` and so on in the directory `log` of a sandbox, and their format:
//! one JSON object a line. The runner writes them; readers can read concurrently. Does not own:
//! where the output comes from.
//!
//! Invariant: a file grows by whole records until the next file is started; a truncated line, left
//! by a killed writer, is never read as a record.

mod files;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{LogOptions, LogReader, LogStep};
pub use record::{LogEvent, LogRecord, LogSource};
pub use writer::LogWriter;
