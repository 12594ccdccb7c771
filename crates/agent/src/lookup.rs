//! Looks users up on a separate thread.
//!
//! The guest owns `/etc/passwd`, which may be on an unresponsive file system. Invariant: the
//! agent's main thread waits for no file, and a lookup takes at most [`LIMIT`]; while one is
//! overdue, others fail at once.

use crate::accounts::{self, Account, AccountError};
use crossbeam_channel::{Sender, bounded};
use msb_wire::limits::SESSIONS;
use std::cell::RefCell;
use std::io;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time limit of a lookup.
const LIMIT: Duration = Duration::from_secs(5);

type Resolved = Result<Account, AccountError>;

struct Request {
    user: Option<String>,
    answer: oneshot::Sender<Resolved>,
}

/// The thread for lookups.
#[derive(Debug)]
pub(crate) struct Lookup {
    requests: Sender<Request>,
    /// The pending result of an overdue lookup.
    overdue: RefCell<Option<oneshot::Receiver<Resolved>>>,
    limit: Duration,
}

impl Lookup {
    /// Starts the thread. Called before any command runs: later a process limit may forbid it.
    pub(crate) fn start() -> io::Result<Lookup> {
        Lookup::with(LIMIT, accounts::resolve)
    }

    fn with(
        limit: Duration,
        mut resolve: impl FnMut(Option<&str>) -> Resolved + Send + 'static,
    ) -> io::Result<Lookup> {
        let (requests, queue) = bounded::<Request>(SESSIONS);
        thread::Builder::new().name("msb-lookup".to_owned()).stack_size(256 * 1024).spawn(
            move || {
                for Request { user, answer } in queue {
                    if !answer.is_closed() {
                        let _ = answer.send(resolve(user.as_deref()));
                    }
                }
            },
        )?;
        Ok(Lookup { requests, overdue: RefCell::default(), limit })
    }

    /// Resolves a user specification in the running image; `None` is root.
    pub(crate) async fn resolve(&self, user: Option<&str>) -> Resolved {
        if self.is_stuck() {
            return accounts::without_files(user);
        }
        let (answer, mut response) = oneshot::channel();
        let request = Request { user: user.map(str::to_owned), answer };
        if self.requests.try_send(request).is_err() {
            return accounts::without_files(user);
        }
        match timeout(self.limit, &mut response).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => accounts::without_files(user),
            Err(_) => {
                self.overdue.replace(Some(response));
                accounts::without_files(user)
            }
        }
    }

    fn is_stuck(&self) -> bool {
        let mut overdue = self.overdue.borrow_mut();
        let stuck = overdue.as_mut().is_some_and(|response| {
            matches!(response.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        });
        if !stuck {
            *overdue = None;
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test(flavor = "current_thread")]
    async fn j5_stuck_lookup_fails_others_at_once() {
        let (release, released) = bounded::<()>(1);
        let resolve = move |user: Option<&str>| {
            if user == Some("stuck") {
                let _ = released.recv();
            }
            accounts::without_files(Some("7"))
        };
        let limit = Duration::from_millis(200);
        let lookup = Lookup::with(limit, resolve).unwrap();
        assert_eq!(lookup.resolve(Some("app")).await.unwrap().uid, 7);
        let began = Instant::now();
        let error = lookup.resolve(Some("stuck")).await.unwrap_err();
        assert!(began.elapsed() >= limit);
        assert!(matches!(error, AccountError::Unreadable { errno: 110, .. }), "{error:?}");
        // While it is stuck others fail at once; a number needs no file.
        let began = Instant::now();
        assert!(lookup.resolve(Some("app")).await.is_err());
        assert_eq!(lookup.resolve(None).await.unwrap().uid, 0);
        assert!(began.elapsed() < limit);
        release.send(()).unwrap();
        while lookup.is_stuck() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lookup.resolve(Some("app")).await.unwrap().uid, 7);
    }
}
