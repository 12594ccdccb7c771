//! `msb cp`, `msb fs` and their options.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A path of the host.
    Host(PathBuf),
    /// A path in a sandbox.
    Sandbox(InSandbox),
    /// Standard input or output: a tar archive.
    Stream,
}

/// A path in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InSandbox {
    /// The sandbox's name.
    pub(crate) name: String,
    /// The path, absolute.
    pub(crate) path: OsString,
}

#[derive(Debug, Args)]
#[command(
    after_help = "An existing directory as DEST gets the copy in it; with SRC/. it gets what \
    is in SRC. Exit codes: 0, or 1 if the copy failed."
)]
pub(crate) struct Copy {
    /// What to copy: NAME:PATH in a sandbox, a path of this host, or - for a tar archive on standard
    /// input
    #[arg(value_name = "SRC", value_parser = OsStringValueParser::new().try_map(end))]
    pub(crate) from: End,
    /// Where to: NAME:PATH, a path of this host, or - for a tar archive on standard output
    #[arg(value_name = "DEST", value_parser = OsStringValueParser::new().try_map(end))]
    pub(crate) to: End,
    /// Keep owners, and set-user-id and set-group-id bits
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link at the end of SRC
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// User in the sandbox; default: the sandbox's
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Most bytes to copy out of a sandbox, such as 200g; default: 64g
    #[arg(long, value_name = "SIZE", value_parser = crate::values::bytes)]
    pub(crate) max_size: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "PATH is NAME:PATH. Exit codes: 0, or 1 if anything failed.")]
pub(crate) struct Files {
    /// User in the sandbox; default: the sandbox's
    #[arg(short, long, global = true)]
    pub(crate) user: Option<String>,
    #[command(subcommand)]
    pub(crate) command: FileCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// List directories
    Ls {
        /// Directories or files
        #[arg(required = true, value_name = "PATH", value_parser = in_sandbox)]
        paths: Vec<InSandbox>,
        /// Also print mode, links, owner, group, size and time
        #[arg(short)]
        long: bool,
        /// Also list what is in directories below
        #[arg(short = 'R')]
        recursive: bool,
    },
    /// Print files
    Cat {
        /// Files
        #[arg(required = true, value_name = "PATH", value_parser = in_sandbox)]
        paths: Vec<InSandbox>,
    },
    /// Print the attributes of files
    Stat {
        /// Files
        #[arg(required = true, value_name = "PATH", value_parser = in_sandbox)]
        paths: Vec<InSandbox>,
        /// Follow symbolic links
        #[arg(short = 'L')]
        follow: bool,
    },
    /// Remove files
    Rm {
        /// Files
        #[arg(required = true, value_name = "PATH", value_parser = in_sandbox)]
        paths: Vec<InSandbox>,
        /// Also remove directories and what is in them
        #[arg(short)]
        recursive: bool,
        /// Ignore files that do not exist
        #[arg(short)]
        force: bool,
    },
    /// Make directories
    Mkdir {
        /// Directories
        #[arg(required = true, value_name = "PATH", value_parser = in_sandbox)]
        paths: Vec<InSandbox>,
        /// Also make missing parents; an existing directory is no error
        #[arg(short)]
        parents: bool,
    },
    /// Rename a file, or move it into a directory
    Mv {
        /// The file
        #[arg(value_name = "SRC", value_parser = in_sandbox)]
        from: InSandbox,
        /// The new path in the same sandbox, or a directory
        #[arg(value_name = "DEST", value_parser = in_sandbox)]
        to: InSandbox,
    },
    /// Write a file from standard input; its old content stays until the new is complete
    Write {
        /// The file
        #[arg(value_name = "PATH", value_parser = in_sandbox)]
        path: InSandbox,
        /// Append to the file
        #[arg(short)]
        append: bool,
        /// Also make missing parent directories
        #[arg(short)]
        parents: bool,
    },
}

/// Parses one end of a copy. As docker does: what begins with a slash or a dot is of this host.
fn end(text: OsString) -> Result<End, String> {
    let bytes = text.as_bytes();
    if bytes == b"-" {
        return Ok(End::Stream);
    }
    let colon = bytes.iter().position(|byte| *byte == b':');
    let slash = bytes.iter().position(|byte| *byte == b'/').unwrap_or(bytes.len());
    match colon {
        Some(colon) if colon > 0 && colon < slash && !bytes.starts_with(b".") => {
            split(bytes, colon).map(End::Sandbox)
        }
        _ if bytes.is_empty() => Err("an empty path".to_owned()),
        _ => Ok(End::Host(PathBuf::from(text))),
    }
}

fn in_sandbox(text: &str) -> Result<InSandbox, String> {
    match text.find(':').filter(|colon| *colon > 0) {
        Some(colon) => split(text.as_bytes(), colon),
        None => Err("give the sandbox's name before the path: NAME:PATH".to_owned()),
    }
}

/// A path that is not absolute begins at the root, as docker has it.
fn split(bytes: &[u8], colon: usize) -> Result<InSandbox, String> {
    let (name, path) = bytes.split_at(colon);
    let name = std::str::from_utf8(name).map_err(|_| "the name is not UTF-8".to_owned())?;
    let path = path.get(1..).unwrap_or_default();
    let slash = if path.starts_with(b"/") { &b""[..] } else { b"/" };
    let path = OsString::from_vec([slash, path].concat());
    Ok(InSandbox { name: name.to_owned(), path })
}

impl InSandbox {
    /// Returns the same sandbox's path below this one.
    pub(crate) fn join(&self, name: &OsStr) -> InSandbox {
        let slash = if self.path.as_bytes().ends_with(b"/") { &b""[..] } else { b"/" };
        let path = [self.path.as_bytes(), slash, name.as_bytes()].concat();
        InSandbox { name: self.name.clone(), path: OsString::from_vec(path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k5_ends_of_a_copy_are_told_apart() {
        let sandbox = |name: &str, path: &str| {
            End::Sandbox(InSandbox { name: name.into(), path: path.into() })
        };
        assert_eq!(end("a:/b:c".into()), Ok(sandbox("a", "/b:c")));
        assert_eq!(end("a:b".into()), Ok(sandbox("a", "/b")));
        assert_eq!(end("a:".into()), Ok(sandbox("a", "/")));
        for host in ["/a:b", "./a:b", "../a:b", "a/b:c", "a", ":a"] {
            assert_eq!(end(host.into()), Ok(End::Host(host.into())), "{host}");
        }
        assert_eq!(end("-".into()), Ok(End::Stream));
        assert!(end("".into()).is_err() && in_sandbox("/a").is_err());
    }
}
