//! The log of a sandbox's sessions: what they put out, byte for byte.
//!
//! Owns: the files `00000001.log` and so on in the directory `log` of a sandbox, and the form of
//! what stands in them: one JSON object a line. The runner writes them, anyone reads them at the
//! same time. Does not own: where the output comes from.
//!
//! Invariant: a file only ever grows, whole record by whole record, until the next one is begun;
//! a line that is cut, by whatever killed the writer, is never taken for a record.

mod files;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use reader::{LogOptions, LogReader, LogStep};
pub use record::{LogEvent, LogRecord, LogSource};
pub use writer::LogWriter;
