//! What the library and `msb-runner` say to each other about images: one line of JSON with the
//! request on standard input, and lines of JSON with events on standard output.

use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::registries::Registries;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// When the registry is asked for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// When the image is not in the store.
    #[default]
    Missing,
    /// Each time; what has not changed is not fetched again.
    Always,
    /// Not at all: the image has to be in the store.
    Never,
}

impl PullPolicy {
    /// Its name, the same in every language.
    pub fn name(self) -> &'static str {
        match self {
            PullPolicy::Missing => "missing",
            PullPolicy::Always => "always",
            PullPolicy::Never => "never",
        }
    }
}

/// What an image that is made from a directory says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildOptions {
    /// Variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub workdir: String,
    /// User.
    pub user: String,
    /// What runs in front of the command.
    pub entrypoint: Vec<String>,
    /// The command.
    pub cmd: Vec<String>,
}

/// What the runner is asked to do with the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Get an image from its registry.
    Pull {
        /// Its name.
        reference: Reference,
        /// How registries are reached.
        registries: Registries,
    },
    /// Take an image from an archive, a directory in OCI's layout, or a tar of a root filesystem.
    Import {
        /// Where it is.
        path: PathBuf,
        /// What it is to be called; else as it says itself, if it does.
        reference: Option<Reference>,
    },
    /// Make an image from a directory.
    Build {
        /// The root filesystem.
        path: PathBuf,
        /// What it is to be called.
        reference: Reference,
        /// What it says of itself.
        options: BuildOptions,
    },
    /// Write an image into an archive.
    Export {
        /// Its id.
        id: Digest,
        /// What it is called in the archive.
        reference: Option<Reference>,
        /// The archive. It must not exist.
        path: PathBuf,
    },
    /// Take a name from an image, and remove what has no name any more.
    Remove {
        /// Its id.
        id: Digest,
        /// The name; without it all of them.
        reference: Option<Reference>,
        /// Also the names of an image that a sandbox uses.
        force: bool,
    },
    /// Remove what nothing uses.
    Prune {
        /// Also images that have a name, but are used by no sandbox.
        all: bool,
    },
}

/// What the runner tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// Last: it is done.
    Done(Selected),
    /// Last: it failed.
    Error(Error),
}

/// What came of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selected {
    /// The image that was pulled, imported or built.
    pub id: Option<Digest>,
    /// What was removed, by name or id.
    pub removed: Vec<String>,
    /// How many bytes that were.
    pub freed: u64,
}

/// How far getting an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// How many layers the image has; 0 while that is not known.
    pub layers: u32,
    /// How many of them are finished in this phase.
    pub layers_done: u32,
    /// How many bytes are finished in this phase.
    pub bytes: u64,
    /// How many there are; 0 while that is not known.
    pub bytes_total: u64,
}

/// A part of getting an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Finding out what the name means.
    #[default]
    Resolving,
    /// Getting the layers.
    Downloading,
    /// Unpacking them.
    Unpacking,
    /// The image is there, and the sandbox starts.
    Starting,
}

impl Phase {
    /// Its name, the same in every language.
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
    fn requests_and_events_are_one_line_each_and_survive_the_way() {
        let request = Request::Pull {
            reference: Reference::parse("a:1", "docker.io").unwrap(),
            registries: Registries::default(),
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
