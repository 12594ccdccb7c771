//! Timeouts, and waiting for operations on the I/O thread.

use super::failure::{Failure, wrong};
use super::status::MSB_E_INVALID;
use super::sync::lock;
use microsandbox::Error;
use microsandbox::pull::{Pending, completion, spawn};
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A `timeout_ms` of the header: 0 polls, a positive one waits that long, -1 waits forever.
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
                    let text = format!("invalid timeout of {ms} ms: 0 looks, -1 waits forever");
                    wrong(MSB_E_INVALID, text)
                })?;
                let deadline = Instant::now().checked_add(Duration::from_millis(ms));
                Ok(deadline.map_or(Timeout::Forever, Timeout::Until))
            }
        }
    }

    /// Returns the time at which waiting ends; `None` for never.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Timeout::Look => Some(Instant::now()),
            Timeout::Until(deadline) => Some(deadline),
            Timeout::Forever => None,
        }
    }
}

/// The calls that block on a handle; closing the handle wakes them.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    next: u64,
    calls: Vec<(u64, Arc<dyn Wake>)>,
}

/// A call that can be woken.
trait Wake: Debug + Send + Sync {
    fn wake(&self);
}

impl<T: Debug + Send> Wake for Pending<T> {
    fn wake(&self) {
        self.close();
    }
}

impl Waits {
    /// Runs a future on the I/O thread and blocks until it is complete or the handle is closed,
    /// after which the operation continues. Must not be called on that thread.
    pub(super) fn run<T: Debug + Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (promise, pending) = completion();
        self.wait(pending, async move { promise.complete(future.await) })
    }

    /// Runs a future as [`Waits::run`] does, but closing the handle cancels the operation, and this
    /// returns after that.
    pub(super) fn run_tied<T: Debug + Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (promise, pending) = completion();
        let (done, gone) = crossbeam_channel::bounded::<()>(0);
        let result = self.wait(pending, async move {
            let result = tokio::select! {
                result = future => Some(result),
                () = promise.closed() => None,
            };
            drop(done);
            if let Some(result) = result {
                promise.complete(result);
            }
        });
        // Returns when the task ends; nothing is ever sent.
        let _ = gone.recv();
        result
    }

    fn wait<T: Debug + Send + 'static>(
        &self,
        pending: Pending<T>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<T, Failure> {
        let pending = Arc::new(pending);
        let number = self.enter(Arc::clone(&pending) as Arc<dyn Wake>);
        let result = spawn(task).map(|()| pending.wait(None));
        lock(&self.0).calls.retain(|(other, _)| *other != number);
        match result? {
            Some(result) => Ok(result?),
            None => Err(Failure::internal("a wait without a deadline ended")),
        }
    }

    fn enter(&self, call: Arc<dyn Wake>) -> u64 {
        let mut state = lock(&self.0);
        state.next += 1;
        let number = state.next;
        if state.closed {
            drop(state);
            call.wake();
        } else {
            state.calls.push((number, call));
        }
        number
    }

    /// Wakes every waiting call, and every later one at once.
    pub(super) fn close(&self) {
        let mut state = lock(&self.0);
        state.closed = true;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        calls.into_iter().for_each(|(_, call)| call.wake());
    }
}

/// Runs a future on the I/O thread and blocks until it is complete; for calls without a handle.
pub(super) fn run<T: Debug + Send + 'static>(
    future: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Failure> {
    Waits::default().run(future)
}

#[cfg(test)]
mod tests {
    use super::super::status::MSB_E_CLOSED;
    use super::*;

    #[test]
    fn timeout_is_a_look_a_wait_or_forever() {
        assert_eq!(Timeout::from_ms(0).unwrap(), Timeout::Look);
        assert_eq!(Timeout::from_ms(-1).unwrap(), Timeout::Forever);
        assert!(matches!(Timeout::from_ms(5).unwrap(), Timeout::Until(_)));
        assert_eq!(Timeout::from_ms(i64::MAX).unwrap().deadline().is_none(), {
            Instant::now().checked_add(Duration::from_millis(i64::MAX.unsigned_abs())).is_none()
        });
        assert!(Timeout::from_ms(-2).is_err());
    }

    #[test]
    fn close_wakes_waiting_and_later_calls() {
        let waits = Arc::new(Waits::default());
        let waiting = Arc::clone(&waits);
        let waiter =
            std::thread::spawn(move || waiting.run(std::future::pending::<Result<(), Error>>()));
        while lock(&waits.0).calls.is_empty() {
            std::thread::yield_now();
        }
        waits.close();
        let status = |result: Result<(), Failure>| result.unwrap_err().status;
        assert_eq!(status(waiter.join().unwrap()), MSB_E_CLOSED);
        let later = waits.run(std::future::pending::<Result<(), Error>>());
        assert_eq!(status(later), MSB_E_CLOSED);
    }
}
