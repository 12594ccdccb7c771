//! Confines the host processes of a sandbox.
//!
//! Owns: the user and group ids that a sandbox's processes get on the host, and mounts on which
//! files have these ids. Does not own: which processes there are, nor what each of them needs.
//!
//! Invariant: two sandboxes that run at the same time never share an id.

#![deny(unsafe_code)]

mod idmap;
mod ids;
#[allow(unsafe_code, reason = "system calls without a safe wrapper")]
mod sys;

pub use idmap::{as_owner, attach, idmapped, user_namespace};
pub use ids::{IDS_PER_SLOT, IdError, IdRange, Slot};
