//! Images on the host: their names, what is known about them, and the store that holds them.
//!
//! This crate owns the grammar of names, the layout of the store under the state directory, the
//! locks in it, what an image's configuration means, and the words in which the library asks
//! `msb-runner` for something. It does not own getting an image: no network and no archives here,
//! because this crate is linked into people's programs. `msb-image-pull` does that, in the runner.
//!
//! Invariant: what bears its final name in the store is complete. Everything is made under a
//! temporary name and renamed, so that no process that is killed leaves half an image behind.

#![forbid(unsafe_code)]

mod blob;
mod collect;
mod config;
mod digest;
mod error;
mod files;
mod reference;
mod registries;
mod source;
mod store;
mod task;

pub use blob::BlobWriter;
pub use collect::{Pruned, Removed};
pub use config::{ImageConfig, MAX_DOCUMENT};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use error::{Error, ErrorKind, Result};
pub use files::now_ms;
pub use reference::{InvalidReference, OFFICIAL_CREDENTIALS, OFFICIAL_REGISTRY, Reference};
pub use registries::{Registries, RegistrySettings, is_loopback};
pub use source::{Source, is_path};
pub use store::{Blob, Hold, ImageInfo, ImageRecord, Store};
pub use task::{BuildOptions, Event, Phase, Progress, PullPolicy, Request, Selected};
