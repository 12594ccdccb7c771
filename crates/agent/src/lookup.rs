//! Looks users up on a thread of its own.
//!
//! `/etc/passwd` is the guest's: it can be on a file system that never answers. Invariant: the
//! agent's own thread waits for no file, and a lookup takes [`LIMIT`] at most; while one is overdue,
//! others are refused at once.

use crate::accounts::{self, Account, AccountError};
use std::cell::RefCell;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a lookup may take.
const LIMIT: Duration = Duration::from_secs(5);

type Answer = Result<Account, AccountError>;

struct Request {
    user: Option<String>,
    answer: oneshot::Sender<Answer>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lookup {
    requests: mpsc::Sender<Request>,
    /// The last one that did not come in time.
    overdue: RefCell<Option<oneshot::Receiver<Answer>>>,
    limit: Duration,
}

impl Lookup {
    /// Starts the thread. Before any command runs: later there may be no room for one.
    pub(crate) fn start() -> io::Result<Lookup> {
        Lookup::with(LIMIT, accounts::resolve)
    }

    fn with(
        limit: Duration,
        mut resolve: impl FnMut(Option<&str>) -> Answer + Send + 'static,
    ) -> io::Result<Lookup> {
        let (requests, queue) = mpsc::channel::<Request>();
        thread::Builder::new().name("msb-lookup".to_owned()).stack_size(256 * 1024).spawn(
            move || {
                for Request { user, answer } in queue {
                    // One that nobody waits for any more is not worth a look.
                    if !answer.is_closed() {
                        let _ = answer.send(resolve(user.as_deref()));
                    }
                }
            },
        )?;
        Ok(Lookup { requests, overdue: RefCell::default(), limit })
    }

    /// Resolves a user specification in the running image; `None` is root.
    pub(crate) async fn resolve(&self, user: Option<&str>) -> Answer {
        if self.is_stuck() {
            return accounts::without_files(user);
        }
        let (answer, mut response) = oneshot::channel();
        let request = Request { user: user.map(str::to_owned), answer };
        if self.requests.send(request).is_err() {
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
    async fn j5_stuck_lookup_delays_others_once() {
        let (release, released) = mpsc::channel::<()>();
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
        // While it is stuck: at once, and numbers need no file.
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
