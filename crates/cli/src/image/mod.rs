//! `msb image`.

mod bar;

use crate::failure::Failure;
use crate::list::document;
use crate::stdio;
use crate::table::{ago, table};
use clap::{Args, Subcommand};
use microsandbox::{BuildOptions, Image, ImageInfo, ImageOperation, PruneReport, PullPolicy};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

pub(crate) use bar::Bar;

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Get an image from its registry
    Pull {
        /// The image, such as python or ghcr.io/org/app:1.2
        name: String,
        /// Print what is known about it, as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List the images in the store
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print what is known about images, as one JSON document
    Inspect {
        /// The images, by name or id
        #[arg(required = true)]
        names: Vec<String>,
        /// What is printed anyway
        #[arg(long)]
        json: bool,
    },
    /// Take names from images, and remove those that have none left
    Rm {
        /// The images, by name or id; by id they lose all their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Also the names of images that sandboxes use
        #[arg(short, long)]
        force: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Remove images that have no name and that no sandbox uses, and what downloads have left
    Prune {
        /// Also those that have a name
        #[arg(short, long)]
        all: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Take an image from an archive (docker save, OCI, a tar of a root filesystem) or a directory
    /// in OCI's layout
    Import {
        /// The archive or directory
        path: PathBuf,
        /// What it is to be called; without this as it says itself
        name: Option<String>,
        /// Print what is known about it, as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Write an image into a new archive, which docker load and podman load understand
    Export {
        /// The image, by name or id
        name: String,
        /// The archive
        path: PathBuf,
        /// Print what is known about it, as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Make an image from a directory
    BuildFromDir(Build),
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The root filesystem
    path: PathBuf,
    /// What the image is to be called
    name: String,
    /// A variable of everything that runs in it; may be given again
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// The working directory
    #[arg(short, long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// The user: name, uid, name:group or uid:gid
    #[arg(short, long, default_value = "")]
    user: String,
    /// What runs in front of a command: a program, or a JSON list of it and its arguments
    #[arg(long, value_name = "WORDS", value_parser = words)]
    entrypoint: Option<Words>,
    /// The command: a program, or a JSON list of it and its arguments
    #[arg(long, value_name = "WORDS", value_parser = words)]
    cmd: Option<Words>,
    /// Print what is known about it, as one JSON document
    #[arg(long)]
    json: bool,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(Vec<String>);

fn words(text: &str) -> Result<Words, String> {
    if !text.starts_with('[') {
        return Ok(Words(vec![text.to_owned()]));
    }
    let bad = |_| r#"give a program, or a JSON list such as ["sh","-c","date"]"#.to_owned();
    serde_json::from_str(text).map(Words).map_err(bad)
}

/// When the registry is asked.
pub(crate) fn policy(text: &str) -> Result<PullPolicy, String> {
    let all = [PullPolicy::Always, PullPolicy::Missing, PullPolicy::Never];
    let found = all.into_iter().find(|policy| policy.name() == text);
    found.ok_or_else(|| "give always, missing or never".to_owned())
}

/// Does one of these things.
pub(crate) async fn perform(task: Task, quiet: bool) -> Result<u8, Failure> {
    match task {
        Task::Pull { name, json } => made(Image::pull(name)?, json, quiet).await,
        Task::Ls { json } => list(json, quiet).await,
        Task::Inspect { names, json: _ } => inspect(&names).await,
        Task::Rm { names, force, json } => remove(&names, force, json, quiet).await,
        Task::Prune { all, json } => {
            let report = Image::prune(all).await?;
            removed(&[report], json, quiet)
        }
        Task::Import { path, name, json } => {
            made(Image::import(path, name.as_deref())?, json, quiet).await
        }
        Task::Export { name, path, json } => {
            made(Image::export(name, path)?, json, true).await.map(|_| 0)
        }
        Task::BuildFromDir(build) => {
            let list = |words: Option<Words>| words.map(|words| words.0).unwrap_or_default();
            let options = BuildOptions {
                env: build.env,
                workdir: build.workdir,
                user: build.user,
                entrypoint: list(build.entrypoint),
                cmd: list(build.cmd),
            };
            let operation = Image::build_from_dir(build.path, build.name, options)?;
            made(operation, build.json, quiet).await
        }
    }
}

/// Shows how it goes, and prints what came of it: its name, else its id.
async fn made(mut operation: ImageOperation, json: bool, quiet: bool) -> Result<u8, Failure> {
    let bar = Bar::new(quiet);
    while let Some(progress) = operation.progress().await {
        bar.show(progress);
    }
    bar.clear();
    let info = operation.wait().await?;
    let text = match (json, quiet) {
        (true, _) => format!("{:#}\n", entry(&info)),
        (false, true) => String::new(),
        (false, false) => format!("{}\n", info.id),
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
    Ok(0)
}

async fn list(json: bool, quiet: bool) -> Result<u8, Failure> {
    let all = Image::list().await?;
    let text = if json {
        document(all.iter().map(entry).collect())
    } else if quiet {
        all.iter().map(|info| format!("{}\n", info.id)).collect()
    } else {
        table(["NAME", "ID", "SIZE", "ADDED", "USED BY"], all.iter().flat_map(rows).collect())
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
    Ok(0)
}

async fn inspect(names: &[String]) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for name in names {
        all.push(entry(&Image::get(name).await?));
    }
    stdio::print_json(&document(all))?;
    Ok(0)
}

async fn remove(names: &[String], force: bool, json: bool, quiet: bool) -> Result<u8, Failure> {
    let (mut reports, mut last) = (Vec::new(), None);
    for name in names {
        match Image::remove(name, force).await {
            Ok(report) => reports.push(report),
            // The others are removed all the same.
            Err(error) => {
                if let Some(Failure { message: Some(message), .. }) = last.replace(error.into()) {
                    stdio::complain(&message);
                }
            }
        }
    }
    if !reports.is_empty() {
        removed(&reports, json, quiet)?;
    }
    last.map_or(Ok(0), Err)
}

fn removed(reports: &[PruneReport], json: bool, quiet: bool) -> Result<u8, Failure> {
    let names: Vec<&String> = reports.iter().flat_map(|report| &report.removed).collect();
    let freed: u64 = reports.iter().map(|report| report.freed).sum();
    let text = if json {
        format!("{:#}\n", json!({ "removed": names, "freed_bytes": freed }))
    } else if quiet {
        String::new()
    } else {
        let lines: String =
            names.iter().map(|name| format!("{}\n", stdio::one_line(name))).collect();
        format!("{lines}{} are free again\n", size(freed))
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
    Ok(0)
}

/// A line for each name, or one for an image without.
fn rows(info: &ImageInfo) -> Vec<[String; 5]> {
    let nameless = ["-".to_owned()];
    let names = if info.names.is_empty() { &nameless[..] } else { &info.names };
    let row = |name: &String| {
        [
            name.clone(),
            info.id.chars().skip("sha256:".len()).take(12).collect(),
            size(info.size),
            ago(info.added_at.elapsed().unwrap_or_default()),
            if info.used_by.is_empty() { "-".to_owned() } else { info.used_by.join(",") },
        ]
    };
    names.iter().map(row).collect()
}

fn entry(info: &ImageInfo) -> Value {
    let added = info.added_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    json!({
        "id": info.id,
        "names": info.names,
        "digests": info.digests,
        "size_bytes": info.size,
        "download_bytes": info.download_size,
        "layers": info.layers,
        "architecture": info.architecture,
        "added_ms": u64::try_from(added).unwrap_or(u64::MAX),
        "created": info.created,
        "env": info.env,
        "workdir": info.workdir,
        "user": info.user,
        "entrypoint": info.entrypoint,
        "cmd": info.cmd,
        "shell": info.shell,
        "labels": info.labels,
        "used_by": info.used_by,
        "rootfs": info.rootfs.to_string_lossy(),
    })
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut unit = "B";
    let mut number = bytes;
    let mut tenths = 0;
    for next in units {
        if number < 1000 {
            break;
        }
        (tenths, number, unit) = (number % 1000 / 100, number / 1000, next);
    }
    if unit == "B" { format!("{number} B") } else { format!("{number}.{tenths} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_unit_and_commands_one_word_or_a_list() {
        assert_eq!([size(0), size(999), size(1000)], ["0 B", "999 B", "1.0 kB"]);
        assert_eq!([size(2_131_968), size(1_250_000_000)], ["2.1 MB", "1.2 GB"]);
        assert_eq!(words("sh").unwrap().0, ["sh"]);
        assert_eq!(words(r#"["sh","-c","a b"]"#).unwrap().0, ["sh", "-c", "a b"]);
        assert!(words("[1]").is_err());
        assert_eq!(policy("never"), Ok(PullPolicy::Never));
        assert!(policy("Always").is_err());
    }
}
