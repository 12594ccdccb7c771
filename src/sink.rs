//! Standard input.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::Failure;
use super::handle::{Object, get, msb_sink};
use super::input::lent;
use super::sized::out;
use super::status::{MSB_AGAIN, MSB_OK, msb_status};
use super::table::{Kind, Table};
use super::wait::Timeout;
use microsandbox::ExecSink;
use std::os::fd::BorrowedFd;

impl Object for ExecSink {
    const WHAT: &'static str = "sink";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<ExecSink> = Table::new(Kind::Sink);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.fd().map_err(Failure::from)
    }

    fn on_close(&self) {
        self.close_now();
    }
}

/// Writes to a command's standard input. Waits for room up to `timeout_ms`. `data` is copied.
/// Writing no bytes is a no-op.
///
/// `MSB_OK`: `*out_written` bytes were accepted, at least 1 unless `len` is 0, perhaps fewer than
/// `len`: call again with the rest. `MSB_AGAIN`: no room. `MSB_E_PIPE`: the command no longer
/// reads. `MSB_E_CLOSED`: the sink was closed meanwhile. `MSB_E_LOST`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_sink_write(
    sink: *mut msb_sink,
    data: *const u8,
    len: usize,
    timeout_ms: i64,
    out_written: *mut usize,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_written = unsafe { out(out_written, "the number of bytes") };
    // SAFETY: as above; lent for this call.
    let data = unsafe { lent(data, len, "input") };
    boundary(err, || {
        let (sink, data, out_written) = (get::<ExecSink, _>(sink)?, data?, out_written?);
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match sink.write_until(data, deadline) {
            Some(written) => {
                out_written.write(written?);
                Ok(MSB_OK)
            }
            None => Ok(MSB_AGAIN),
        }
    })
}
