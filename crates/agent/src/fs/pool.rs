//! The threads that work on files.
//!
//! A file system may block a thread for ever: a server that is gone, a FUSE file system of the
//! guest. Each thread does one step of an operation at a time, and the agent's main thread none.
//! Invariant: a blocked thread holds up only its own operation, until [`THREADS`] are blocked; then
//! a step that finds no thread within [`PATIENCE`] fails.

use super::error::{Result, busy, error};
use super::identity::Identity;
use crate::accounts::Account;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use msb_wire::FsErrorKind;
use rustix::io::Errno;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Threads at most (a count).
const THREADS: usize = 48;
/// Threads that are started with the agent, before a limit of processes may forbid others (a count).
const KEPT: usize = 1;
/// Jobs that wait or run at most (a count), but for values that are dropped: those were opened by
/// earlier steps.
const JOBS: usize = 4096;
/// How long a step waits for a thread.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a further thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// Stack of a thread, in bytes.
const STACK: usize = 512 * 1024;

struct Job {
    account: Arc<Account>,
    /// Gets why the thread could not become the user.
    run: Box<dyn FnOnce(rustix::io::Result<()>) + Send>,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    shared: Arc<Shared>,
    most: usize,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    threads: AtomicUsize,
    /// Jobs that wait or run.
    pending: Mutex<usize>,
    finished: Condvar,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, usize> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub(crate) fn start() -> io::Result<Pool> {
        Pool::with(THREADS, PATIENCE)
    }

    pub(super) fn with(most: usize, patience: Duration) -> io::Result<Pool> {
        let (jobs, queue) = unbounded();
        let pool = Pool { jobs, queue, shared: Arc::default(), most, patience };
        for _ in 0..KEPT.min(most) {
            pool.add_thread(true)?;
        }
        Ok(pool)
    }

    fn add_thread(&self, is_kept: bool) -> io::Result<()> {
        let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
        self.shared.threads.fetch_add(1, Ordering::Relaxed);
        let thread = thread::Builder::new().name("msb-files".to_owned()).stack_size(STACK);
        let started = thread.spawn(move || {
            work(&queue, &shared, is_kept);
            shared.threads.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            self.shared.threads.fetch_sub(1, Ordering::Relaxed);
        }
        started.map(drop)
    }

    fn submit(&self, job: Job) {
        let pending = {
            let mut pending = self.shared.pending();
            *pending += 1;
            *pending
        };
        let threads = self.shared.threads.load(Ordering::Relaxed);
        if pending > threads && threads < self.most {
            // Without it, the job waits for one of the others.
            let _ = self.add_thread(false);
        }
        // The pool holds a receiver.
        let _ = self.jobs.send(job);
    }

    /// Fails if too many jobs wait: those of steps that gave up stay until a thread takes them.
    fn check_room(&self) -> Result<()> {
        match *self.shared.pending() < JOBS {
            true => Ok(()),
            false => Err(blocked()),
        }
    }

    /// Waits until no job is left, for a limited time.
    pub(crate) fn finish(&self, limit: Duration) {
        let (pending, finished) = (self.shared.pending(), &self.shared.finished);
        // Poisoned or not, the agent exits.
        drop(finished.wait_timeout_while(pending, limit, |pending| *pending > 0));
    }
}

/// Does jobs until the pool is dropped; one that is not kept, until there are none for a while.
fn work(queue: &Receiver<Job>, shared: &Shared, is_kept: bool) {
    let mut identity = Identity::of_thread();
    loop {
        let Job { account, run } = match queue.recv_timeout(IDLE) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) if is_kept => continue,
            Err(_) => return,
        };
        run(identity.assume(&account));
        *shared.pending() -= 1;
        shared.finished.notify_all();
    }
}

fn blocked() -> msb_wire::FsError {
    busy("start", b"", "too many operations on files are blocked")
}

/// Runs steps as one user.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pool: Rc<Pool>,
    account: Arc<Account>,
}

impl Runner {
    pub(super) fn new(pool: Rc<Pool>, account: Account) -> Runner {
        Runner { pool, account: Arc::new(account) }
    }

    /// Returns whether the user is root.
    pub(super) fn is_root(&self) -> bool {
        self.account.uid == 0
    }

    /// Runs a step on a thread. If the caller stops waiting, what the step owns is dropped there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.pool.check_room()?;
        let (start, started) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |identity: rustix::io::Result<()>| {
            if start.send(identity).is_ok() && identity.is_ok() {
                let _ = answer.send(step());
            }
        });
        self.pool.submit(Job { account: Arc::clone(&self.account), run });
        match timeout(self.pool.patience, started).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(errno))) => {
                let why = "the agent cannot become the user";
                return Err(error(FsErrorKind::PermissionDenied, errno, "become", b"", why));
            }
            _ => return Err(blocked()),
        }
        answered.await.map_err(|_| {
            error(FsErrorKind::Filesystem, Errno::IO, "perform", b"", "the operation broke off")
        })
    }

    /// Runs a step that may take long, and that asks whether the caller still waits.
    pub(super) async fn run_long<T: Send + 'static>(
        &self,
        step: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T> {
        let waits = Arc::new(());
        let caller = Arc::downgrade(&waits);
        let result = self.run(move || step(&|| caller.strong_count() == 0)).await;
        drop(waits);
        result
    }

    /// Drops a value on a thread, as the user.
    fn discard<T: Send + 'static>(&self, value: T) {
        let run = Box::new(move |_| drop(value));
        self.pool.submit(Job { account: Arc::clone(&self.account), run });
    }

    /// Keeps a value for steps.
    pub(super) fn keep<T: Send + 'static>(&self, value: T) -> Kept<T> {
        Kept { value: Some(value), runner: self.clone() }
    }
}

