//! Running commands in a sandbox.

use crate::error::MicrosandboxResult;
use crate::exec::ExecHandle;
use crate::options::ExecOptionsBuilder;
use crate::output::ExecOutput;
use crate::pull::{Exec, Link, Request};
use crate::reattach::ReattachFrom;
use crate::sandbox::{Program, Sandbox};

impl Sandbox {
    /// Runs a command to its end and collects its output.
    ///
    /// `cmd` goes to the sandbox as it is: no shell looks at it. When the future is dropped, the
    /// command is killed.
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

    /// As [`Sandbox::shell`], with options. Arguments come behind the script.
    pub async fn shell_with(
        &self,
        script: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecOutput> {
        self.collected(Program::Script(script.into().into_bytes()), f).await
    }

    /// Starts a command and tells by events how it goes.
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

    /// Starts a script with the sandbox's shell and tells by events how it goes.
    pub async fn shell_stream(&self, script: impl Into<String>) -> MicrosandboxResult<ExecHandle> {
        self.shell_stream_with(script, |options| options).await
    }

    /// As [`Sandbox::shell_stream`], with options. Arguments come behind the script.
    pub async fn shell_stream_with(
        &self,
        script: impl Into<String>,
        f: impl FnOnce(ExecOptionsBuilder) -> ExecOptionsBuilder,
    ) -> MicrosandboxResult<ExecHandle> {
        self.streamed(Program::Script(script.into().into_bytes()), f).await
    }

    /// Follows a session: one that was started by this or another process and runs, or one that
    /// ended a short while ago.
    ///
    /// Its events are `Started`, its output from `from` on, its ending as it was or will be told to
    /// everybody. What is no longer kept of the output, [`ExecHandle::missed`] counts.
    /// [`ExecHandle::take_stdin`] gives a sink while the session's input is open. Any number of
    /// handles may follow one session; a slow reader slows the session for all of them. Fails with
    /// [`ErrorKind::NoSuchSession`](crate::ErrorKind::NoSuchSession) when the id is not known in this sandbox.
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
