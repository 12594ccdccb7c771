//! What is shown while something takes its time: on a terminal, and nowhere else.

use crate::image::Bar;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::borrow::Cow;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// What takes less than this is not talked about.
const DELAY: Duration = Duration::from_millis(400);
/// How often the picture moves.
const TICK: Duration = Duration::from_millis(100);

/// Waits, and shows on standard error for what once it takes longer than a moment; nothing is left
/// of it on the terminal, however the wait ends.
pub(crate) async fn during<T>(
    quiet: bool,
    what: impl Into<Cow<'static, str>>,
    waiting: impl Future<Output = T>,
) -> T {
    beside(&Bar::new(quiet), what, waiting).await
}

/// As [`during`], beside the bar of an image, while that shows nothing.
pub(crate) async fn beside<T>(
    bar: &Bar,
    what: impl Into<Cow<'static, str>>,
    waiting: impl Future<Output = T>,
) -> T {
    let _cleared = Cleared(bar);
    if bar.is_quiet() {
        return waiting.await;
    }
    let mut waiting = pin!(waiting);
    if let Ok(result) = timeout(DELAY, &mut waiting).await {
        return result;
    }
    let (begun, what, mut spinner) = (Instant::now(), what.into(), None);
    loop {
        if bar.is_getting() {
            spinner = None;
        } else {
            let elapsed = DELAY + begun.elapsed();
            spinner.get_or_insert_with(|| spinner_of(what.clone(), elapsed)).tick();
        }
        if let Ok(result) = timeout(TICK, &mut waiting).await {
            return result;
        }
    }
}

fn spinner_of(what: Cow<'static, str>, elapsed: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner()
        .with_style(style)
        .with_message(what)
        .with_elapsed(elapsed)
        .with_finish(ProgressFinish::AndClear)
}

/// Takes a bar off the terminal, also when nobody waits any more.
struct Cleared<'a>(&'a Bar);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}
