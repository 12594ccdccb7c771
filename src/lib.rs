//! The C library: the ABI of `include/microsandbox.h` over the crate `microsandbox`.
//!
//! Owns: handles, and the conversion of every value at the boundary. Does not own: what the calls
//! do, which belongs to the crate. Invariant: whatever a caller passes, a call returns a status,
//! and outputs are written only on success.
//!
//! **The contract of every export**, which the `SAFETY` comments cite: each pointer is NULL, or
//! valid as its documentation says until the call returns. A handle may be any value. The
//! documentation is the C comment of each function, which is copied to the header.

#![allow(clippy::missing_safety_doc, reason = "the C comment is the contract")]
#![allow(non_camel_case_types, reason = "these are the names in C")]

// The boundary turns a panic into a status. An abort would end the caller's process.
const _: () = assert!(cfg!(panic = "unwind"), "the library needs panic = \"unwind\"");

mod abi;
mod any_handle;
mod async_op;
mod attach;
mod borrowed;
mod boundary;
mod doctor;
mod error;
mod event;
mod exec;
mod failure;
mod fs;
mod fs_info;
mod fs_op;
mod fs_request;
mod handle;
mod image;
mod image_info;
mod input;
mod list;
mod log;
mod mount;
mod output;
mod panic_hook;
mod progress;
mod sandbox;
mod sandbox_info;
mod sandbox_options;
mod session;
mod sink;
mod sized;
mod status;
mod sync;
mod table;
mod trace;
mod version;
mod volume;
mod wait;

pub use any_handle::*;
pub use attach::*;
pub use doctor::*;
pub use error::*;
pub use event::*;
pub use exec::*;
pub use fs::*;
pub use fs_info::*;
pub use fs_request::*;
pub use handle::*;
pub use image::*;
pub use image_info::*;
pub use log::*;
pub use mount::*;
pub use output::*;
pub use progress::*;
pub use sandbox::*;
pub use sandbox_info::*;
pub use sandbox_options::*;
pub use session::*;
pub use sink::*;
pub use status::*;
pub use trace::*;
pub use version::*;
pub use volume::*;
