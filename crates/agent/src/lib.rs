//! The agent: runs commands inside a sandbox and transfers their input and output.
//!
//! One thread, one tokio runtime, no locks: tasks share state by `Rc` and hold a borrow only
//! between two awaits, never across one. What may block on a file is done by other threads: the
//! lookup of users, and the operations of `fs`.
//!
//! ```text
//!  connection ── dispatch ──> registry ── session ──> child process
//!      ^                                    │ pump: pipe -> replay + followers
//!      └──────── outbox <───────────────────┘       queue -> stdin
//! ```
//!
//! Each module uses only those further down: `server`, `dispatch` and `reaper`, `registry`,
//! `client`, `session` and `fs`, `connection` and `resources`, `sys`.
//!
//! Invariant: a byte leaves a child's pipe only when every follower of the session has credit for
//! it, so memory does not grow with a program's output.

#![deny(unsafe_code)]

mod accounts;
mod cgroup;
mod client;
mod connection;
mod dispatch;
mod environment;
mod fs;
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
#[allow(unsafe_code, reason = "system calls without a safe wrapper")]
mod sys;

pub use cgroup::{use_cgroup, use_mounted_cgroup, use_version1_cgroup};
pub use server::{serve, serve_machine};
pub use sys::{
    Confinement, Inherited, adopt, adopt_socket, be_init, confine_commands, forbid_clone3,
    limit_processes,
};
