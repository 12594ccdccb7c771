//! `msb create`, `start`, `stop`, `kill` and `rm`.

use crate::args::{Create, Kill};
use crate::failure::Failure;
use crate::progress::{self, ImageBar};
use crate::{output, sandbox};
use microsandbox::{ErrorKind, MicrosandboxResult, ReattachFrom, Sandbox};
use std::time::Duration;

/// Creates a sandbox that outlives this process.
pub(crate) async fn create(args: Create, quiet: bool) -> Result<u8, Failure> {
    let name = sandbox::name_or_random(args.name, "box")?;
    let bar = ImageBar::new(quiet);
    let builder = sandbox::builder(&name, &args.image, args.sandbox, args.process, &bar)?;
    let creating = builder.detached(true).create();
    let sandbox = progress::spin_beside(&bar, format!("starting {name}"), creating).await?;
    if !quiet {
        output::print(format!("{}\n", sandbox.name()))?;
    }
    Ok(0)
}

/// Starts sandboxes again; a running one is fine.
pub(crate) async fn start(names: &[String], quiet: bool) -> Result<u8, Failure> {
    each(names, async |name| {
        let starting = Sandbox::start(name);
        let started = progress::spin(quiet, format!("starting {name}"), starting).await;
        ignore(ErrorKind::SandboxRunning, started.map(drop))
    })
    .await
}

/// Stops sandboxes; a stopped one is fine.
pub(crate) async fn stop(names: &[String], timeout: Duration, quiet: bool) -> Result<u8, Failure> {
    each(names, async |name| {
        let sandbox = Sandbox::get(name).await?;
        let stopping = sandbox.stop_with_timeout(timeout);
        let stopped = progress::spin(quiet, format!("stopping {name}"), stopping).await;
        ignore(ErrorKind::SandboxNotRunning, stopped)
    })
    .await
}

/// Kills sandboxes, or kills or signals one session.
pub(crate) async fn kill(args: &Kill) -> Result<u8, Failure> {
    let Some(id) = &args.session else {
        return each(&args.names, async |name| Sandbox::get(name).await?.kill().await).await;
    };
    let [name] = args.names.as_slice() else {
        return Err(Failure::new("cannot use --session with several sandboxes; give one name"));
    };
    let sandbox = Sandbox::get(name).await?;
    let session = sandbox::find_session(&sandbox, id).await?;
    let handle = sandbox.reattach(&session.id, ReattachFrom::Now).await?;
    match args.signal {
        Some(signal) => handle.signal(signal.number()).await?,
        None => handle.kill().await?,
    }
    Ok(0)
}

/// Removes sandboxes.
pub(crate) async fn remove(names: &[String], force: bool) -> Result<u8, Failure> {
    each(names, async |name| match force {
        false => Sandbox::remove(name).await,
        true => ignore(ErrorKind::SandboxNotFound, Sandbox::remove_forced(name).await),
    })
    .await
}

/// Turns an error of this kind into success.
fn ignore(kind: ErrorKind, result: MicrosandboxResult<()>) -> MicrosandboxResult<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        result => result,
    }
}

/// Applies `action` to each name, also after a failure; returns the last failure.
async fn each(
    names: &[String],
    action: impl AsyncFn(&str) -> MicrosandboxResult<()>,
) -> Result<u8, Failure> {
    let mut last: Result<u8, Failure> = Ok(0);
    for name in names {
        if let Err(error) = action(name).await
            && let Err(earlier) = std::mem::replace(&mut last, Err(error.into()))
        {
            earlier.report(false);
        }
    }
    last
}
