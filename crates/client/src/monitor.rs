//! A value behind a lock, with three ways to wait for it.
//!
//! Owns: the waiters, and the descriptor that polls readable while the value is ready. Invariant:
//! the descriptor's level is set under the lock, in the step that changes the value.

use once_cell::sync::OnceCell;
use rustix::event::{EventfdFlags, eventfd};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Locks a mutex whose content stays valid if another holder panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that can be ready.
pub trait Ready {
    /// Returns whether a call on the value would return without waiting.
    fn is_ready(&self) -> bool;
}

/// A value that can be waited for.
#[derive(Debug)]
pub struct Monitor<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    level: OnceCell<OwnedFd>,
}

#[derive(Debug)]
struct Inner<T> {
    value: T,
    wakers: Vec<(u64, Waker)>,
    tickets: u64,
    sleepers: usize,
    raised: bool,
}

impl<T: Ready> Monitor<T> {
    /// Creates a monitor of the value.
    pub fn new(value: T) -> Self {
        let inner = Inner { value, wakers: Vec::new(), tickets: 0, sleepers: 0, raised: false };
        Monitor { inner: Mutex::new(inner), changed: Condvar::new(), level: OnceCell::new() }
    }

    /// Reads or changes the value, and wakes the waiters if it is ready afterwards.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mut inner = lock(&self.inner);
        let result = f(&mut inner.value);
        let wakers = self.settle(&mut inner);
        drop(inner);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        result
    }

    /// Blocks until `f` returns a result; `None` if the deadline passes first. Without a deadline
    /// it waits indefinitely.
    pub fn sleep<R>(
        &self,
        deadline: Option<Instant>,
        mut f: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(result) = f(&mut inner.value) {
                let wakers = self.settle(&mut inner);
                drop(inner);
                wakers.into_iter().for_each(|(_, waker)| waker.wake());
                return Some(result);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            inner.sleepers += 1;
            inner = match left {
                None => self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            inner.sleepers -= 1;
        }
    }

    /// Waits until `f` returns a result. Dropping the future has no effect.
    pub fn until<R, F: FnMut(&mut T) -> Option<R>>(&self, f: F) -> Until<'_, T, F> {
        Until { monitor: self, ticket: None, f }
    }

    /// Polls once for a task, which is woken when the value is ready.
    pub fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        ticket: &mut Option<u64>,
        f: impl FnOnce(&mut T) -> Option<R>,
    ) -> Poll<R> {
        let mut inner = lock(&self.inner);
        let result = f(&mut inner.value);
        let held = ticket.take();
        if let Some(held) = held {
            inner.wakers.retain(|(number, _)| *number != held);
        }
        if result.is_none() {
            let number = held.unwrap_or_else(|| {
                inner.tickets += 1;
                inner.tickets
            });
            inner.wakers.push((number, cx.waker().clone()));
            *ticket = Some(number);
            return Poll::Pending;
        }
        let wakers = self.settle(&mut inner);
        drop(inner);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        result.map_or(Poll::Pending, Poll::Ready)
    }

    /// Removes the waker that `ticket` names.
    pub fn forget(&self, ticket: Option<u64>) {
        if let Some(held) = ticket {
            lock(&self.inner).wakers.retain(|(number, _)| *number != held);
        }
    }

    /// Returns a descriptor that polls readable while the value is ready; created on first use.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        let mut inner = lock(&self.inner);
        let fresh = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let fd = self.level.get_or_try_init(fresh)?;
        self.set_level(&mut inner);
        Ok(fd.as_fd())
    }

    /// Signals the descriptor again for edge-triggered pollers (`EPOLLET`, as in Go), when a call
    /// returns before the value stops being ready.
    pub fn remind(&self) {
        let inner = lock(&self.inner);
        if let Some(fd) = self.level.get().filter(|_| inner.raised) {
            // One read resets any number of these; they never overflow the counter.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    /// Sets the descriptor's level, and removes and returns the wakers to be woken.
    fn settle(&self, inner: &mut Inner<T>) -> Vec<(u64, Waker)> {
        self.set_level(inner);
        if !inner.value.is_ready() {
            return Vec::new();
        }
        if inner.sleepers > 0 {
            self.changed.notify_all();
        }
        std::mem::take(&mut inner.wakers)
    }

    fn set_level(&self, inner: &mut Inner<T>) {
        let Some(fd) = self.level.get() else { return };
        let ready = inner.value.is_ready();
        // A non-blocking eventfd whose counter is 0 or 1 never fails.
        let changed = match (inner.raised, ready) {
            (false, true) => rustix::io::write(fd, &1u64.to_ne_bytes()).is_ok(),
            (true, false) => rustix::io::read(fd, &mut [0; 8]).is_ok(),
            _ => false,
        };
        if changed {
            inner.raised = ready;
        }
    }
}

/// The future of [`Monitor::until`].
#[derive(Debug)]
pub struct Until<'a, T: Ready, F> {
    monitor: &'a Monitor<T>,
    ticket: Option<u64>,
    f: F,
}

