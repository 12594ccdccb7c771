//! `msb image` and its options.

use crate::values::{self, Words};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pull an image from its registry
    Pull {
        /// Image, such as python or ghcr.io/org/app:1.2
        name: String,
        /// Platform, such as linux/arm64 or linux/arm/v7; default: this host's
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
        /// Print the image's details as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List the images in the store
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the details of images as one JSON document
    Inspect {
        /// Images, by name or id
        #[arg(required = true)]
        names: Vec<String>,
        /// Accepted for consistency: the output is always JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove names of images, and images without a name left
    Rm {
        /// Images, by name or id; an id removes all names of the image
        #[arg(required = true)]
        names: Vec<String>,
        /// Also remove names of images that sandboxes use
        #[arg(short, long)]
        force: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove images that have no name and that no sandbox uses, and unfinished downloads
    Prune {
        /// Also remove images that have a name
        #[arg(short, long)]
        all: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Import an image from an archive (docker save, OCI, a tar of a root filesystem) or an OCI
    /// image layout
    Import {
        /// Archive or directory; - for an archive on standard input
        path: PathBuf,
        /// Name of the image; default: those in the archive
        name: Option<String>,
        /// Platform, such as linux/arm64 or linux/arm/v7; default: this host's
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<String>,
        /// Print the image's details as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Export an image to an archive, for docker load or podman load
    Export {
        /// Image, by name or id
        name: String,
        /// Archive, which replaces a file of this name; - for standard output
        path: PathBuf,
        /// Print the image's details as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Build an image from a directory
    BuildFromDir(Build),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Root filesystem
    pub(crate) path: PathBuf,
    /// Name of the image
    pub(crate) name: String,
    /// Set a variable for everything that runs in it; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR", default_value = "")]
    pub(crate) workdir: String,
    /// User: name, uid, name:group or uid:gid
    #[arg(short, long, default_value = "")]
    pub(crate) user: String,
    /// Entrypoint: a program, or a JSON list of a program and its arguments
    #[arg(long, value_name = "WORDS", value_parser = values::words)]
    pub(crate) entrypoint: Option<Words>,
    /// Default command: a program, or a JSON list of a program and its arguments
    #[arg(long, value_name = "WORDS", value_parser = values::words)]
    pub(crate) cmd: Option<Words>,
    /// Print the image's details as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}
