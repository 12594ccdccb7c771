//! The pending result of a long operation.

use crate::error::Error;
use crate::monitor::{Monitor, Ready};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

#[derive(Debug)]
enum State<T, E> {
    Running,
    Done(Result<T, E>),
    Taken,
    Closed,
}

impl<T, E> Ready for State<T, E> {
    fn is_ready(&self) -> bool {
        !matches!(self, State::Running)
    }
}

impl<T, E: From<Error>> State<T, E> {
    fn is_closed(&self) -> bool {
        matches!(self, State::Closed)
    }

    fn take(&mut self) -> Option<Result<T, E>> {
        match std::mem::replace(self, State::Taken) {
            State::Running => {
                *self = State::Running;
                None
            }
            State::Done(result) => Some(result),
            State::Taken => Some(Err(Error::internal("a result was asked for twice").into())),
            State::Closed => {
                *self = State::Closed;
                Some(Err(Error::Closed.into()))
            }
        }
    }
}

/// The producer of a result. Dropping it without a result completes the operation with an error.
#[derive(Debug)]
pub struct Promise<T, E: From<Error> = Error>(Option<Arc<Monitor<State<T, E>>>>);

impl<T, E: From<Error>> Promise<T, E> {
    /// Completes the operation.
    pub fn complete(mut self, result: Result<T, E>) {
        self.finish(|| result);
    }

    /// Returns whether the [`Pending`] was closed or dropped.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_some_and(|monitor| monitor.with(|state| state.is_closed()))
    }

    /// Waits until the [`Pending`] is closed or dropped.
    pub async fn closed(&self) {
        match &self.0 {
            Some(monitor) => monitor.until(|state| state.is_closed().then_some(())).await,
            None => std::future::pending().await,
        }
    }

    fn finish(&mut self, result: impl FnOnce() -> Result<T, E>) {
        let Some(monitor) = self.0.take() else { return };
        // If the receiver is closed, the result is dropped outside the lock.
        let mut result = Some(result());
        monitor.with(|state| {
            if let (State::Running, Some(result)) = (&*state, result.take()) {
                *state = State::Done(result);
            }
        });
    }
}

impl<T, E: From<Error>> Drop for Promise<T, E> {
    fn drop(&mut self) {
        self.finish(|| Err(Error::internal("an operation was abandoned").into()));
    }
}

/// A [`Promise`] of any error type.
pub(crate) struct Reply<T>(Box<dyn FnOnce(Result<T, Error>) + Send>);

impl<T> Reply<T> {
    /// Completes the operation.
    pub(crate) fn complete(self, result: Result<T, Error>) {
        (self.0)(result);
    }
}

impl Reply<()> {
    /// Returns a reply without a receiver.
    pub(crate) fn ignored() -> Self {
        Reply(Box::new(drop))
    }
}

impl<T: Send + 'static, E: From<Error> + Send + 'static> From<Promise<T, E>> for Reply<T> {
    fn from(promise: Promise<T, E>) -> Self {
        Reply(Box::new(|result| promise.complete(result.map_err(E::from))))
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The receiver of a result, by a blocking wait or as a future. It yields the result once.
/// Dropping this does not cancel the operation, but resolves [`Promise::closed`].
#[derive(Debug)]
pub struct Pending<T, E: From<Error> = Error> {
    monitor: Arc<Monitor<State<T, E>>>,
    ticket: Option<u64>,
}

/// Creates both ends of an operation.
pub fn completion<T, E: From<Error>>() -> (Promise<T, E>, Pending<T, E>) {
    let monitor = Arc::new(Monitor::new(State::Running));
    (Promise(Some(Arc::clone(&monitor))), Pending { monitor, ticket: None })
}

impl<T, E: From<Error>> Pending<T, E> {
    /// Returns an operation that has completed.
    pub fn ready(result: Result<T, E>) -> Self {
        let (promise, pending) = completion();
        promise.complete(result);
        pending
    }

    /// Blocks until the result is available; `None` if the deadline passes first.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Result<T, E>> {
        self.monitor.sleep(deadline, State::take)
    }

    /// Discards the result and wakes every waiter.
    pub fn close(&self) {
        let old = self.monitor.with(|state| std::mem::replace(state, State::Closed));
        drop(old);
    }
}

impl<T, E: From<Error>> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.monitor.poll(cx, &mut this.ticket, State::take)
    }
}

impl<T, E: From<Error>> Drop for Pending<T, E> {
    fn drop(&mut self) {
        self.monitor.forget(self.ticket.take());
        self.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::testing::{block_on, is_readable, poll_once};
    use std::time::Duration;

    fn poll<T>(pending: &Pending<T>) -> Option<Result<T, Error>> {
        pending.wait(Some(Instant::now()))
    }

    #[test]
    fn a_result_is_received_once() {
        let (promise, pending) = completion();
        assert!(poll(&pending).is_none());
        assert!(!is_readable(pending.monitor.fd().unwrap()));
        promise.complete(Ok(5));
        assert!(is_readable(pending.monitor.fd().unwrap()));
        assert_eq!(poll(&pending).unwrap().unwrap(), 5);
        assert!(matches!(poll(&pending).unwrap().unwrap_err(), Error::Internal(_)));
    }

    #[test]
    fn dropping_the_receiver_notifies_the_producer() {
        let (promise, pending) = completion::<(), Error>();
        let mut closed = Box::pin(promise.closed());
        assert!(poll_once(&mut closed).is_pending());
        drop(pending);
        assert!(poll_once(&mut closed).is_ready());
    }

    #[test]
    fn an_abandoned_operation_ends_in_an_error() {
        let (promise, pending) = completion::<(), Error>();
        drop(promise);
        assert!(matches!(block_on(pending).unwrap_err(), Error::Internal(_)));
    }

    #[test]
    fn closing_wakes_a_sleeper() {
        let (promise, pending) = completion::<(), Error>();
        let pending = Arc::new(pending);
        let sleeper = Arc::clone(&pending);
        let deadline = Instant::now() + Duration::from_secs(60);
        let sleeper = std::thread::spawn(move || sleeper.wait(Some(deadline)));
        pending.close();
        let result = sleeper.join().unwrap().unwrap();
        assert!(matches!(result.unwrap_err(), Error::Closed));
        promise.complete(Ok(()));
        assert!(matches!(poll(&pending).unwrap().unwrap_err(), Error::Closed));
    }
}
