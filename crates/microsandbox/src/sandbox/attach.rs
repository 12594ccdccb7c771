//! Attaching the host's terminal to a session.

use crate::attach::{
    AttachOptions, AttachOptionsBuilder, AttachOutcome, Claim, DetachKeys, Session,
};
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::exec::ExecControl;
use crate::sandbox::{Program, Sandbox};
use msb_client::ExecCore;

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
    /// Until it ends, the terminal is in raw mode, typed input goes to the command, the command's
    /// output goes to standard output, and the command's terminal has the size of this one, which
    /// is checked ten times a second. The terminal's settings are always restored.
    ///
    /// Returns the command's exit code, or 128 plus the signal's number if a signal killed it, as a
    /// shell does. Returns -1 if the detach keys were typed (`ctrl-]` by default) or the terminal
    /// was hung up: the command continues to run; reattach with [`Sandbox::attach_session`]. It
    /// also continues if the future is dropped. Fails with [`ErrorKind::NotATerminal`] if standard
    /// input is not a terminal, and with [`ErrorKind::Busy`] during another attach.
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

    /// As [`Sandbox::attach_with`], or without a command as [`Sandbox::attach_shell_with`]. Returns
    /// the session's id and its exit status.
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

    /// Attaches to an existing session, from now on. Its earlier output is available from
    /// [`Sandbox::reattach`].
    ///
    /// Fails with [`ErrorKind::NoSuchSession`] if this sandbox has no session with the id, and with
    /// [`ErrorKind::NotATerminal`] if the session has no terminal.
    pub async fn attach_session(&self, session_id: impl AsRef<str>) -> MicrosandboxResult<i32> {
        Ok(self.attach_session_outcome(session_id, None).await?.code())
    }

    /// As [`Sandbox::attach_session`], with detach keys in the form of
    /// [`AttachOptionsBuilder::detach_keys`]. Returns the session's exit status, too.
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
        // All buffered output: the program may have changed the modes of its former terminal, and
        // expects the same of this one.
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
