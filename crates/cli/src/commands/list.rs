//! `msb ls`, `msb info` and `msb sessions`.

use crate::failure::Failure;
use crate::mounts;
use crate::output::{self, Entry};
use crate::text::{self, binary_size, or_dash};
use microsandbox::{Bounds, ExitStatus, Sandbox, SandboxInfo, SessionInfo};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lists the sandboxes.
pub(crate) async fn sandboxes(json: bool, quiet: bool) -> Result<u8, Failure> {
    let entry = Entry {
        json: sandbox_json,
        id: |info: &SandboxInfo| &info.name,
        heads: ["NAME", "STATUS", "DRIVER", "ISOLATION", "JAILED", "IMAGE", "CREATED"],
        rows: |info| vec![sandbox_row(info)],
    };
    output::print_list(&Sandbox::list().await?, &entry, json, quiet)
}

/// Prints the details of a sandbox.
pub(crate) async fn info(name: &str, json: bool) -> Result<u8, Failure> {
    let info = Sandbox::get(name).await?.info().await?;
    match json {
        true => output::print_json(&sandbox_json(&info))?,
        false => output::print(text::fields(details(&info)))?,
    }
    Ok(0)
}

/// Lists the sessions of a sandbox.
pub(crate) async fn sessions(name: &str, json: bool, quiet: bool) -> Result<u8, Failure> {
    let all = Sandbox::get(name).await?.sessions().await?;
    let entry = Entry {
        json: session_json,
        id: |session: &SessionInfo| &session.id,
        heads: ["ID", "PID", "STATUS", "STARTED", "COMMAND"],
        rows: |session| vec![session_row(session)],
    };
    output::print_list(&all, &entry, json, quiet)
}

fn sandbox_row(info: &SandboxInfo) -> [String; 7] {
    [
        info.name.clone(),
        word(&json!(info.status)),
        or_dash(info.driver.clone()),
        word(&json!(info.isolation)),
        jailed(info).to_owned(),
        info.image.display().to_string(),
        text::since(info.created_at),
    ]
}

fn jailed(info: &SandboxInfo) -> &'static str {
    match info.jailed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
}

/// Returns a row for each known property.
fn details(info: &SandboxInfo) -> Vec<[String; 2]> {
    let mut rows = vec![
        ["Name", &info.name].map(str::to_owned),
        ["Status".to_owned(), word(&json!(info.status))],
        ["Image".to_owned(), info.image.display().to_string()],
        ["Driver".to_owned(), or_dash(info.driver.clone())],
        ["Isolation".to_owned(), word(&json!(info.isolation))],
        ["Jailed".to_owned(), jailed(info).to_owned()],
    ];
    rows.extend(info.missing_walls.iter().map(|wall| ["Missing wall".to_owned(), wall.clone()]));
    rows.extend(limits(info.bounds.as_ref()));
    rows.extend(info.mounts.iter().map(|mount| ["Mount".to_owned(), mounts::show(mount)]));
    rows.extend([
        ["Created".to_owned(), text::since(info.created_at)],
        ["Started".to_owned(), or_dash(info.started_at.map(text::since))],
    ]);
    if info.end_reason.is_some() {
        let detail = or_dash(info.end_detail.clone());
        rows.push(["Ended".to_owned(), format!("{}: {detail}", word(&json!(info.end_reason)))]);
    }
    rows.extend(
        info.labels.iter().map(|(key, value)| ["Label".to_owned(), format!("{key}={value}")]),
    );
    rows
}

fn limits(bounds: Option<&Bounds>) -> [[String; 2]; 4] {
    let row = |name: &str, limit: fn(&Bounds) -> Option<String>| {
        let unlimited = || "unlimited".to_owned();
        let value = bounds.map(|bounds| limit(bounds).unwrap_or_else(unlimited));
        [name.to_owned(), or_dash(value)]
    };
    [
        row("Processes", |bounds| bounds.pids.map(|count| count.to_string())),
        row("Memory", |bounds| bounds.memory_bytes.map(binary_size)),
        row("Disk", |bounds| bounds.disk_bytes.map(binary_size)),
        row("Cpus", |bounds| bounds.cpus().map(|cpus| cpus.to_string())),
    ]
}

fn sandbox_json(info: &SandboxInfo) -> Value {
    json!({
        "name": info.name,
        "status": info.status,
        "driver": info.driver,
        "isolation": info.isolation,
        "jailed": info.jailed,
        "missing_walls": info.missing_walls,
        "bounds": info.bounds.map(|bounds| json!({
            "pids": bounds.pids,
            "memory_bytes": bounds.memory_bytes,
            "disk_bytes": bounds.disk_bytes,
            "cpus": bounds.cpus(),
        })),
        "image": info.image.to_string_lossy(),
        "cpus": info.cpus,
        "memory_mib": info.memory,
        "mounts": info.mounts,
        "detached": info.detached,
        "labels": info.labels,
        "created_ms": since_epoch(info.created_at),
        "started_ms": info.started_at.map(since_epoch),
        "end_reason": info.end_reason,
        "end_detail": info.end_detail,
    })
}

fn session_row(session: &SessionInfo) -> [String; 5] {
    [
        session.id.clone(),
        session.pid.to_string(),
        session.status.map_or_else(|| "running".to_owned(), exit_text),
        text::ago(session.age),
        words(session).join(" "),
    ]
}

fn session_json(session: &SessionInfo) -> Value {
    let status = session.status.map(|status| {
        json!({
            "code": status.code,
            "signal": status.signal,
            "core_dumped": status.core_dumped,
            "timed_out": status.timed_out,
        })
    });
    json!({
        "id": session.id,
        "pid": session.pid,
        "command": words(session),
        "tty": session.tty,
        "status": status,
        "age_ms": millis(session.age.as_millis()),
        "output_bytes": session.output_total,
        "followers": session.followers,
    })
}

fn exit_text(status: ExitStatus) -> String {
    match (status.timed_out, status.signal) {
        (true, _) => "timed out".to_owned(),
        (false, Some(signal)) => format!("signal {signal}"),
        (false, None) => format!("exit {}", status.code),
    }
}

fn words(session: &SessionInfo) -> Vec<String> {
    session.command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Returns the text of a JSON string, or a dash for null.
fn word(value: &Value) -> String {
    or_dash(value.as_str().map(str::to_owned))
}

fn since_epoch(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

fn millis(time: u128) -> u64 {
    u64::try_from(time).unwrap_or(u64::MAX)
}
