//! Sessions on this process's terminal.

use crate::args::SessionOptions;
use crate::exec::{ExecRequest, Outcome, configure};
use crate::failure::Failure;
use crate::signals::{SignalAction, Signals};
use crate::stream::{self, Killed, Target};
use crate::sys;
use microsandbox::{AttachOptionsBuilder, Attachment, Sandbox};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Fails, before anything is created, if standard input is not a terminal.
pub(crate) fn require() -> Result<(), Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        // Changes nothing, but the kernel stops a process in the background here, until it is in
        // the foreground. Threads of the library block the signal and would change the settings of
        // the terminal that a shell is using.
        let settings = tcgetattr(&input);
        return settings
            .and_then(|settings| tcsetattr(&input, OptionalActions::Now, &settings))
            .map_err(|errno| Failure::new(format!("cannot use the terminal: {errno}")));
    }
    Err(Failure::new(
        "cannot attach: standard input is not a terminal, as attach and -t require; use exec -i",
    ))
}

/// Fails if the options require a terminal that is not there, or an input that cannot be.
pub(crate) fn check(options: &SessionOptions) -> Result<(), Failure> {
    match (options.tty, options.detach) {
        (true, false) => require(),
        (false, true) if options.interactive => Err(Failure::new(
            "cannot combine -i and -d: a background command has no standard input; use -t to give \
             it a terminal for msb attach",
        )),
        _ => Ok(()),
    }
}

/// Runs a command, or the sandbox's shell, on this terminal.
pub(crate) async fn run(
    sandbox: &Sandbox,
    mut request: ExecRequest,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let (program, time) = (request.program.take(), request.options.timeout);
    let keys = request.options.detach_keys.take();
    let configure = |builder: AttachOptionsBuilder| {
        let builder = configure!(builder, request);
        match keys {
            Some(keys) => builder.detach_keys(keys),
            None => builder,
        }
    };
    let attach = signals.starting(sandbox.attach_start(program, configure)).await??;
    wait(attach, true, time, signals).await
}

/// Attaches this terminal to a session.
pub(crate) async fn reattach(
    sandbox: &Sandbox,
    session_id: &str,
    detach_keys: Option<&str>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    require()?;
    let attach = sandbox.attach_session_start(session_id, detach_keys);
    let attach = signals.starting(attach).await??;
    wait(attach, false, None, signals).await
}

/// Waits for the end of an attach, and passes signals on meanwhile. However this ends, the terminal
/// gets its settings back.
async fn wait(
    attach: Attachment,
    owned: bool,
    time: Option<Duration>,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    sys::restore_terminal_on_faults();
    let target = Target { control: attach.control(), owned };
    let mut attached = std::pin::pin!(attach.outcome());
    let mut killed = None;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut attached => break outcome.map_err(Failure::no_exit)?,
            action = signals.next() => match action {
                // The library tells the command's terminal its size.
                SignalAction::Pass(libc::SIGWINCH) => {}
                // Nobody asked for the command's end: its terminal has gone.
                SignalAction::Forward(signal) | SignalAction::Kill(signal)
                    if signal == libc::SIGHUP && is_hung_up() =>
                {
                    return Err(Failure::by_signal(signal));
                }
                action => {
                    target.act(action)?;
                    if let SignalAction::Kill(_) = action {
                        killed = Some(Killed::now());
                    }
                }
            },
            () = stream::overdue(&mut killed) => return Err(stream::no_answer()),
        }
    };
    match outcome.status {
        Some(status) => stream::exit_code(&status, time).map(Outcome::Exited),
        None => Ok(Outcome::Running(outcome.session_id)),
    }
}

/// Whether the terminal has gone.
fn is_hung_up() -> bool {
    let input = std::io::stdin();
    let mut watched = [PollFd::new(&input, PollFlags::empty())];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