// Nothing in it is pinned.
impl<T: Ready, F> Unpin for Until<'_, T, F> {}

impl<R, T: Ready, F: FnMut(&mut T) -> Option<R>> Future for Until<'_, T, F> {
    type Output = R;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        let this = self.get_mut();
        this.monitor.poll(cx, &mut this.ticket, &mut this.f)
    }
}

impl<T: Ready, F> Drop for Until<'_, T, F> {
    fn drop(&mut self) {
        self.monitor.forget(self.ticket.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block_on, is_readable, poll_once};
    use std::sync::Arc;
    use std::time::Duration;

    #[derive(Debug)]
    struct Count(u32);

    impl Ready for Count {
        fn is_ready(&self) -> bool {
            self.0 > 0
        }
    }

    fn take(count: &mut Count) -> Option<u32> {
        (count.0 > 0).then(|| std::mem::take(&mut count.0))
    }

    #[test]
    fn change_wakes_sleeper_task_and_descriptor() {
        let monitor = Arc::new(Monitor::new(Count(0)));
        assert!(!is_readable(monitor.fd().unwrap()));
        let sleeper = Arc::clone(&monitor);
        let sleeper = std::thread::spawn(move || sleeper.sleep(None, |c| (c.0 > 0).then_some(c.0)));
        let waiter = Arc::clone(&monitor);
        let task = std::thread::spawn(move || block_on(waiter.until(|c| (c.0 > 0).then_some(c.0))));
        monitor.with(|count| count.0 = 7);
        assert_eq!((sleeper.join().unwrap(), task.join().unwrap()), (Some(7), 7));
        assert!(is_readable(monitor.fd().unwrap()));
        assert_eq!(monitor.sleep(None, take), Some(7));
        assert!(!is_readable(monitor.fd().unwrap()));
    }

    #[test]
    fn late_descriptor_shows_earlier_readiness() {
        let monitor = Monitor::new(Count(1));
        assert!(is_readable(monitor.fd().unwrap()));
    }

    #[test]
    fn edge_triggered_pollers_can_be_reminded() {
        use rustix::event::epoll;
        let monitor = Monitor::new(Count(1));
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, monitor.fd().unwrap(), epoll::EventData::new_u64(0), edges).unwrap();
        let signalled = || {
            let now = rustix::event::Timespec::default();
            let mut events = Vec::with_capacity(1);
            let room = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&set, room, Some(&now)).unwrap() == 1
        };
        assert!(signalled() && !signalled());
        monitor.remind();
        monitor.remind();
        assert!(signalled() && !signalled());
        monitor.with(take);
        assert!(!is_readable(monitor.fd().unwrap()));
        monitor.remind();
        assert!(!signalled() && !is_readable(monitor.fd().unwrap()));
    }

    #[test]
    fn sleep_ends_at_its_deadline_and_a_poll_never_waits() {
        let monitor = Monitor::new(Count(0));
        assert_eq!(monitor.sleep(Some(Instant::now()), take), None);
        let deadline = Instant::now() + Duration::from_millis(10);
        assert_eq!(monitor.sleep(Some(deadline), take), None);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn dropped_future_removes_its_waker() {
        let monitor = Monitor::new(Count(0));
        for _ in 0..100 {
            let mut wait = monitor.until(take);
            assert!(poll_once(&mut wait).is_pending());
            assert!(poll_once(&mut wait).is_pending());
        }
        assert!(lock(&monitor.inner).wakers.is_empty());
    }
}
