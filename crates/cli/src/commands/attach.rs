//! `msb attach`.

use crate::args::{Attach, SessionOptions};
use crate::exec::{ExecContext, ExecRequest};
use crate::failure::Failure;
use crate::sandbox::find_session;
use crate::signals::Signals;
use crate::{stdio, stream, terminal};
use microsandbox::{ReattachFrom, Sandbox};

/// Reattaches to a session, or runs the sandbox's shell.
pub(crate) async fn attach(args: Attach, quiet: bool) -> Result<u8, Failure> {
    let mut signals = Signals::handle()?;
    let sandbox = signals.interrupt(Sandbox::get(&args.name)).await??;
    let detach_keys = args.detach_keys;
    let Some(id) = args.session else {
        terminal::require()?;
        let options = SessionOptions { detach_keys, ..SessionOptions::default() };
        let shell = ExecRequest::new(Vec::new(), ExecContext::default(), options)?;
        return Ok(terminal::run(&sandbox, shell, &mut signals).await?.report(&sandbox, quiet));
    };
    let session = signals.interrupt(find_session(&sandbox, &id)).await??;
    if session.tty {
        let (id, keys) = (&session.id, detach_keys.as_deref());
        let outcome = terminal::reattach(&sandbox, id, keys, &mut signals).await?;
        return Ok(outcome.report(&sandbox, quiet));
    }
    watch(&sandbox, &session.id, quiet, &mut signals).await
}

/// Prints the output of a session without a terminal: what is still buffered, then what follows.
async fn watch(
    sandbox: &Sandbox,
    id: &str,
    quiet: bool,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let reattach = sandbox.reattach(id, ReattachFrom::Start);
    let mut handle = signals.interrupt(reattach).await??;
    if handle.missed() > 0 && !quiet {
        stdio::report(&format!("the first {} bytes are no longer available", handle.missed()));
    }
    stream::watch(&mut handle, signals).await
}
