//! What several commands do with a sandbox: describe a new one, find its sessions.

use crate::args::{ProcessOptions, SandboxOptions};
use crate::exec::ExecContext;
use crate::failure::Failure;
use crate::progress::ImageBar;
use microsandbox::{Sandbox, SandboxBuilder, SessionInfo};
use std::ffi::OsString;
use std::path::Path;

/// Returns the given name, or a random one with this prefix.
pub(crate) fn name_or_random(name: Option<String>, prefix: &str) -> Result<String, Failure> {
    if let Some(name) = name {
        return Ok(name);
    }
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(format!("cannot generate a sandbox name: {error}")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}-{digits}"))
}

/// Returns a builder for a sandbox with these options.
pub(crate) fn builder(
    name: &str,
    image: &Path,
    options: SandboxOptions,
    process: ProcessOptions,
    bar: &ImageBar,
) -> Result<SandboxBuilder, Failure> {
    let bar = bar.clone();
    let mut builder = Sandbox::builder(name)
        .image(image)
        .pull_policy(options.pull)
        .on_progress(move |progress| bar.show(progress))
        .security(options.security)
        .require_jail(options.require_jail)
        .init(options.init)
        .log(options.log);
    builder = set(builder, options.driver, |builder, driver| builder.driver(driver));
    builder = set(builder, options.platform, |builder, name| builder.platform(name));
    builder = set(builder, options.cpus, |builder, cpus| builder.cpus(cpus));
    builder = set(builder, options.memory, SandboxBuilder::memory);
    builder = set(builder, options.shm_size, SandboxBuilder::shm_size);
    builder = set(builder, options.pids_limit, SandboxBuilder::pids_limit);
    builder = set(builder, options.disk, SandboxBuilder::disk);
    builder = set(builder, options.hostname, |builder, hostname| builder.hostname(hostname));
    builder = set(builder, options.entrypoint, |builder, words| builder.entrypoint(words.0));
    builder = set(builder, options.stop_signal, |builder, signal| builder.stop_signal(signal));
    builder = set(builder, options.shell, |builder, shell| builder.shell(shell));
    builder = set(builder, options.max_duration, SandboxBuilder::max_duration);
    builder = set(builder, options.idle_timeout, SandboxBuilder::idle_timeout);
    builder = set(builder, options.boot_timeout, SandboxBuilder::boot_timeout);
    builder = builder.labels(options.labels);
    let mounts = options.volumes.into_iter().chain(options.mounts).chain(options.tmpfs);
    builder = mounts.fold(builder, SandboxBuilder::add_volume_mount);
    let context = ExecContext::new(process)?;
    for (key, value) in context.variables {
        let key = utf8("the name of a variable", key)?;
        let value = utf8(&format!("variable {key}"), value)?;
        builder = builder.env(key, value);
    }
    if let Some(workdir) = context.workdir {
        builder = builder.workdir(utf8("the working directory", workdir)?);
    }
    builder = set(builder, context.user, |builder, user| builder.user(user));
    Ok(if options.replace { builder.replace() } else { builder })
}

fn set<T>(
    builder: SandboxBuilder,
    value: Option<T>,
    setter: impl FnOnce(SandboxBuilder, T) -> SandboxBuilder,
) -> SandboxBuilder {
    match value {
        Some(value) => setter(builder, value),
        None => builder,
    }
}

fn utf8(what: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|value| {
        Failure::new(format!(
            "cannot set {what}: {value:?} is not valid UTF-8; only exec accepts other bytes"
        ))
    })
}

/// Finds the session with this id or unique prefix.
pub(crate) async fn find_session(sandbox: &Sandbox, id: &str) -> Result<SessionInfo, Failure> {
    let mut found = sandbox.sessions().await?;
    found.retain(|session| session.id.starts_with(id));
    let name = sandbox.name();
    only(found, id, &format!("sandbox {name}"), &format!("msb sessions {name}"))
}

/// Returns the only session found; `list` is the command that lists them.
pub(crate) fn only<T>(mut found: Vec<T>, id: &str, place: &str, list: &str) -> Result<T, Failure> {
    match (found.pop(), found.len()) {
        (Some(session), 0) => Ok(session),
        (Some(_), others) => Err(Failure::new(format!(
            "the session id {id} is ambiguous in {place}: {} ids begin with it; give more digits",
            others + 1
        ))),
        (None, _) => {
            Err(Failure::new(format!("no session {id} in {place}; list them with: {list}")))
        }
    }
}