/// A value that only steps use, and that is dropped on a thread: closing a file may block, and an
/// unfinished one is removed.
#[derive(Debug)]
pub(super) struct Kept<T: Send + 'static> {
    value: Option<T>,
    runner: Runner,
}

impl<T: Send + 'static> Kept<T> {
    /// Returns the value, unless a step broke off.
    pub(super) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Runs a step on the value.
    pub(super) async fn with<R: Send + 'static>(
        &mut self,
        step: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        // Before the value is taken: the main thread must not drop it.
        self.runner.pool.check_room()?;
        let mut value = self.take()?;
        let step = move || {
            let result = step(&mut value);
            (value, result)
        };
        let (value, result) = self.runner.run(step).await?;
        self.value = Some(value);
        result
    }

    /// Runs the last step, which takes the value.
    pub(super) async fn finish<R: Send + 'static>(
        mut self,
        step: impl FnOnce(T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.runner.pool.check_room()?;
        let value = self.take()?;
        self.runner.run(move || step(value)).await?
    }

    fn take(&mut self) -> Result<T> {
        let gone =
            || error(FsErrorKind::Filesystem, Errno::IO, "perform", b"", "broken off before");
        self.value.take().ok_or_else(gone)
    }
}

impl<T: Send + 'static> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.runner.discard(value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use msb_wire::FsErrorKind;
    use std::sync::atomic::AtomicBool;

    fn runner(most: usize, patience: Duration) -> Runner {
        let account = Account {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            name: String::new(),
            home: String::new(),
        };
        Runner::new(Rc::new(Pool::with(most, patience).unwrap()), account)
    }

    /// Begins a step that blocks until the sender is dropped.
    fn block(runner: &Runner) -> (Sender<()>, tokio::task::JoinHandle<()>) {
        let (release, released) = unbounded::<()>();
        let runner = runner.clone();
        let task = tokio::task::spawn_local(async move {
            let _ = runner.run(move || released.recv().is_err()).await;
        });
        (release, task)
    }

    #[test]
    fn j5_blocked_steps_are_replaced_until_all_threads_are() {
        crate::fs::testing::run(async || {
            let runner = runner(3, Duration::from_secs(2));
            let blocked = [block(&runner), block(&runner)];
            tokio::task::yield_now().await;
            assert_eq!(runner.run(|| 7).await.unwrap(), 7, "one thread is left");
            let last = block(&runner);
            tokio::task::yield_now().await;
            let error = runner.run(|| 7).await.unwrap_err();
            assert_eq!((error.kind, error.errno), (FsErrorKind::Busy, 11));
            drop(last.0);
            last.1.await.unwrap();
            assert_eq!(runner.run(|| 7).await.unwrap(), 7);
            drop(blocked);
        });
    }

    #[test]
    fn j5_steps_beyond_the_bound_are_refused_at_once() {
        crate::fs::testing::run(async || {
            let runner = runner(1, Duration::from_secs(60));
            let (release, task) = block(&runner);
            let waiting = (1..JOBS).map(|_| {
                let runner = runner.clone();
                tokio::task::spawn_local(async move { runner.run(|| ()).await.is_ok() })
            });
            let waiting: Vec<_> = waiting.collect();
            while runner.pool.check_room().is_ok() {
                tokio::task::yield_now().await;
            }
            assert_eq!(runner.run(|| ()).await.unwrap_err().kind, FsErrorKind::Busy);
            drop(release);
            task.await.unwrap();
            for step in waiting {
                assert!(step.await.unwrap());
            }
            runner.run(|| ()).await.unwrap();
        });
    }

    #[test]
    fn k3_kept_value_is_dropped_on_a_thread_also_after_a_refusal() {
        struct Noticed(Arc<AtomicBool>, thread::ThreadId);
        impl Drop for Noticed {
            fn drop(&mut self) {
                assert_ne!(thread::current().id(), self.1, "dropped on the main thread");
                self.0.store(true, Ordering::Release);
            }
        }
        crate::fs::testing::run(async || {
            let runner = runner(1, Duration::from_millis(50));
            let (first, second) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
            let main = thread::current().id();
            drop(runner.keep(Noticed(Arc::clone(&first), main)));
            let (release, task) = block(&runner);
            tokio::task::yield_now().await;
            let mut kept = runner.keep(Noticed(Arc::clone(&second), main));
            assert_eq!(kept.with(|_| Ok(())).await.unwrap_err().kind, FsErrorKind::Busy);
            drop(release);
            task.await.unwrap();
            runner.pool.finish(Duration::from_secs(10));
            assert!(first.load(Ordering::Acquire) && second.load(Ordering::Acquire));
        });
    }
}
