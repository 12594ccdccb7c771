//! Confines the host processes of a sandbox.
//!
//! Owns: the user and group ids that a sandbox's processes get on the host. Does not own: which
//! processes there are, nor what each of them needs.
//!
//! Invariant: two sandboxes that run at the same time never share an id.

#![deny(unsafe_code)]

mod ids;

pub use ids::{IDS_PER_SLOT, IdError, IdRange, Slot};
