//! The C library: the ABI of `include/microsandbox.h` over the crate `microsandbox`.
//!
//! Owns: handles, and the way of every value across the boundary. Does not own: what the calls do;
//! that is the client's. Invariant: whatever a caller passes, a call ends in a status, and outputs
//! are written only on success.
//!
//! The contract of every export, on which the `SAFETY` comments rest: a pointer is NULL, or valid
//! for what its documentation says until the call returns; a handle is any value at all. It is
//! written for C readers in each function's comment, which the header takes over.

#![allow(clippy::missing_safety_doc, reason = "the C comment is the contract")]
#![allow(non_camel_case_types, reason = "these are the names in C")]

// A panic ends at the boundary as a status. Were it to abort, it would end the caller's process.
const _: () = assert!(cfg!(panic = "unwind"), "the library needs panic = \"unwind\"");

mod abi;
mod attach;
mod attempt;
mod boundary;
mod error;
mod event;
mod exec;
mod handle;
mod image;
mod input;
mod list;
mod loan;
mod log;
mod output;
mod progress;
mod sandbox;
mod sandbox_options;
mod sink;
mod status;
mod table;
mod trace;
mod version;
mod wait;

pub use attach::*;
pub use error::{MSB_ERROR_MESSAGE_LEN, msb_error};
pub use event::*;
pub use exec::*;
pub use handle::*;
pub use image::*;
pub use list::*;
pub use log::*;
pub use output::*;
pub use progress::*;
pub use sandbox::*;
pub use sandbox_options::*;
pub use sink::*;
pub use status::*;
pub use trace::*;
pub use version::*;
