//! Progress of image pulls, on image and sandbox handles.

use super::async_op::AsyncOp;
use super::failure::Failure;
use super::sized::{Out, sized};
use super::status::{MSB_AGAIN, MSB_EOF, msb_status};
use super::wait::Timeout;
use microsandbox::image::{ImagePhase, ImageProgress};
use microsandbox::pull::{Monitor, Ready};

/// Resolves the name.
pub const MSB_PHASE_RESOLVING: u32 = 1;
/// Downloads the layers.
pub const MSB_PHASE_DOWNLOADING: u32 = 2;
/// Unpacks the layers.
pub const MSB_PHASE_UNPACKING: u32 = 3;
/// The image is complete, and the sandbox starts.
pub const MSB_PHASE_STARTING: u32 = 4;

/// Progress of an image pull or import.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_progress {
    /// `sizeof(msb_progress)`.
    pub struct_size: u32,
    /// One of `MSB_PHASE_*`. Ignore unknown phases.
    pub phase: u32,
    /// Number of layers; 0 while unknown.
    pub layers: u32,
    /// Number of layers completed in this phase.
    pub layers_done: u32,
    /// Number of bytes completed in this phase.
    pub bytes: u64,
    /// Number of bytes in this phase; 0 while unknown.
    pub bytes_total: u64,
}

sized!(msb_progress, bytes_total);

fn progress_of(progress: ImageProgress) -> msb_progress {
    msb_progress {
        struct_size: 0,
        phase: match progress.phase {
            ImagePhase::Resolving => MSB_PHASE_RESOLVING,
            ImagePhase::Downloading => MSB_PHASE_DOWNLOADING,
            ImagePhase::Unpacking => MSB_PHASE_UNPACKING,
            ImagePhase::Starting => MSB_PHASE_STARTING,
            _ => 0,
        },
        layers: progress.layers,
        layers_done: progress.layers_done,
        bytes: progress.bytes,
        bytes_total: progress.bytes_total,
    }
}

/// Implements `msb_image_progress` and `msb_sandbox_progress`; `op` selects the operation.
pub(super) fn next<S: Ready, T: Clone>(
    state: &Monitor<S>,
    op: impl Fn(&mut S) -> &mut AsyncOp<T>,
    timeout_ms: i64,
    out: Out<msb_progress>,
) -> Result<msb_status, Failure> {
    let deadline = Timeout::from_ms(timeout_ms)?.deadline();
    let found = state.sleep(deadline, |state| op(state).next_progress()).transpose()?;
    // Edge-triggered pollers may have missed the end after this progress.
    state.remind();
    Ok(match found {
        Some(Some(progress)) => out.write(&progress_of(progress)),
        Some(None) => MSB_EOF,
        None => MSB_AGAIN,
    })
}
