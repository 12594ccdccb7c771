//! `msb volume`.

use crate::args::{NewVolume, VolumeCommand};
use crate::failure::Failure;
use crate::output::{self, Entry};
use crate::sandbox;
use crate::text::{self, binary_size, or_dash};
use microsandbox::{ErrorKind, Volume, VolumeHandle};
use serde_json::{Value, json};
use std::io;
use std::time::UNIX_EPOCH;

/// Runs one of the volume commands.
pub(crate) async fn run(command: VolumeCommand, quiet: bool) -> Result<u8, Failure> {
    match command {
        VolumeCommand::Create(new) => create(new, quiet).await,
        VolumeCommand::Ls { json, format } => list(json, format.as_deref(), quiet).await,
        VolumeCommand::Inspect { names, format, json: _ } => {
            inspect(&names, format.as_deref()).await
        }
        VolumeCommand::Rm { names, force } => remove(&names, force, quiet).await,
        VolumeCommand::Prune { force } => prune(force, quiet).await,
    }
}

async fn create(new: NewVolume, quiet: bool) -> Result<u8, Failure> {
    let name = sandbox::name_or_random(new.name, "volume")?;
    let mut builder = Volume::builder(&name).kind(new.kind);
    if let Some(size) = new.size {
        builder = builder.size(size);
    }
    if let Some(quota) = new.quota {
        builder = builder.quota(quota);
    }
    for (key, value) in new.labels {
        builder = builder.label(key, value);
    }
    let made = builder.create().await?;
    if !quiet {
        output::print(format!("{}\n", made.name()))?;
    }
    Ok(0)
}

async fn list(json: bool, format: Option<&str>, quiet: bool) -> Result<u8, Failure> {
    let all = Volume::list().await?;
    if let Some(format) = format {
        return print_form(&all, format);
    }
    let entry = Entry {
        json: details,
        id: VolumeHandle::name,
        heads: ["NAME", "KIND", "SIZE", "USED", "CREATED", "USED BY"],
        rows: |volume| vec![row(volume)],
    };
    output::print_list(&all, &entry, json, quiet)
}

async fn inspect(names: &[String], format: Option<&str>) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for name in names {
        all.push(Volume::get(name).await?);
    }
    match format {
        Some(format) => print_form(&all, format),
        None => output::print_json(&all.iter().map(details).collect()).map(|()| 0),
    }
}

/// Removes each volume, also after a failure.
async fn remove(names: &[String], force: bool, quiet: bool) -> Result<u8, Failure> {
    let mut last = None;
    for name in names {
        match Volume::remove(name).await {
            Ok(()) if quiet => {}
            Ok(()) => output::print(format!("{name}\n"))?,
            Err(error) if force && error.kind() == ErrorKind::VolumeNotFound => {}
            Err(error) => {
                if let Some(earlier) = last.replace(Failure::from(error)) {
                    earlier.report(false);
                }
            }
        }
    }
    last.map_or(Ok(0), Err)
}

async fn prune(force: bool, quiet: bool) -> Result<u8, Failure> {
    if !force {
        let mut unused = Volume::list().await?;
        unused.retain(|volume| volume.sandboxes().is_empty());
        if unused.is_empty() {
            return Ok(0);
        }
        let names: Vec<&str> = unused.iter().map(VolumeHandle::name).collect();
        if !confirmed(&format!("Remove these volumes with their files: {}?", names.join(", ")))? {
            return Err(Failure::new("cannot prune volumes: not confirmed; see --force"));
        }
    }
    let removed = Volume::prune().await?;
    if !quiet {
        output::print(text::lines(removed.iter().map(String::as_str)))?;
    }
    Ok(0)
}

/// Asks a question on standard error; only `y` or `yes` confirm.
fn confirmed(question: &str) -> Result<bool, Failure> {
    crate::stdio::report(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn row(volume: &VolumeHandle) -> [String; 6] {
    [
        volume.name().to_owned(),
        volume.kind().to_string(),
        or_dash(size(volume).map(binary_size)),
        binary_size(volume.used_bytes()),
        text::since(volume.created_at()),
        or_dash(Some(volume.sandboxes().join(",")).filter(|users| !users.is_empty())),
    ]
}

/// Returns the size of a disk, or the quota of a directory.
fn size(volume: &VolumeHandle) -> Option<u64> {
    volume.capacity_bytes().or_else(|| volume.quota_mib().map(|mib| mib << 20))
}

fn details(volume: &VolumeHandle) -> Value {
    let created = volume.created_at().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let labels: serde_json::Map<String, Value> =
        volume.labels().iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "name": volume.name(),
        "kind": volume.kind().to_string(),
        "path": volume.path().to_string_lossy(),
        "size_bytes": volume.capacity_bytes(),
        "quota_mib": volume.quota_mib(),
        "used_bytes": volume.used_bytes(),
        "labels": labels,
        "created_ms": u64::try_from(created).unwrap_or(u64::MAX),
        "sandboxes": volume.sandboxes(),
    })
}

/// Prints one line for each volume.
fn print_form(all: &[VolumeHandle], format: &str) -> Result<u8, Failure> {
    let mut lines = String::new();
    for volume in all {
        lines += &match format {
            "json" => details(volume).to_string(),
            form => filled(volume, form)?,
        };
        lines.push('\n');
    }
    output::print(microsandbox::escape_json(&lines).as_bytes()).map(|()| 0)
}

fn filled(volume: &VolumeHandle, form: &str) -> Result<String, Failure> {
    let (mut text, mut rest) = (String::new(), form);
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) = after.split_once("}}").ok_or_else(|| {
            Failure::new(format!("cannot use the form {form:?}: {{{{ is not closed"))
        })?;
        text += before;
        text += &field_of(volume, field.trim()).ok_or_else(|| {
            Failure::new(format!("cannot use the form {form:?}: unknown field {field:?}"))
        })?;
        rest = after;
    }
    Ok(text + rest)
}

fn field_of(volume: &VolumeHandle, field: &str) -> Option<String> {
    let labels = volume.labels().iter().map(|(key, value)| format!("{key}={value}"));
    Some(match field {
        ".Name" => volume.name().to_owned(),
        ".Kind" | ".Driver" => volume.kind().to_string(),
        ".Path" | ".Mountpoint" => volume.path().to_string_lossy().into_owned(),
        ".Size" => or_dash(size(volume).map(binary_size)),
        ".Used" => binary_size(volume.used_bytes()),
        ".Labels" => labels.collect::<Vec<_>>().join(","),
        ".Sandboxes" => volume.sandboxes().join(","),
        _ => return None,
    })
}
