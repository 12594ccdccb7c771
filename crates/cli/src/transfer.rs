//! Content of files between a sandbox and the standard streams.

use crate::failure::Failure;
use crate::stdio;
use microsandbox::{FsReadStream, FsWriteSink, Sandbox, SandboxFsOps};
use std::io;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Bytes that are read from standard input at once.
const BUFFER: usize = 64 * 1024;

/// Returns the operations on files as a user.
pub(crate) fn files<'a>(sandbox: &'a Sandbox, user: Option<&String>) -> SandboxFsOps<'a> {
    match user {
        Some(user) => sandbox.fs().as_user(user),
        None => sandbox.fs(),
    }
}

/// Writes standard input, to its end.
pub(crate) async fn feed(sink: &FsWriteSink) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(format!("cannot read standard input: {error}"));
    let input = Arc::new(stdio::duplicate(io::stdin()).map_err(failed)?);
    loop {
        let input = Arc::clone(&input);
        let read = spawn_blocking(move || {
            let mut buffer = vec![0; BUFFER];
            let length = stdio::read(&input, &mut buffer)?;
            buffer.truncate(length);
            Ok(buffer)
        });
        let chunk = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let chunk = chunk.map_err(failed)?;
        if chunk.is_empty() {
            return Ok(());
        }
        sink.write(chunk).await?;
    }
}

/// Prints all that a stream has.
pub(crate) async fn print(stream: &FsReadStream) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::write("standard output", &error);
    let output = Arc::new(stdio::duplicate(io::stdout()).map_err(failed)?);
    while let Some(data) = stream.recv().await? {
        let output = Arc::clone(&output);
        let written = spawn_blocking(move || stdio::write_all(&output, &data)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)?;
    }
    Ok(())
}
