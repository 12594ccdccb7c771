//! Operations on files: the agent's side of the channel family `fs` of [`msb_wire`].
//!
//! ```text
//!  dispatch ── Operation ── task on the main thread ── steps ──> Pool of threads
//!                 │                 │                              │ rights of the user
//!              Stream: credit    Kept: what steps own           Root: paths
//! ```
//!
//! Owns: every file that a client names. The main thread never touches one: it passes *steps*, each
//! as long as one frame or one call, to the [`pool`]. What is open between two steps is [`Kept`]
//! for the threads, which also drop it: closing may block, and what is unfinished is removed.
//!
//! [`pool`]: Pool
//! [`Kept`]: pool::Kept

mod attributes;
mod copy;
mod error;
mod handles;
mod identity;
mod names;
mod operation;
mod pack;
mod place;
mod pool;
mod read;
mod root;
mod stream;
mod temporary;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]
pub(crate) mod testing;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]
mod tests;
mod unpack;
mod watch;
mod write;

use crate::accounts::AccountError;
use crate::resources::Resources;
use error::error;
use msb_wire::FsErrorKind;
use rustix::io::Errno;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::sync::Semaphore;

pub(crate) use handles::Handles;
pub(crate) use operation::Operation;
use pool::{Pool, Runner};
pub(crate) use root::Root;

/// What all operations share.
#[derive(Debug)]
pub(crate) struct Files {
    pool: Rc<Pool>,
    root: Arc<Root>,
    resources: Rc<Resources>,
    copies: Semaphore,
    /// Directories that are watched.
    watches: Arc<AtomicUsize>,
}

impl Files {
    /// Starts the threads. Called before any command runs.
    pub(crate) fn start(root: Root, resources: Rc<Resources>) -> io::Result<Rc<Files>> {
        let pool = Rc::new(Pool::start()?);
        let (root, copies) = (Arc::new(root), Semaphore::new(copy::COPIES));
        Ok(Rc::new(Files { pool, root, resources, copies, watches: Arc::default() }))
    }

    /// Returns what runs steps as a user; `None` is root.
    async fn runner(&self, user: Option<&str>) -> error::Result<Runner> {
        let account = self.resources.account(user).await.map_err(unknown_user)?;
        Ok(Runner::new(Rc::clone(&self.pool), account))
    }

    /// Returns the number of directories that are watched.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn watched(&self) -> usize {
        self.watches.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits for what was given up to be removed, for a limited time.
    pub(crate) fn finish(&self, limit: Duration) {
        self.pool.finish(limit);
    }
}

fn unknown_user(why: AccountError) -> msb_wire::FsError {
    let errno = match &why {
        AccountError::Unreadable { errno, .. } => Errno::from_raw_os_error(*errno),
        _ => Errno::NOENT,
    };
    error(FsErrorKind::UnknownUser, errno, "become", b"", &why.to_string())
}
