//! Sandboxes: creating, finding and stopping them.
//!
//! Owns: the sandbox object and its connection to the agent. Does not own: the state on disk and
//! the machine, which belongs to the driver crates. Invariant: state that another process could
//! change is never cached; whether a sandbox runs is checked each time.

mod attach;
mod builder;
mod control;
mod file_handles;
mod info;
mod log_queue;
mod logs;
mod request;
mod run;

use crate::completion::Pending;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::output::ExitStatus;
use crate::runtime;
use msb_client::{Connection, Limits};
use msb_state::{Companions, Home, Info, Name, SandboxConfig, SandboxDir};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use file_handles::Handles;

pub use crate::options::{Rlimit, RlimitResource};
pub use attach::Attachment;
pub use log_queue::{LogItem, LogNext};
pub use request::Program;

pub use builder::SandboxBuilder;
pub use info::{SandboxInfo, SessionInfo};
pub use logs::{LogStream, logs};
pub use msb_state::{Bounds, Cpus, Security, Signal};
pub use msb_state::{Isolation, Reason as SandboxEndReason, Status as SandboxStatus};
pub use msb_state::{LogEvent, LogOptions, LogRecord, LogSource};

/// How long commands may take to end when their sandbox is stopped, before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle to a sandbox. Clones refer to the same sandbox; dropping a handle has no effect on it.
///
/// A sandbox that is not detached ends with the process that created it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    home: Home,
    dir: SandboxDir,
    config: SandboxConfig,
    connection: Mutex<Option<Arc<Connection>>>,
    handles: Handles,
}

impl Sandbox {
    /// Returns a builder for a new sandbox; [`SandboxBuilder::create`] creates it.
    pub fn builder(name: impl Into<String>) -> SandboxBuilder {
        SandboxBuilder::new(name.into())
    }

    /// Finds a sandbox by its name, running or not.
    pub async fn get(name: impl AsRef<str>) -> MicrosandboxResult<Sandbox> {
        Sandbox::begin_get(name.as_ref()).await
    }

    /// Starts a stopped sandbox with its existing files.
    pub async fn start(name: impl AsRef<str>) -> MicrosandboxResult<Sandbox> {
        Sandbox::begin_start(name.as_ref()).await
    }

    /// Lists all sandboxes, sorted by name.
    pub async fn list() -> MicrosandboxResult<Vec<SandboxInfo>> {
        Sandbox::begin_list().await
    }

    /// Removes a stopped sandbox and its files.
    pub async fn remove(name: impl AsRef<str>) -> MicrosandboxResult<()> {
        Sandbox::begin_remove(name.as_ref(), false).await
    }

    /// Removes a sandbox and its files; a running one is killed first.
    pub async fn remove_forced(name: impl AsRef<str>) -> MicrosandboxResult<()> {
        Sandbox::begin_remove(name.as_ref(), true).await
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.inner.config.name.as_str()
    }

    /// Its entrypoint, which `msb run` puts before a command: the builder's, else the image's;
    /// empty if there is none. Commands that are run by [`Sandbox::exec`] and such have none.
    pub fn entrypoint(&self) -> &[String] {
        &self.inner.config.entrypoint
    }

    /// What it runs when nobody names a command: its entrypoint, and behind it the image's command.
    /// [`ErrorKind::NoCommand`](crate::ErrorKind::NoCommand) when there is neither. Commands that
    /// are run by [`Sandbox::exec`] and such are not affected by either.
    pub fn default_command(&self) -> MicrosandboxResult<Vec<String>> {
        let config = &self.inner.config;
        let command: Vec<String> = config.entrypoint.iter().chain(&config.cmd).cloned().collect();
        if command.is_empty() {
            let image = config.image_name.clone().unwrap_or_else(|| config.image.to_string());
            let context = format!("image {image} has no command of its own; give one");
            return Err(Error::new(ErrorKind::NoCommand, Origin::Caller, context));
        }
        Ok(command)
    }

    /// Returns information about its current state.
    pub async fn info(&self) -> MicrosandboxResult<SandboxInfo> {
        self.begin_info().await
    }

    /// Returns its current state.
    pub async fn status(&self) -> MicrosandboxResult<SandboxStatus> {
        Ok(self.begin_info().await?.status)
    }

    /// Stops it: its commands get a signal to end, and are killed after ten seconds.
    pub async fn stop(&self) -> MicrosandboxResult<()> {
        self.begin_stop(STOP_TIMEOUT).await.map(drop)
    }

    /// As [`Sandbox::stop`], with another time limit.
    pub async fn stop_with_timeout(&self, timeout: Duration) -> MicrosandboxResult<()> {
        self.begin_stop(timeout).await.map(drop)
    }

    /// As [`Sandbox::stop`], and returns how it ended.
    pub async fn stop_and_wait(&self) -> MicrosandboxResult<ExitStatus> {
        self.begin_stop(STOP_TIMEOUT).await
    }

    /// Kills it.
    pub async fn kill(&self) -> MicrosandboxResult<()> {
        self.begin_kill().await.map(drop)
    }

