//! Gets images from registries and archives into the store.
//!
//! This crate is used by `msb-runner` alone: network, credentials and archives of strangers have
//! no place in the program that uses the library. What is downloaded is handled by one process,
//! what is unpacked by another, which has no network code in use and no credentials, and is in the
//! user namespace of an ordinary user's sandboxes.
//!
//! Invariant: a byte that came from outside gets a name in the store only after its digest was
//! compared with the one that was asked for.

#![forbid(unsafe_code)]

mod compression;
mod credentials;
mod export;
mod helper;
mod import;
mod layer;
mod limits;
mod make;
mod manifest;
mod pack;
mod registry;
mod tarball;
#[cfg(test)]
mod testing;
mod transfer;
mod tree;
mod work;

pub use helper::{Helper, Places, end_with, help, places, refuse};
pub use tree::Owners;
pub use work::work;
