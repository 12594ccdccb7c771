//! Tying the host's terminal to what runs in a sandbox.

use crate::attach::{
    AttachOptions, AttachOptionsBuilder, AttachOutcome, Claim, DetachKeys, Session,
};
use crate::client::ExecCore;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::sandbox::{Program, Sandbox};

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
        Ok(self.attach_to(session_id.as_ref(), DetachKeys::default()).await?.code())
    }

    /// As [`Sandbox::attach_session`], with other keys, as
    /// [`AttachOptionsBuilder::detach_keys`] takes them, and tells how it ended.
    pub async fn attach_session_outcome(
        &self,
        session_id: impl AsRef<str>,
        detach_keys: Option<&str>,
    ) -> MicrosandboxResult<AttachOutcome> {
        let keys = detach_keys.map_or_else(|| Ok(DetachKeys::default()), str::parse)?;
        self.attach_to(session_id.as_ref(), keys).await
    }

    /// Takes a session up again.
    pub(crate) async fn attach_to(
        &self,
        session_id: &str,
        keys: DetachKeys,
    ) -> MicrosandboxResult<AttachOutcome> {
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
        crate::attach::attach(claim, Session { core, keys, size: None, shown }).await
    }

    /// Runs a program on this process's terminal.
    pub(crate) async fn attach_program(
        &self,
        program: Program,
        mut options: AttachOptions,
    ) -> MicrosandboxResult<AttachOutcome> {
        let claim = Claim::new()?;
        let size = claim.size();
        options.exec.tty = size.or(options.exec.tty);
        let (request, _) = self.request_for(program, options.exec)?;
        let core = ExecCore::start(&self.connect().await?, request)?;
        crate::attach::attach(claim, Session { core, keys: options.keys, size, shown: 0 }).await
    }
}
