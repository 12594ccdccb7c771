//! The rights of a worker thread.
//!
//! A thread takes the effective ids of a user, which takes its capabilities away: the kernel checks
//! every path as it does for a process of that user. The real and saved ids stay, so that the
//! thread can return, and so that no process of the user can signal it. Linux keeps all of these
//! for each thread on its own.

use crate::accounts::Account;
use crate::sys;
use rustix::io::{Errno, Result};
use rustix::process::{getegid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use rustix::{fs::Gid, fs::Uid};
use std::sync::Arc;

/// The identity of one thread.
#[derive(Debug)]
pub(super) struct Identity {
    own: (Uid, Gid),
    current: Option<Arc<Account>>,
    is_limited: bool,
}

impl Identity {
    /// Creates the identity of this thread, and gives it the capabilities of commands.
    pub(super) fn of_thread() -> Identity {
        let is_limited = sys::drop_thread_capabilities();
        Identity { own: (geteuid(), getegid()), current: None, is_limited }
    }

    /// Becomes a user.
    pub(super) fn assume(&mut self, account: &Arc<Account>) -> Result<()> {
        if self.current.as_ref().is_some_and(|current| current == account) {
            return Ok(());
        }
        if !self.is_limited {
            return Err(Errno::PERM);
        }
        self.current = None;
        let (own_uid, own_gid) = self.own;
        // Only root may change groups.
        set_thread_res_uid(own_uid, own_uid, own_uid)?;
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        if !own_uid.is_root() {
            // An agent of an ordinary user has that user's rights only.
            if uid != own_uid {
                return Err(Errno::PERM);
            }
        } else {
            let groups: Vec<Gid> = account.groups.iter().copied().map(Gid::from_raw).collect();
            set_thread_groups(&groups)?;
            set_thread_res_gid(own_gid, gid, own_gid)?;
            set_thread_res_uid(own_uid, uid, own_uid)?;
        }
        self.current = Some(Arc::clone(account));
        Ok(())
    }
}
