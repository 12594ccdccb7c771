//! The driver that runs a sandbox as a container of an OCI runtime.
//!
//! It owns the search for a usable runtime, the container's configuration, its control groups and
//! its log. It does not own the root filesystem, which the runner assembles, nor the conversation
//! with the agent.
//!
//! Invariant: the container's main process holds the read end of a pipe whose only write end is
//! in the runner, so that the container ends with the runner, however that ends; and everything
//! that could survive (runtime state, control groups) has a name that follows from the sandbox's
//! directory, so that [`ContainerDriver`]'s sweep finds it.

#![forbid(unsafe_code)]

mod cgroup;
mod machine;
mod root;
mod runtime;
mod seccomp;
mod spec;
mod stage;
mod sweep;

pub use machine::{ContainerDriver, Settings};
pub use stage::{Stage, WITHOUT_USER_NAMESPACE, take_slot, wants_user_namespace};
