//! Times that callers give, and waiting for what runs on the I/O thread.

use super::boundary::{Failure, wrong};
use super::status::MSB_E_INVALID;
use crate::client::completion;
use crate::error::Error;
use crate::runtime;
use std::future::Future;
use std::time::{Duration, Instant};

/// A `timeout_ms` of the header: 0 looks, a positive one waits that long, -1 for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timeout {
    Look,
    Until(Instant),
    Forever,
}

impl Timeout {
    pub(super) fn from_ms(ms: i64) -> Result<Timeout, Failure> {
        match ms {
            0 => Ok(Timeout::Look),
            -1 => Ok(Timeout::Forever),
            ms => {
                let ms = u64::try_from(ms).map_err(|_| {
                    let text = format!("a timeout of {ms} ms: 0 looks, -1 waits for ever");
                    wrong(MSB_E_INVALID, text)
                })?;
                let deadline = Instant::now().checked_add(Duration::from_millis(ms));
                Ok(deadline.map_or(Timeout::Forever, Timeout::Until))
            }
        }
    }

    /// The moment at which waiting ends; `None` for never.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Timeout::Look => Some(Instant::now()),
            Timeout::Until(deadline) => Some(deadline),
            Timeout::Forever => None,
        }
    }
}

/// Runs a future on the I/O thread and sleeps until it is done. Never called on that thread.
pub(super) fn run<T: Send + 'static>(
    future: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let (promise, pending) = completion();
    runtime::get()?.spawn(async move { promise.complete(future.await) });
    match pending.wait(None) {
        Some(result) => result,
        None => Err(Error::internal("a wait without an end came to one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_look_a_wait_or_for_ever_and_nothing_else() {
        assert_eq!(Timeout::from_ms(0).unwrap(), Timeout::Look);
        assert_eq!(Timeout::from_ms(-1).unwrap(), Timeout::Forever);
        assert!(matches!(Timeout::from_ms(5).unwrap(), Timeout::Until(_)));
        assert_eq!(Timeout::from_ms(i64::MAX).unwrap().deadline().is_none(), {
            Instant::now().checked_add(Duration::from_millis(i64::MAX.unsigned_abs())).is_none()
        });
        assert!(Timeout::from_ms(-2).is_err());
    }
}
