//! Running commands in a sandbox.

use crate::error::MicrosandboxResult;
use crate::exec::ExecHandle;
use crate::options::ExecOptionsBuilder;
use crate::output::ExecOutput;
use crate::pull::{Exec, Link, Request};
use crate::reattach::ReattachFrom;
use crate::sandbox::{Program, Sandbox};

impl Sandbox {
    /// Runs a command to completion and collects its output.
    ///
    /// `cmd` is passed on unchanged, without a shell. Dropping the future kills the command.
    pub async fn exec(
        &self,
        cmd: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> MicrosandboxResult<ExecOutput> {
        self.exec_with(cmd, |options| options.args(args)).await
    }

    /// As [`Sandbox::exec`], with options.
    pub async fn exec_with(
        &self,
        cmd: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecOutput> {
        self.collected(Program::Command(cmd.into().into_bytes()), f).await
    }

    /// Runs a script with the sandbox's shell and collects its output.
    pub async fn shell(&self, script: impl Into<String>) -> MicrosandboxResult<ExecOutput> {
        self.shell_with(script, |options| options).await
    }

    /// As [`Sandbox::shell`], with options. Their arguments become those of the script.
    pub async fn shell_with(
        &self,
        script: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecOutput> {
        self.collected(Program::Script(script.into().into_bytes()), f).await
    }

    /// Starts a command and returns a handle on its events.
    pub async fn exec_stream(
        &self,
        cmd: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> MicrosandboxResult<ExecHandle> {
        self.exec_stream_with(cmd, |options| options.args(args)).await
    }

    /// As [`Sandbox::exec_stream`], with options.
    pub async fn exec_stream_with(
        &self,
        cmd: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecHandle> {
        self.streamed(Program::Command(cmd.into().into_bytes()), f).await
    }

    /// Starts a script with the sandbox's shell and returns a handle on its events.
    pub async fn shell_stream(&self, script: impl Into<String>) -> MicrosandboxResult<ExecHandle> {
        self.shell_stream_with(script, |options| options).await
    }

    /// As [`Sandbox::shell_stream`], with options. Their arguments become those of the script.
    pub async fn shell_stream_with(
        &self,
        script: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecHandle> {
        self.streamed(Program::Script(script.into().into_bytes()), f).await
    }

    /// Follows a session: one that this or another process started and that runs, or one that ended
    /// recently.
    ///
    /// The events are `Started`, the output from `from` on, and the same ending that every reader
    /// receives. [`ExecHandle::missed`] counts output that is no longer buffered.
    /// [`ExecHandle::take_stdin`] returns a sink while the session's input is open. Any number of
    /// handles may follow one session; a slow reader slows the session for all of them. Fails with
    /// [`ErrorKind::NoSuchSession`](crate::ErrorKind::NoSuchSession) if this sandbox has no session
    /// with the id.
    pub async fn reattach(
        &self,
        session_id: impl AsRef<str>,
        from: ReattachFrom,
    ) -> MicrosandboxResult<ExecHandle> {
        Ok(ExecHandle::new(Exec::reattach(self, session_id.as_ref(), from).await?))
    }

    async fn collected(
        &self,
        program: Program,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecOutput> {
        self.streamed(program, f).await?.kill_on_drop().collect().await
    }

    async fn streamed(
        &self,
        program: Program,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecHandle> {
        let options = f(ExecOptionsBuilder::new()).build()?;
        let request = Request::new(self, program, options)?;
        Ok(ExecHandle::new(Link::connect(self.clone()).await?.start(request)?))
    }
}
