//! The protocol between the library and `msb-runner` for work on images: one line of JSON with the
//! request on standard input, then lines of JSON with events on standard output.

use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registries::Registries;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// When to pull an image from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// If the image is not in the store.
    #[default]
    Missing,
    /// Each time. Skips blobs that are in the store.
    Always,
    /// Never: the image must be in the store.
    Never,
}

impl PullPolicy {
    /// Returns its name, the same in every language.
    pub fn name(self) -> &'static str {
        match self {
            PullPolicy::Missing => "missing",
            PullPolicy::Always => "always",
            PullPolicy::Never => "never",
        }
    }
}

/// Configuration of an image that is built from a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildOptions {
    /// Environment variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// User.
    pub user: String,
    /// Program and arguments that precede the command.
    pub entrypoint: Vec<String>,
    /// Default command.
    pub cmd: Vec<String>,
}

/// Work on the store that the library requests from the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Pull an image.
    Pull {
        /// Reference.
        reference: Reference,
        /// Configuration of registries.
        registries: Registries,
        /// Platform; `None` for that of this host.
        #[serde(default)]
        platform: Option<Platform>,
    },
    /// Import an image archive, an OCI image layout, or a tar of a root filesystem.
    Import {
        /// Path of the archive or directory; what to call the archive if it was passed.
        path: PathBuf,
        /// New name; else the names in the archive.
        reference: Option<Reference>,
        /// Platform; `None` for that of this host.
        #[serde(default)]
        platform: Option<Platform>,
    },
    /// Build an image from a directory.
    Build {
        /// The root filesystem.
        path: PathBuf,
        /// New name.
        reference: Reference,
        /// Configuration.
        options: BuildOptions,
    },
    /// Export an image to the archive that was passed.
    Export {
        /// Id.
        id: Digest,
        /// Name in the archive.
        reference: Option<Reference>,
        /// What to call the archive.
        to: PathBuf,
    },
    /// Remove one or all names of an image, and the image with its last name.
    Remove {
        /// Id.
        id: Digest,
        /// Name; `None` for all.
        reference: Option<Reference>,
        /// Whether to remove the last name of an image that a sandbox uses.
        force: bool,
    },
    /// Remove unused images and blobs.
    Prune {
        /// Whether to remove images with a name that no sandbox uses.
        all: bool,
    },
}

/// Progress or outcome that the runner reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Progress.
    Progress(Progress),
    /// Last: success.
    Done(TaskOutcome),
    /// Last: failure.
    Error(Error),
}

/// Outcome of a successful request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskOutcome {
    /// Image that was pulled, imported, built, exported or removed.
    pub id: Option<Digest>,
    /// Images that were removed: their names, or the id of one without a name.
    pub removed: Vec<String>,
    /// Approximate number of bytes freed.
    pub freed: u64,
    /// Files of a packed directory that were left out, each with the reason.
    pub skipped: Vec<String>,
}

/// Progress of a pull or import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// Current phase.
    pub phase: Phase,
    /// Number of layers; 0 while unknown.
    pub layers: u32,
    /// Number of layers finished in this phase.
    pub layers_done: u32,
    /// Number of bytes finished in this phase.
    pub bytes: u64,
    /// Total number of bytes; 0 while unknown.
    pub bytes_total: u64,
}

/// Phase of a pull or import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Resolving the reference.
    #[default]
    Resolving,
    /// Downloading the layers.
    Downloading,
    /// Unpacking the layers.
    Unpacking,
    /// Starting the sandbox.
    Starting,
}

impl Phase {
    /// Returns its name, the same in every language.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Resolving => "resolving",
            Phase::Downloading => "downloading",
            Phase::Unpacking => "unpacking",
            Phase::Starting => "starting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_events_round_trip_as_one_line() {
        let request = Request::Pull {
            reference: Reference::parse("a:1", "docker.io").unwrap(),
            registries: Registries::default(),
            platform: Some("linux/arm/v7".parse().unwrap()),
        };
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
        let event = Event::Error(Error::bad("a\nb").hint("c"));
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        assert!(line.contains("bad_image"), "{line}");
    }
}
