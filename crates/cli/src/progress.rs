//! Progress of long operations on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use microsandbox::{ImagePhase, ImageProgress};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Operations shorter than this show no spinner.
const DELAY: Duration = Duration::from_millis(400);
/// Interval between two frames of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// The progress bar of an image pull or import.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageBar {
    shown: Arc<Mutex<Option<(ImagePhase, ProgressBar)>>>,
    pulling: Arc<AtomicBool>,
    quiet: bool,
}

impl ImageBar {
    pub(crate) fn new(quiet: bool) -> ImageBar {
        ImageBar { quiet: quiet || !std::io::stderr().is_terminal(), ..ImageBar::default() }
    }

    /// Whether only an image is in progress, so that there is no sandbox yet to clean up.
    pub(crate) fn is_pulling(&self) -> bool {
        self.pulling.load(Ordering::Relaxed)
    }

    /// Shows the progress of the image.
    pub(crate) fn show(&self, progress: ImageProgress) {
        self.pulling.store(progress.phase != ImagePhase::Starting, Ordering::Relaxed);
        if self.quiet {
            return;
        }
        if progress.phase == ImagePhase::Starting {
            return self.clear();
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(phase, _)| *phase != progress.phase) {
            if let Some((_, old)) = shown.take() {
                old.finish_and_clear();
            }
            *shown = Some((progress.phase, bar(progress.phase)));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes);
            if progress.layers > 0 {
                let (done, all) = (progress.layers_done, progress.layers);
                bar.set_message(format!("{done}/{all} layers"));
            }
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bar)) = shown.take() {
            bar.finish_and_clear();
        }
    }
}

/// The progress of a copy.
#[derive(Debug, Clone)]
pub(crate) struct CopyBar(Option<ProgressBar>);

impl CopyBar {
    pub(crate) fn new(quiet: bool) -> CopyBar {
        if quiet || !std::io::stderr().is_terminal() {
            return CopyBar(None);
        }
        let style = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        CopyBar(Some(bar.with_finish(ProgressFinish::AndClear)))
    }

    /// Shows how many bytes were copied.
    pub(crate) fn show(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn bar(phase: ImagePhase) -> ProgressBar {
    let template = match phase {
        ImagePhase::Downloading => {
            "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"
        }
        ImagePhase::Unpacking => "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}",
        _ => "{prefix} {msg}",
    };
    let bar = ProgressBar::new(0).with_prefix(phase.name());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Waits for `future` and shows a spinner with `message` if it takes longer than a moment.
pub(crate) async fn spin<T>(
    quiet: bool,
    message: impl Into<Cow<'static, str>>,
    future: impl Future<Output = T>,
) -> T {
    spin_beside(&ImageBar::new(quiet), message, future).await
}

/// As [`spin`], while `bar` shows nothing.
pub(crate) async fn spin_beside<T>(
    bar: &ImageBar,
    message: impl Into<Cow<'static, str>>,
    future: impl Future<Output = T>,
) -> T {
    let _cleared = ClearOnDrop(bar);
    if bar.quiet {
        return future.await;
    }
    let mut future = pin!(future);
    if let Ok(result) = timeout(DELAY, &mut future).await {
        return result;
    }
    let (start, message, mut shown) = (Instant::now(), message.into(), None);
    loop {
        if bar.is_pulling() {
            shown = None;
        } else {
            let elapsed = DELAY + start.elapsed();
            shown.get_or_insert_with(|| spinner(message.clone(), elapsed)).tick();
        }
        if let Ok(result) = timeout(TICK, &mut future).await {
            return result;
        }
    }
}

fn spinner(message: Cow<'static, str>, elapsed: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner()
        .with_style(style)
        .with_message(message)
        .with_elapsed(elapsed)
        .with_finish(ProgressFinish::AndClear)
}

/// Removes a bar from the terminal, also when the wait is cancelled.
struct ClearOnDrop<'a>(&'a ImageBar);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}
