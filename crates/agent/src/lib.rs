//! The agent: runs commands inside a sandbox and carries their input and output.
//!
//! One thread, one tokio runtime, no locks: tasks share state through `Rc` and hold a borrow only
//! between two awaits, never across one.
//!
//! ```text
//!  connection ── frames ──> registry ── session ──> child process
//!      ^                                  │ pumps: pipe -> replay + followers
//!      └──────── outbox <─────────────────┘         queue -> stdin
//! ```
//!
//! Invariant: a byte leaves a child's pipe only when every follower of the session has credit for
//! it, so nothing in here grows with what a program writes.

#![deny(unsafe_code)]

mod accounts;
mod cgroup;
mod connection;
mod environment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod lookup;
pub mod machine;
mod program;
mod reaper;
mod registry;
mod resources;
mod server;
mod session;
#[allow(unsafe_code, reason = "the one place of system calls that no safe wrapper covers")]
mod sys;

pub use cgroup::{use_cgroup, use_mounted_cgroup};
pub use server::{serve, serve_machine};
pub use sys::{Inherited, adopt, be_init, forbid_clone3, limit_processes};
