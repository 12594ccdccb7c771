//! `msb ls`, `msb info` and `msb sessions`.

use crate::failure::Failure;
use crate::stdio;
use crate::table::{ago, fields, table};
use microsandbox::{Bounds, ExitStatus, Sandbox, SandboxInfo, SessionInfo};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Lists the sandboxes.
pub(crate) async fn sandboxes(json: bool, quiet: bool) -> Result<u8, Failure> {
    let all = Sandbox::list().await?;
    let text = if json {
        document(all.iter().map(sandbox_json).collect())
    } else if quiet {
        lines(all.iter().map(|info| info.name.as_str()))
    } else {
        let heads = ["NAME", "STATUS", "DRIVER", "ISOLATION", "JAILED", "IMAGE", "CREATED"];
        table(heads, all.iter().map(sandbox_row).collect())
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
    Ok(0)
}

/// Shows what is known about one.
pub(crate) async fn info(name: &str, json: bool) -> Result<u8, Failure> {
    let info = Sandbox::get(name).await?.info().await?;
    let text = match json {
        true => format!("{:#}\n", sandbox_json(&info)),
        false => described(&info),
    };
    stdio::print(text.as_bytes())?;
    Ok(0)
}

/// Lists what runs in a sandbox.
pub(crate) async fn sessions(name: &str, json: bool, quiet: bool) -> Result<u8, Failure> {
    let all = Sandbox::get(name).await?.sessions().await?;
    let text = if json {
        document(all.iter().map(session_json).collect())
    } else if quiet {
        lines(all.iter().map(|session| session.id.as_str()))
    } else {
        let heads = ["ID", "PID", "STATUS", "STARTED", "COMMAND"];
        table(heads, all.iter().map(session_row).collect())
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
    Ok(0)
}

/// The session whose id this is, or is the beginning of.
pub(crate) async fn session(sandbox: &Sandbox, id: &str) -> Result<SessionInfo, Failure> {
    let mut found = sandbox.sessions().await?;
    found.retain(|session| session.id.starts_with(id));
    let name = sandbox.name();
    match (found.pop(), found.is_empty()) {
        (Some(session), true) => Ok(session),
        (Some(_), false) => Err(Failure::own(format!(
            "{} sessions of sandbox {name} begin with {id}; give more of the id",
            found.len() + 1
        ))),
        (None, _) => Err(Failure::own(format!(
            "no session of sandbox {name} is {id}; msb sessions {name} lists them"
        ))),
    }
}

/// One JSON document for a list.
pub(crate) fn document(entries: Vec<Value>) -> String {
    format!("{:#}\n", Value::from(entries))
}

fn lines<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("{}\n", stdio::one_line(name))).collect()
}

fn sandbox_row(info: &SandboxInfo) -> [String; 7] {
    [
        info.name.clone(),
        word(&json!(info.status)),
        info.driver.clone().unwrap_or_else(|| "-".to_owned()),
        word(&json!(info.isolation)),
        jailed(info).to_owned(),
        info.image.display().to_string(),
        ago(info.created_at.elapsed().unwrap_or_default()),
    ]
}

fn jailed(info: &SandboxInfo) -> &'static str {
    match info.jailed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
}

/// A line for each thing that is known.
fn described(info: &SandboxInfo) -> String {
    let dash = || "-".to_owned();
    let ago_or_dash = |time: Option<SystemTime>| {
        time.map_or_else(dash, |time| ago(time.elapsed().unwrap_or_default()))
    };
    let mut rows = vec![
        ["Name", &info.name].map(str::to_owned),
        ["Status".to_owned(), word(&json!(info.status))],
        ["Image".to_owned(), info.image.display().to_string()],
        ["Driver".to_owned(), info.driver.clone().unwrap_or_else(dash)],
        ["Isolation".to_owned(), word(&json!(info.isolation))],
        ["Jailed".to_owned(), jailed(info).to_owned()],
    ];
    rows.extend(info.missing_walls.iter().map(|wall| ["Missing wall".to_owned(), wall.clone()]));
    rows.extend(bounds_rows(info.bounds.as_ref()));
    rows.extend([
        ["Created".to_owned(), ago_or_dash(Some(info.created_at))],
        ["Started".to_owned(), ago_or_dash(info.started_at)],
    ]);
    if info.end_reason.is_some() {
        let end = info.end_detail.clone().unwrap_or_else(dash);
        rows.push(["Ended".to_owned(), format!("{}: {end}", word(&json!(info.end_reason)))]);
    }
    rows.extend(
        info.labels.iter().map(|(key, value)| ["Label".to_owned(), format!("{key}={value}")]),
    );
    fields(rows)
}

fn bounds_rows(bounds: Option<&Bounds>) -> [[String; 2]; 4] {
    let shown = |value: Option<String>| match (bounds, value) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "not bounded".to_owned(),
        (Some(_), Some(value)) => value,
    };
    let bytes = |of: fn(&Bounds) -> Option<u64>| shown(bounds.and_then(of).map(in_units));
    [
        ["Processes".to_owned(), shown(bounds.and_then(|all| all.pids).map(|n| n.to_string()))],
        ["Memory".to_owned(), bytes(|all| all.memory_bytes)],
        ["Disk".to_owned(), bytes(|all| all.disk_bytes)],
        ["Cpus".to_owned(), shown(bounds.and_then(Bounds::cpus).map(|n| n.to_string()))],
    ]
}

/// A size in its largest whole unit.
fn in_units(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(size, _)| bytes >= *size && bytes.is_multiple_of(*size));
    match whole {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
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
        session.status.map_or_else(|| "running".to_owned(), ended),
        ago(session.age),
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

fn ended(status: ExitStatus) -> String {
    match (status.timed_out, status.signal) {
        (true, _) => "timed out".to_owned(),
        (false, Some(signal)) => format!("signal {signal}"),
        (false, None) => format!("exit {}", status.code),
    }
}

fn words(session: &SessionInfo) -> Vec<String> {
    session.command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The word that JSON has for it; a dash for nothing.
pub(crate) fn word(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

fn since_epoch(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

fn millis(time: u128) -> u64 {
    u64::try_from(time).unwrap_or(u64::MAX)
}
