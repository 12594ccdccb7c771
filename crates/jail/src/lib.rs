//! Confines the host processes of a sandbox.
//!
//! Owns: the walls around a process (namespaces, its root, ids, capabilities, system calls, paths,
//! limits), and the user and group ids of a sandbox's processes on the host. Does not own: which
//! processes there are and what each needs; drivers describe that.
//!
//! A driver describes a [`Jail`] and starts a command in it. The command enters by [`launch`],
//! which executes another program, or by [`enter`], which continues in the jail. Walls that the
//! host lacks are reported, and the others hold.
//!
//! Invariants: two running sandboxes never share an id; a jailed process dies with the process that
//! started it.
//!
//! The non-dumpable flag is lost on exec. After that, a process of the host can trace the program
//! only with the rights of its user namespace's owner, and processes with the same ids are in other
//! PID namespaces, where it has no pid.

#![deny(unsafe_code)]

mod channel;
mod describe;
mod enter;
mod error;
mod group;
mod hierarchy;
mod idmap;
mod ids;
mod libraries;
mod paths;
mod root;
mod seccomp;
mod start;
#[allow(unsafe_code, reason = "system calls that have no safe wrapper")]
mod sys;
mod trees;
mod walls;

pub use channel::CHANNEL;
pub use describe::{Bind, Ids, Jail, Limits, Map, OWN_ALL, Proc, READ_ALL, Source};
pub use enter::{Entered, enter, launch, refuse};
pub use error::JailError;
pub use group::{Group, GroupLimits};
pub use hierarchy::{Hierarchy, hierarchies};
pub use idmap::{as_owner, attach, idmapped, user_namespace};
pub use ids::{IDS_PER_SLOT, IdError, IdRange, Slot};
pub use libraries::ProgramFiles;
pub use seccomp::{LOG_VARIABLE, Program};
pub use start::{Started, Starting};
pub use sys::is_open;
pub use trees::Tree;
pub use walls::{Wall, walls};
