//! The bar that shows how far an image is; on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};
use microsandbox::{ImagePhase, ImageProgress};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Shows progress on standard error, and knows whether an image is still being got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bar {
    shown: Arc<Mutex<Option<(ImagePhase, ProgressBar)>>>,
    getting: Arc<AtomicBool>,
    quiet: bool,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Bar {
        Bar { quiet: quiet || !std::io::stderr().is_terminal(), ..Bar::default() }
    }

    /// Whether nothing is to be shown.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether nothing but an image is under way, so that leaving loses nothing.
    pub(crate) fn is_getting(&self) -> bool {
        self.getting.load(Ordering::Relaxed)
    }

    pub(crate) fn show(&self, progress: ImageProgress) {
        self.getting.store(progress.phase != ImagePhase::Starting, Ordering::Relaxed);
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
            *shown = Some((progress.phase, bar_of(progress.phase)));
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

    /// Takes the bar off the terminal.
    pub(crate) fn clear(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bar)) = shown.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar_of(phase: ImagePhase) -> ProgressBar {
    let form = match phase {
        ImagePhase::Downloading => {
            "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"
        }
        ImagePhase::Unpacking => "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}",
        _ => "{prefix} {msg}",
    };
    let bar = ProgressBar::new(0).with_prefix(phase.name());
    match ProgressStyle::with_template(form) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
