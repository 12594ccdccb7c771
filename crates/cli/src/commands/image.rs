//! `msb image`.

use crate::args::ImageCommand;
use crate::failure::Failure;
use crate::output::{self, Entry};
use crate::progress::ImageBar;
use crate::stdio;
use crate::text::{self, decimal_size};
use crate::values::Words;
use microsandbox::{BuildOptions, Image, ImageInfo, ImageOperation, PruneReport};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Runs one of the image commands.
pub(crate) async fn run(command: ImageCommand, quiet: bool) -> Result<u8, Failure> {
    match command {
        ImageCommand::Pull { name, platform, json } => {
            finish(Image::pull_for(name, platform.as_deref())?, json, quiet).await
        }
        ImageCommand::Ls { json } => list(json, quiet).await,
        ImageCommand::Inspect { names, json: _ } => inspect(&names).await,
        ImageCommand::Rm { names, force, json } => remove(&names, force, json, quiet).await,
        ImageCommand::Prune { all, json } => {
            print_removed(&[Image::prune(all).await?], json, quiet)
        }
        ImageCommand::Import { path, name, platform, json } => {
            let (name, platform) = (name.as_deref(), platform.as_deref());
            let operation = match is_stream(&path) {
                true => {
                    let input = duplicate(io::stdin(), "standard input")?;
                    Image::import_from(input, name, platform)
                }
                false => Image::import_for(path, name, platform),
            };
            finish(operation?, json, quiet).await
        }
        ImageCommand::Export { name, path, json: true } if is_stream(&path) => Err(Failure::new(
            format!("cannot print JSON of {name}: standard output is its archive"),
        )),
        ImageCommand::Export { name, path, json } => {
            let operation = match is_stream(&path) {
                true => Image::export_to(name, duplicate(io::stdout(), "standard output")?),
                false => Image::export(name, path),
            };
            finish(operation?, json, true).await
        }
        ImageCommand::BuildFromDir(build) => {
            let list = |words: Option<Words>| words.unwrap_or_default().0;
            let options = BuildOptions {
                env: build.env,
                workdir: build.workdir,
                user: build.user,
                entrypoint: list(build.entrypoint),
                cmd: list(build.cmd),
            };
            let operation = Image::build_from_dir(build.path, build.name, options)?;
            finish(operation, build.json, quiet).await
        }
    }
}

/// Whether a path means standard input or output.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

fn duplicate(stream: impl AsFd, name: &str) -> Result<File, Failure> {
    stdio::duplicate(stream).map_err(|error| Failure::new(format!("cannot use {name}: {error}")))
}

/// Shows the progress of an operation, and prints the image's id or details at its end.
async fn finish(mut operation: ImageOperation, json: bool, quiet: bool) -> Result<u8, Failure> {
    let bar = ImageBar::new(quiet);
    while let Some(progress) = operation.progress().await {
        bar.show(progress);
    }
    bar.clear();
    let info = operation.wait().await.map_err(|error| match error.os_error() {
        // The reader of an exported archive is gone.
        Some(code) if code == Errno::PIPE.raw_os_error() => {
            Failure::write("standard output", &Errno::PIPE.into())
        }
        _ => error.into(),
    })?;
    for skipped in operation.skipped() {
        stdio::report(&format!("skipped {skipped}"));
    }
    if json {
        output::print_json(&details(&info))?;
    } else if !quiet {
        output::print(format!("{}\n", info.id))?;
    }
    Ok(0)
}

async fn list(json: bool, quiet: bool) -> Result<u8, Failure> {
    let heads = ["NAME", "ID", "SIZE", "ADDED", "USED BY"];
    let entry = Entry { json: details, id: |info: &ImageInfo| &info.id, heads, rows };
    output::print_list(&Image::list().await?, &entry, json, quiet)
}

async fn inspect(names: &[String]) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for name in names {
        all.push(details(&Image::get(name).await?));
    }
    output::print_json(&all.into())?;
    Ok(0)
}

/// Removes each image, also after a failure.
async fn remove(names: &[String], force: bool, json: bool, quiet: bool) -> Result<u8, Failure> {
    let (mut reports, mut last) = (Vec::new(), None);
    for name in names {
        match Image::remove(name, force).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                if let Some(earlier) = last.replace(Failure::from(error)) {
                    earlier.report(false);
                }
            }
        }
    }
    if !reports.is_empty() {
        print_removed(&reports, json, quiet)?;
    }
    last.map_or(Ok(0), Err)
}

fn print_removed(reports: &[PruneReport], json: bool, quiet: bool) -> Result<u8, Failure> {
    let names: Vec<&String> = reports.iter().flat_map(|report| &report.removed).collect();
    let freed: u64 = reports.iter().map(|report| report.freed).sum();
    if json {
        output::print_json(&json!({ "removed": names, "freed_bytes": freed }))?;
    } else if !quiet {
        let names = text::lines(names.into_iter().map(String::as_str));
        output::print(format!("{names}freed {}\n", decimal_size(freed)))?;
    }
    Ok(0)
}

/// Returns a row for each name, or one for an image without a name.
fn rows(info: &ImageInfo) -> Vec<[String; 5]> {
    let nameless = ["-".to_owned()];
    let names = if info.names.is_empty() { &nameless[..] } else { &info.names };
    let row = |name: &String| {
        [
            name.clone(),
            info.id.chars().skip("sha256:".len()).take(12).collect(),
            decimal_size(info.size),
            text::since(info.added_at),
            if info.used_by.is_empty() { "-".to_owned() } else { info.used_by.join(",") },
        ]
    };
    names.iter().map(row).collect()
}

fn details(info: &ImageInfo) -> Value {
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
