//! `msb volume` and its options.

use crate::values::{self, Label};
use clap::{Args, Subcommand};
use microsandbox::VolumeKind;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a volume and print its name
    Create(New),
    /// List the volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        /// Print each volume in this form, such as '{{.Name}} {{.Size}}', or json for one object a
        /// line; fields: Name, Kind, Path, Size, Used, Labels, Sandboxes
        #[arg(long, value_name = "FORM", conflicts_with = "json")]
        format: Option<String>,
    },
    /// Print the details of volumes as one JSON document
    Inspect {
        /// Names of the volumes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Print each volume in this form instead; see msb volume ls
        #[arg(long, value_name = "FORM")]
        format: Option<String>,
        /// Accepted for consistency: the output is always JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove volumes that no sandbox uses, with their files
    #[command(alias = "remove")]
    Rm {
        /// Names of the volumes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Ignore those that do not exist
        #[arg(short, long)]
        force: bool,
    },
    /// Remove all volumes that no sandbox uses, with their files, after a question
    Prune {
        /// Remove them without a question
        #[arg(short, long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Name of the volume; default: a random one
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Form: directory, or disk for a filesystem in a file
    #[arg(long, value_name = "KIND", default_value = "directory")]
    pub(crate) kind: VolumeKind,
    /// Size of a disk: 512 and 512M are MiB, 1.5G is 1536 MiB
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) size: Option<u64>,
    /// How much a directory should hold, for msb volume inspect; it is not enforced
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) quota: Option<u64>,
    /// Add a label; repeatable
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) labels: Vec<Label>,
}