    /// Waits until it has ended. Returns code 0 if it was stopped or reached a time limit of its
    /// options, SIGKILL if it was killed. Fails if it crashed.
    pub async fn wait(&self) -> MicrosandboxResult<ExitStatus> {
        self.begin_wait().await
    }

    /// Lists the commands that run in it, and those that ended recently.
    pub async fn sessions(&self) -> MicrosandboxResult<Vec<SessionInfo>> {
        let sessions = self.connect().await?.sessions()?.await?;
        Ok(sessions.into_iter().map(SessionInfo::from).collect())
    }

    pub(crate) fn begin_get(name: &str) -> Pending<Sandbox> {
        with_name(name, "msb-control", |home, name, companions| {
            let info = msb_state::get(&home, &name, Some(&companions))?;
            Ok(Sandbox::of(home, info))
        })
    }

    pub(crate) fn begin_start(name: &str) -> Pending<Sandbox> {
        with_name(name, "msb-create", |home, name, companions| {
            msb_state::start(&home, &name, &companions)?.wait()?;
            let info = msb_state::get(&home, &name, None)?;
            let sandbox = Sandbox::of(home, info);
            sandbox.connect_now()?;
            Ok(sandbox)
        })
    }

    pub(crate) fn begin_list() -> Pending<Vec<SandboxInfo>> {
        let home = Home::from_env();
        on_thread("msb-control", move || {
            // Without the companions nothing can be cleaned up, but the list is complete.
            let companions = crate::library::companions().ok();
            let all = msb_state::list(&home?, companions.as_ref())?;
            let readable = |(name, info)| match info {
                Ok(info) => Some(SandboxInfo::from(info)),
                // A sandbox of a later version of this library must not hide the others.
                Err(error) => {
                    tracing::warn!(sandbox = %name, %error, "sandbox could not be read");
                    None
                }
            };
            Ok(all.into_iter().filter_map(readable).collect())
        })
    }

    pub(crate) fn begin_remove(name: &str, force: bool) -> Pending<()> {
        with_name(name, "msb-control", move |home, name, companions| {
            Ok(msb_state::remove(&home, &name, force, &companions)?)
        })
    }

    pub(crate) fn begin_info(&self) -> Pending<SandboxInfo> {
        let inner = Arc::clone(&self.inner);
        on_thread("msb-control", move || {
            let companions = crate::library::companions().ok();
            let info = msb_state::get(&inner.home, &inner.config.name, companions.as_ref())?;
            Ok(info.into())
        })
    }

    /// Returns the connection to the agent; connects if there is none or it was lost.
    pub(crate) fn connect(&self) -> Pending<Arc<Connection>> {
        // Before any lock: in a forked child it may be held forever.
        if let Err(error) = runtime::check_fork() {
            return Pending::ready(Err(error));
        }
        if let Some(connection) = self.live_connection() {
            return Pending::ready(Ok(connection));
        }
        let sandbox = self.clone();
        on_thread("msb-control", move || sandbox.connect_now())
    }

    /// Returns the open connection to the agent, if there is one.
    pub(crate) fn live_connection(&self) -> Option<Arc<Connection>> {
        let current = self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|connection| connection.is_open())
    }

    /// Returns the open handles of its files.
    pub(crate) fn handles(&self) -> &Handles {
        &self.inner.handles
    }

    /// Returns the state directory, and whether every wall of a jail is required.
    pub(crate) fn surroundings(&self) -> (&Home, bool) {
        (&self.inner.home, self.inner.config.require_jail)
    }

    /// Connects to the agent. Blocks.
    fn connect_now(&self) -> Result<Arc<Connection>, Error> {
        let socket = self.inner.dir.connect_agent()?;
        let limits = Limits::new(self.inner.config.boot_timeout());
        let connection = Connection::establish(socket, limits, runtime::get()?.handle())?
            .wait(None)
            .ok_or_else(|| Error::internal("a wait without a deadline ended"))??;
        let mut current = self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let old = current.replace(Arc::clone(&connection));
        drop(current);
        drop(old);
        Ok(connection)
    }

    fn of(home: Home, info: Info) -> Sandbox {
        let Info { dir, config, .. } = info;
        Sandbox {
            inner: Arc::new(Inner {
                home,
                dir,
                config,
                connection: Mutex::new(None),
                handles: Handles::default(),
            }),
        }
    }
}

/// Runs blocking work on a thread of its own.
pub(crate) fn on_thread<T: Send + 'static>(
    thread: &str,
    f: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    let (promise, pending) = crate::completion::completion();
    match runtime::get().and_then(|_| runtime::spawn_thread(thread, move || promise.complete(f())))
    {
        Ok(()) => pending,
        Err(error) => Pending::ready(Err(error)),
    }
}

/// Runs blocking work on a sandbox by name. The environment is read on the caller's thread.
fn with_name<T: Send + 'static>(
    name: &str,
    thread: &str,
    f: impl FnOnce(Home, Name, Companions) -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    let found = || -> Result<(Home, Name, Companions), msb_state::Error> {
        let name = name.parse()?;
        Ok((Home::from_env()?, name, crate::library::companions()?))
    };
    match found() {
        Ok((home, name, companions)) => on_thread(thread, move || f(home, name, companions)),
        Err(error) => Pending::ready(Err(error.into())),
    }
}
