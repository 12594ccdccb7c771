//! `msb create`, `start`, `stop`, `kill` and `rm`.

use crate::args::{Context, Create, Machine};
use crate::failure::Failure;
use crate::image::Bar;
use crate::stdio;
use microsandbox::{ErrorKind, MicrosandboxResult, Sandbox, SandboxBuilder};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// Creates a sandbox that outlives this process.
pub(crate) async fn create(args: Create, quiet: bool) -> Result<u8, Failure> {
    let bar = Bar::new(quiet);
    let builder = described(&args.name, &args.image, args.machine, args.context, &bar)?;
    let created = builder.detached(true).create().await;
    bar.clear();
    let sandbox = created?;
    if !quiet {
        stdio::print(format!("{}\n", sandbox.name()).as_bytes())?;
    }
    Ok(0)
}

/// Starts a sandbox again.
pub(crate) async fn start(name: &str) -> Result<u8, Failure> {
    match Sandbox::start(name).await {
        Err(error) if error.kind() == ErrorKind::SandboxRunning => {
            Err(Failure::own(format!("sandbox {name} is running already")))
        }
        result => result.map(|_| 0).map_err(Failure::from),
    }
}

/// Ends sandboxes in order.
pub(crate) async fn stop(names: &[String], timeout: Duration) -> Result<u8, Failure> {
    each(names, async |name| Sandbox::get(name).await?.stop_with_timeout(timeout).await).await
}

/// Ends sandboxes at once.
pub(crate) async fn kill(names: &[String]) -> Result<u8, Failure> {
    each(names, async |name| Sandbox::get(name).await?.kill().await).await
}

/// Removes sandboxes.
pub(crate) async fn remove(names: &[String], force: bool) -> Result<u8, Failure> {
    each(names, async |name| match force {
        false => Sandbox::remove(name).await,
        true => match Sandbox::remove_forced(name).await {
            Err(error) if error.kind() == ErrorKind::SandboxNotFound => Ok(()),
            result => result,
        },
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
    context: Context,
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
    if let Some(hostname) = machine.hostname {
        builder = builder.hostname(hostname);
    }
    if let Some(time) = machine.boot_timeout {
        builder = builder.boot_timeout(time);
    }
    for label in machine.labels {
        builder = builder.label(label.key, label.value);
    }
    for variable in context.env {
        let key = text("the name of a variable", variable.key)?;
        if let Some(value) = variable.value {
            let value = text(&format!("the value of the variable {key}"), value)?;
            builder = builder.env(key, value);
        }
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

pub(crate) fn text(what: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|value| {
        Failure::own(format!(
            "{what} is not valid UTF-8: {value:?}; only exec without a terminal takes such bytes"
        ))
    })
}
