//! Pulls images from registries, imports archives, and unpacks both into the store.
//!
//! Only `msb-runner` uses this crate: network, credentials and untrusted archives are kept out of
//! the caller's program. One process downloads; another unpacks, without network and credentials,
//! in a jail or in the user namespace of an ordinary user's sandboxes.
//!
//! Invariant: a downloaded byte gets a name in the store only after its digest was verified.

#![forbid(unsafe_code)]

mod archive;
#[cfg(test)]
mod archives;
mod compression;
mod credentials;
mod export;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod import;
#[cfg(test)]
mod json_tests;
mod layer;
mod limits;
mod make;
mod manifest;
mod pack;
mod registry;
mod remote;
mod select;
mod stream;
#[cfg(test)]
mod testing;
mod transfer;
mod tree;
mod work;

pub use helper::{Helper, UnpackPaths, exit_on_close, reject_job, run_job, unpack_paths};
pub use tree::Owners;
pub use work::run_request;
