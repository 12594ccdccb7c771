//! `msb ls` and `msb sessions`.

use crate::failure::Failure;
use crate::stdio;
use crate::table::{ago, table};
use microsandbox::{ExitStatus, Sandbox, SandboxInfo, SessionInfo};
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
        let heads = ["NAME", "STATUS", "DRIVER", "ISOLATION", "IMAGE", "CREATED"];
        table(heads, all.iter().map(sandbox_row).collect())
    };
    if json {
        stdio::print_json(&text)?
    } else {
        stdio::print(text.as_bytes())?
    }
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

fn sandbox_row(info: &SandboxInfo) -> [String; 6] {
    [
        info.name.clone(),
        word(&json!(info.status)),
        info.driver.clone().unwrap_or_else(|| "-".to_owned()),
        word(&json!(info.isolation)),
        info.image.display().to_string(),
        ago(info.created_at.elapsed().unwrap_or_default()),
    ]
}

fn sandbox_json(info: &SandboxInfo) -> Value {
    json!({
        "name": info.name,
        "status": info.status,
        "driver": info.driver,
        "isolation": info.isolation,
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
