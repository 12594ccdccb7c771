//! The store of images on the host, and the references that name them.
//!
//! Owns: the grammar of references, the store's layout and locks under the state directory, the
//! meaning of an image's configuration, and the protocol between the library and `msb-runner` for
//! work on images. Does not own: network and archives, because this crate is linked into the
//! caller's program; `msb-image-pull` pulls and unpacks, in the runner.
//!
//! Invariant: a file with its final name in the store is complete. Everything is written under a
//! temporary name and renamed, so that a crash leaves no partial image.

#![forbid(unsafe_code)]

mod blob;
mod collect;
mod config;
mod digest;
mod error;
mod files;
pub mod json;
mod platform;
mod reference;
mod registries;
mod source;
mod store;
mod task;

pub use blob::BlobWriter;
pub use config::{ImageConfig, MAX_DOCUMENT};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use error::{Error, ErrorKind, Result, shown};
pub use files::now_ms;
pub use platform::{InvalidPlatform, Platform};
pub use reference::{InvalidReference, OFFICIAL_REGISTRY, Reference};
pub use registries::{Registries, RegistrySettings};
pub use source::Source;
pub use store::{Blob, ImageInfo, ImageRecord, Store, StoreLock};
pub use task::{BuildOptions, Event, Phase, Progress, PullPolicy, Request, TaskOutcome};
