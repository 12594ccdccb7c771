//! Writing to a command's standard input.

use crate::error::MicrosandboxResult;
use crate::runtime;
use msb_client::SinkCore;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// The writing end of a command's standard input, taken by
/// [`ExecHandle::take_stdin`](crate::ExecHandle::take_stdin).
///
/// Independent of the handle: either may be dropped first. Dropping the sink ends the input.
#[derive(Debug)]
pub struct ExecSink {
    core: SinkCore,
}

impl ExecSink {
    pub(crate) fn new(core: SinkCore) -> Self {
        ExecSink { core }
    }

    /// Writes all of `data`, and waits while the command does not read. An empty write has no
    /// effect.
    ///
    /// If the future is dropped, bytes written until then stay written. Concurrent writes may be
    /// interleaved.
    pub async fn write(&self, data: impl AsRef<[u8]>) -> MicrosandboxResult<()> {
        runtime::check_fork()?;
        Ok(self.core.write_all(data.as_ref()).await?)
    }

    /// Writes as much as there is room for, and waits for room until the deadline. Returns how many
    /// bytes were taken, at least one unless `data` is empty; `None` if there was no room.
    pub fn write_until(
        &self,
        data: &[u8],
        deadline: Option<Instant>,
    ) -> Option<MicrosandboxResult<usize>> {
        self.core.write_until(data, deadline).map(|written| Ok(written?))
    }

    /// Returns a descriptor that polls readable while there is room or the input is closed.
    pub fn fd(&self) -> MicrosandboxResult<BorrowedFd<'_>> {
        Ok(self.core.fd()?)
    }

    /// Ends the input as [`ExecSink::close`], without an executor.
    pub fn close_now(&self) {
        self.core.close();
    }

    /// Ends the input: the command reads end of file, or its terminal receives the end-of-file key.
    /// Idempotent.
    pub async fn close(&self) -> MicrosandboxResult<()> {
        runtime::check_fork()?;
        self.core.close();
        Ok(())
    }

    /// Drops the sink without ending the input; a later reattach can continue it.
    pub fn leave_open(self) {
        drop(self.core.leaving_input_open());
    }
}
