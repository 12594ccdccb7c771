//! System calls without a safe wrapper. All unsafe code of the agent is in this module.

mod confine;
mod machine;
mod process;
mod spawn;

pub use confine::{Confinement, confine_commands};
pub(crate) use confine::{confinement, drop_thread_capabilities};
pub(crate) use machine::{limit_descriptors, loopback_up, open_standard_streams, raise_priority};
pub use process::{Inherited, adopt, adopt_socket, be_init, forbid_clone3, limit_processes};
pub(crate) use process::{
    Reaped, bytes_pending, child_signals, close, descriptor_limit, die_with_parent, is_hung_up,
    kill_all, kill_group, kill_process, reap, valid_signal, watch,
};
pub(crate) use spawn::{Plan, Report, spawn};
