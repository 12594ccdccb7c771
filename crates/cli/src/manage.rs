//! `msb create`, `start`, `stop`, `kill` and `rm`.

use crate::args::{Create, Kill};
use crate::failure::Failure;
use crate::image::Bar;
use crate::list::session;
use crate::options::{Context, Machine};
use crate::{progress, stdio};
use microsandbox::{ErrorKind, MicrosandboxResult, ReattachFrom, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Creates a sandbox that outlives this process.
pub(crate) async fn create(args: Create, quiet: bool) -> Result<u8, Failure> {
    let name = args.name.map_or_else(|| made_up_name("box"), Ok)?;
    let bar = Bar::new(quiet);
    let builder = described(&name, &args.image, args.machine, args.context, &bar)?;
    let creating = builder.detached(true).create();
    let sandbox = progress::beside(&bar, format!("starting {name}"), creating).await?;
    if !quiet {
        stdio::print(format!("{}\n", sandbox.name()).as_bytes())?;
    }
    Ok(0)
}

/// Starts sandboxes again; one that runs is as it is to be.
pub(crate) async fn start(names: &[String], quiet: bool) -> Result<u8, Failure> {
    each(names, async |name| {
        let starting = Sandbox::start(name);
        let started = progress::during(quiet, format!("starting {name}"), starting).await;
        unless(ErrorKind::SandboxRunning, started.map(drop))
    })
    .await
}

/// Ends sandboxes in order; one that does not run is as it is to be.
pub(crate) async fn stop(names: &[String], timeout: Duration, quiet: bool) -> Result<u8, Failure> {
    each(names, async |name| {
        let sandbox = Sandbox::get(name).await?;
        let stopping = sandbox.stop_with_timeout(timeout);
        let stopped = progress::during(quiet, format!("stopping {name}"), stopping).await;
        unless(ErrorKind::SandboxNotRunning, stopped)
    })
    .await
}

/// Ends sandboxes at once, or sends a signal to a session of theirs.
pub(crate) async fn kill(args: &Kill) -> Result<u8, Failure> {
    let Some(id) = &args.session else {
        return each(&args.names, async |name| Sandbox::get(name).await?.kill().await).await;
    };
    let [name] = args.names.as_slice() else {
        return Err(Failure::own("a session is one sandbox's: give one name with --session"));
    };
    let sandbox = Sandbox::get(name).await?;
    let session = session(&sandbox, id).await?;
    let handle = sandbox.reattach(&session.id, ReattachFrom::Now).await?;
    match args.signal {
        Some(signal) => handle.signal(signal).await?,
        None => handle.kill().await?,
    }
    Ok(0)
}

fn unless(kind: ErrorKind, result: MicrosandboxResult<()>) -> MicrosandboxResult<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        result => result,
    }
}

/// A name for a sandbox to which nobody gave one.
pub(crate) fn made_up_name(prefix: &str) -> Result<String, Failure> {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::own(format!("cannot draw random bytes: {error}")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}-{digits}"))
}

/// Removes sandboxes.
pub(crate) async fn remove(names: &[String], force: bool) -> Result<u8, Failure> {
    each(names, async |name| match force {
        false => Sandbox::remove(name).await,
        true => unless(ErrorKind::SandboxNotFound, Sandbox::remove_forced(name).await),
    })
    .await
}

/// Does it to each of them, also after one for which it failed.
async fn each(
    names: &[String],
    action: impl AsyncFn(&str) -> MicrosandboxResult<()>,
) -> Result<u8, Failure> {
    let mut last = Ok(0);
    for name in names {
        if let Err(error) = action(name).await {
            if let Err(Failure { message: Some(message), .. }) = &last {
                stdio::complain(message);
            }
            last = Err(error.into());
        }
    }
    last
}

/// A sandbox as the options describe it.
pub(crate) fn described(
    name: &str,
    image: &Path,
    machine: Machine,
    mut context: Context,
    bar: &Bar,
) -> Result<SandboxBuilder, Failure> {
    let bar = bar.clone();
    let mut builder = Sandbox::builder(name)
        .image(image)
        .pull_policy(machine.pull)
        .on_progress(move |progress| bar.show(progress));
    if let Some(driver) = machine.driver {
        builder = builder.driver(driver);
    }
    if let Some(cpus) = machine.cpus {
        builder = builder.cpus(cpus);
    }
    if let Some(mib) = machine.memory {
        builder = builder.memory(mib);
    }
    if let Some(count) = machine.pids_limit {
        builder = builder.pids_limit(count);
    }
    if let Some(mib) = machine.disk {
        builder = builder.disk(mib);
    }
    builder = builder.security(machine.security).require_jail(machine.require_jail);
    if let Some(hostname) = machine.hostname {
        builder = builder.hostname(hostname);
    }
    if let Some(shell) = machine.shell {
        builder = builder.shell(shell);
    }
    if let Some(time) = machine.max_duration {
        builder = builder.max_duration(time);
    }
    if let Some(time) = machine.idle_timeout {
        builder = builder.idle_timeout(time);
    }
    if let Some(time) = machine.boot_timeout {
        builder = builder.boot_timeout(time);
    }
    for label in machine.labels {
        builder = builder.label(label.key, label.value);
    }
    for (key, value) in context.variables()? {
        let key = text("the name of a variable", key)?;
        let value = text(&format!("the value of the variable {key}"), value)?;
        builder = builder.env(key, value);
    }
    if let Some(workdir) = context.workdir {
        builder = builder.workdir(text("the working directory", workdir)?);
    }
    if let Some(user) = context.user {
        builder = builder.user(user);
    }
    builder = builder.log(machine.log);
    Ok(if machine.replace { builder.replace() } else { builder })
}

fn text(what: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|value| {
        Failure::own(format!("{what} is not valid UTF-8: {value:?}; only exec takes such bytes"))
    })
}
