//! Tying the host's terminal to what runs in a sandbox.

use crate::attach::{
    AttachOptions, AttachOptionsBuilder, AttachOutcome, Claim, DetachKeys, Session,
};
use crate::client::ExecCore;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::exec::ExecControl;
use crate::sandbox::{Program, Sandbox};

/// A session that is about to have this process's terminal, made by [`Sandbox::attach_start`]. The
/// terminal is unchanged until [`Attachment::outcome`]. Dropping this leaves the session running.
#[derive(Debug)]
pub struct Attachment {
    claim: Claim,
    session: Session,
}

impl Attachment {
    /// Returns a handle for signals to the command, which can be used while it is attached.
    pub fn control(&self) -> ExecControl {
        ExecControl::new(&self.session.core)
    }

    /// Attaches the terminal, and waits as [`Sandbox::attach`] does.
    pub async fn outcome(self) -> MicrosandboxResult<AttachOutcome> {
        crate::attach::attach(self.claim, self.session).await
    }
}

impl Sandbox {
    /// Runs a command on this process's terminal.
    ///
    /// While it runs, the terminal is in raw mode, what is typed goes to the command, what the
    /// command puts out goes to standard output, and the command's terminal has the size of this
    /// one, which is looked at ten times a second. However this ends, the terminal gets its
    /// settings back.
    ///
    /// Returns the command's exit code, or 128 and the signal's number when a signal killed it, as
    /// a shell would show it; -1 when the detach keys were typed, `ctrl-]` unless set, or the
    /// terminal was hung up: the command then runs on; reattach with
    /// [`Sandbox::attach_session`]. It also runs on when the future is dropped. Fails with [`ErrorKind::NotATerminal`]
    /// when standard input is not a terminal, and with [`ErrorKind::Busy`] while another attach has
    /// it.
    pub async fn attach(
        &self,
        cmd: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> MicrosandboxResult<i32> {
        self.attach_with(cmd, |options| options.args(args)).await
    }

    /// As [`Sandbox::attach`], with options.
    pub async fn attach_with(
        &self,
        cmd: impl Into<String>,
        f: impl FnOnce(AttachOptionsBuilder) -> AttachOptionsBuilder,
    ) -> MicrosandboxResult<i32> {
        Ok(self.attach_outcome(Some(cmd), f).await?.code())
    }

    /// As [`Sandbox::attach`], with the sandbox's shell.
    pub async fn attach_shell(&self) -> MicrosandboxResult<i32> {
        self.attach_shell_with(|options| options).await
    }

    /// As [`Sandbox::attach_shell`], with options.
    pub async fn attach_shell_with(
        &self,
        f: impl FnOnce(AttachOptionsBuilder) -> AttachOptionsBuilder,
    ) -> MicrosandboxResult<i32> {
        Ok(self.attach_outcome(None::<String>, f).await?.code())
    }

    /// As [`Sandbox::attach_with`], or without a command as [`Sandbox::attach_shell_with`], and
    /// tells the session's id and how it ended.
    pub async fn attach_outcome(
        &self,
        cmd: Option<impl Into<String>>,
        f: impl FnOnce(AttachOptionsBuilder) -> AttachOptionsBuilder,
    ) -> MicrosandboxResult<AttachOutcome> {
        self.attach_start(cmd, f).await?.outcome().await
    }

    /// As [`Sandbox::attach_outcome`], in two steps: starts the command, which
    /// [`Attachment::outcome`] then attaches.
    pub async fn attach_start(
        &self,
        cmd: Option<impl Into<String>>,
        f: impl FnOnce(AttachOptionsBuilder) -> AttachOptionsBuilder,
    ) -> MicrosandboxResult<Attachment> {
        let program = match cmd {
            Some(cmd) => cmd.into().into_bytes(),
            None => self.own_shell().to_vec(),
        };
        let options = f(AttachOptionsBuilder::new()).build()?;
        self.attach_program(Program::Command(program), options).await
    }

    /// As [`Sandbox::attach`], with a session that is there already, from now on. What it put out
    /// before can be had from [`Sandbox::reattach`].
    ///
    /// Fails with [`ErrorKind::NoSuchSession`] when the id is not known in this sandbox, and with
    /// [`ErrorKind::NotATerminal`] when the session has no terminal.
    pub async fn attach_session(&self, session_id: impl AsRef<str>) -> MicrosandboxResult<i32> {
        Ok(self.attach_session_outcome(session_id, None).await?.code())
    }

    /// As [`Sandbox::attach_session`], with other keys, as
    /// [`AttachOptionsBuilder::detach_keys`] takes them, and tells how it ended.
    pub async fn attach_session_outcome(
        &self,
        session_id: impl AsRef<str>,
        detach_keys: Option<&str>,
    ) -> MicrosandboxResult<AttachOutcome> {
        self.attach_session_start(session_id, detach_keys).await?.outcome().await
    }

    /// As [`Sandbox::attach_session_outcome`], in two steps, as [`Sandbox::attach_start`].
    pub async fn attach_session_start(
        &self,
        session_id: impl AsRef<str>,
        detach_keys: Option<&str>,
    ) -> MicrosandboxResult<Attachment> {
        let keys = detach_keys.map_or_else(|| Ok(DetachKeys::default()), str::parse)?;
        let session_id = session_id.as_ref();
        let claim = Claim::new()?;
        // All that is kept: its program may have changed the terminal that it had, and takes for
        // granted that this one is the same.
        let before = self.sessions().await?;
        let (core, joined) = self.join(session_id, Some(0)).await?;
        if !joined.tty {
            let context = format!("the session {} has no terminal", core.session());
            return Err(Error::new(ErrorKind::NotATerminal, Origin::Caller, context));
        }
        let id = core.session().to_string();
        let total = before.iter().find(|session| session.id == id);
        let shown = total.map_or(0, |session| session.output_total.saturating_sub(joined.from));
        Ok(Attachment { claim, session: Session { core, keys, size: None, shown } })
    }

    /// Runs a program on this process's terminal.
    pub(crate) async fn attach_program(
        &self,
        program: Program,
        mut options: AttachOptions,
    ) -> MicrosandboxResult<Attachment> {
        let claim = Claim::new()?;
        let size = claim.size();
        options.exec.modes = claim.modes();
        options.exec.tty = size.or(options.exec.tty);
        let (request, _) = self.request_for(program, options.exec)?;
        let core = ExecCore::start(&self.connect().await?, request)?;
        Ok(Attachment { claim, session: Session { core, keys: options.keys, size, shown: 0 } })
    }
}
