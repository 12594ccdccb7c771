//! The driver that runs a sandbox as a container of an OCI runtime.
//!
//! Owns: the choice of a runtime, the container's configuration, its cgroups and its log. Does not
//! own: the root filesystem, which the runner mounts, nor the protocol with the agent.
//!
//! Invariant: the container's main process holds the read end of a pipe whose only write end is in
//! the runner, so the container dies with the runner; and what could survive (runtime state,
//! cgroups) has a name that derives from the sandbox's directory, so [`ContainerDriver`]'s sweep
//! finds it.

#![forbid(unsafe_code)]

mod cgroup;
mod machine;
mod probe;
mod runtime;
mod seccomp;
mod settings;
mod spec;
mod stage;
mod sweep;

pub use machine::ContainerDriver;
pub use settings::Settings;
pub use stage::{Stage, WITHOUT_USER_NAMESPACE, take_slot, wants_user_namespace};
