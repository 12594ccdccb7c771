//! What is shown while something takes its time: on a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use std::borrow::Cow;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

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
    if quiet || !std::io::stderr().is_terminal() {
        return waiting.await;
    }
    let mut waiting = pin!(waiting);
    if let Ok(result) = tokio::time::timeout(DELAY, &mut waiting).await {
        return result;
    }
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(what)
        .with_elapsed(DELAY)
        .with_finish(ProgressFinish::AndClear);
    bar.enable_steady_tick(TICK);
    waiting.await
}
