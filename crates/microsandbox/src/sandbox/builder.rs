//! The options of a new sandbox.

use crate::completion::Pending;
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::image::{
    Cancel, ImageProgress, PullPolicy, Resolved, Surroundings, Wanted, platform_of, resolve,
};
use crate::mount::{MountBuilder, VolumeMount};
use crate::sandbox::{Sandbox, with_name};
use msb_state::{
    ByteString, Cpus, CreateOptions, DriverChoice, LogConfig, SandboxConfig, Security, Signal,
    resolve_boot_timeout,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Builder of a sandbox; created by [`Sandbox::builder`].
#[derive(Debug, Clone)]
pub struct SandboxBuilder {
    name: String,
    image: Option<ByteString>,
    driver: Option<DriverChoice>,
    replace: bool,
    pull_policy: PullPolicy,
    platform: Option<String>,
    progress: Option<OnProgress>,
    /// All other options, under a placeholder name.
    rest: Rest,
}

/// A callback.
#[derive(Clone)]
struct OnProgress(Arc<dyn Fn(ImageProgress) + Send + Sync>);

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

#[derive(Debug, Clone, Default)]
struct Rest {
    cpus: Option<Cpus>,
    memory_mib: Option<u32>,
    shm_size: Option<u64>,
    pids_limit: Option<u32>,
    disk_mib: Option<u64>,
    require_jail: bool,
    security: Security,
    mounts: Vec<MountBuilder>,
    env: Vec<(ByteString, ByteString)>,
    workdir: Option<ByteString>,
    shell: Option<ByteString>,
    user: Option<ByteString>,
    hostname: Option<String>,
    entrypoint: Option<Vec<String>>,
    stop_signal: Option<String>,
    labels: Vec<(String, String)>,
    detached: bool,
    network: bool,
    max_duration: Option<Duration>,
    idle_timeout: Option<Duration>,
    boot_timeout: Option<Duration>,
    log: Option<LogConfig>,
}

impl SandboxBuilder {
    pub(super) fn new(name: String) -> Self {
        let rest = Rest::default();
        let (image, driver, platform, progress) = (None, None, None, None);
        let pull_policy = PullPolicy::default();
        SandboxBuilder {
            name,
            image,
            driver,
            replace: false,
            pull_policy,
            platform,
            progress,
            rest,
        }
    }

    /// Sets the image. A value that begins with `/`, `./` or `../`, or that contains a slash and
    /// exists, is a path: of a directory that is the root filesystem and is never modified, of an
    /// archive, or of a directory in OCI layout. Any other value is the name of an image in the
    /// store or in a registry, as in docker.
    #[must_use]
    pub fn image(mut self, image: impl AsRef<Path>) -> Self {
        self.image = Some(image.as_ref().into());
        self
    }

    /// Sets when the image is pulled; default: if it is not in the store.
    #[must_use]
    pub fn pull_policy(mut self, policy: PullPolicy) -> Self {
        self.pull_policy = policy;
        self
    }

    /// Sets the platform of the image, such as `linux/arm64` or `linux/arm/v7`; without it that of
    /// this host. An image whose programs this host cannot run is refused.
    #[must_use]
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// Sets a progress callback for the image, called on a thread of the library, which waits
    /// for its return. Never called when the image is a directory.
    #[must_use]
    pub fn on_progress(mut self, f: impl Fn(ImageProgress) + Send + Sync + 'static) -> Self {
        self.progress = Some(OnProgress(Arc::new(f)));
        self
    }

    /// Sets the number of processors: a whole number, or a fraction such as `0.5`; more than 0 and
    /// at most 4096.
    #[must_use]
    pub fn cpus(mut self, cpus: impl Into<Cpus>) -> Self {
        self.rest.cpus = Some(cpus.into());
        self
    }

    /// Sets the memory limit in MiB, 16 to 16,777,216; default: 2 GiB or half of the host's memory,
    /// whichever is less.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> Self {
        self.rest.memory_mib = Some(mib);
        self
    }

    /// Sets the size of `/dev/shm` in bytes, at least 65,536 and at most the memory, of which it is a
    /// part; 64 MiB unless set.
    #[must_use]
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.rest.shm_size = Some(bytes);
        self
    }

    /// Sets how many processes and threads it may have at once, at least 8; 4096 unless set.
    #[must_use]
    pub fn pids_limit(mut self, count: u32) -> Self {
        self.rest.pids_limit = Some(count);
        self
    }

    /// Sets the maximum size of its upper layer in MiB, 16 to 16,777,216; default: 32 GiB.
    #[must_use]
    pub fn disk(mut self, mib: u64) -> Self {
        self.rest.disk_mib = Some(mib);
        self
    }

    /// Fails the start if a wall of the jail is unavailable; `MSB_REQUIRE_JAIL=1` does so for every
    /// sandbox.
    #[must_use]
    pub fn require_jail(mut self, require: bool) -> Self {
        self.rest.require_jail = require;
        self
    }

    /// Sets the privileges of commands in a virtual machine.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.rest.security = security;
        self
    }

    /// Mounts something of the host at an absolute path in the sandbox.
    #[must_use]
    pub fn volume(
        mut self,
        guest_path: impl AsRef<Path>,
        f: impl FnOnce(MountBuilder) -> MountBuilder,
    ) -> Self {
        self.rest.mounts.push(f(MountBuilder::new(guest_path)));
        self
    }

    /// Adds a mount, as [`SandboxBuilder::volume`].
    #[must_use]
    pub fn add_volume_mount(mut self, mount: VolumeMount) -> Self {
        self.rest.mounts.push(MountBuilder::from_mount(mount));
        self
    }

    /// Sets an environment variable of all commands, which overrides the image's.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.rest.env.push((key.into().into(), value.into().into()));
        self
    }

    /// Sets environment variables of all commands.
    #[must_use]
    pub fn envs(
        self,
        vars: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        vars.into_iter().fold(self, |builder, (key, value)| builder.env(key, value))
    }

    /// Sets the default working directory of commands; default: the image's, else `/`.
    #[must_use]
    pub fn workdir(mut self, workdir: impl Into<String>) -> Self {
        self.rest.workdir = Some(workdir.into().into());
        self
    }

    /// Sets the shell that runs scripts; default: the image's, else `/bin/sh`.
    #[must_use]
    pub fn shell(mut self, shell: impl Into<String>) -> Self {
        self.rest.shell = Some(shell.into().into());
        self
    }

    /// Sets the default user of commands; default: the image's, else root.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.rest.user = Some(user.into().into());
        self
    }

    /// Sets the host name.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.rest.hostname = Some(hostname.into());
        self
    }

    /// Replaces the image's entrypoint, a program and its arguments, and drops the image's default
    /// command; empty, or one empty text, for none. See [`Sandbox::default_command`].
    #[must_use]
    pub fn entrypoint(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.rest.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the signal with which commands are asked to end when it is stopped, by its name or
    /// number: `SIGINT`, `INT`, `2`, `RTMIN+3`. Without it the image's. Only the process of each
    /// session gets it; with SIGTERM, the default, every process does.
    #[must_use]
    pub fn stop_signal(mut self, signal: impl Into<String>) -> Self {
        self.rest.stop_signal = Some(signal.into());
        self
    }

    /// Asks for an init that reaps orphans and forwards signals, as docker's `--init` does. Every
    /// sandbox has one, its agent, so this changes nothing.
    #[must_use]
    pub fn init(self, _enabled: bool) -> Self {
        self
    }

    /// Attaches a note of the caller's own.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.rest.labels.push((key.into(), value.into()));
        self
    }

    /// Adds labels.
    #[must_use]
    pub fn labels(
        self,
        labels: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        labels.into_iter().fold(self, |builder, (key, value)| builder.label(key, value))
    }

    /// Kills and removes an existing sandbox with the same name.
    #[must_use]
    pub fn replace(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Lets the sandbox outlive the process that creates it.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.rest.detached = detached;
        self
    }

    /// Sets whether the sandbox has network access; default: no.
    #[must_use]
    pub fn network(mut self, enabled: bool) -> Self {
        self.rest.network = enabled;
        self
    }

    /// Kills the sandbox after this time.
    #[must_use]
    pub fn max_duration(mut self, time: Duration) -> Self {
        self.rest.max_duration = Some(time);
        self
    }

    /// Stops the sandbox when no command has run in it for this time.
    #[must_use]
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.rest.idle_timeout = Some(time);
        self
    }

    /// Records the output of its sessions in a log; default: no. See [`Sandbox::logs`].
    ///
    /// The log is complete: a slow disk slows the programs that write. A full disk ends the log,
    /// and nothing else.
    #[must_use]
    pub fn log(mut self, enabled: bool) -> Self {
        self.rest.log = enabled.then(|| self.rest.log.unwrap_or_default());
        self
    }

    /// Records a log, as [`SandboxBuilder::log`], in at most `files` files of at most `max_bytes`
    /// each; default: 4 files of 16 MiB. The oldest file is removed for a new one.
    #[must_use]
    pub fn log_limits(mut self, max_bytes: u64, files: u32) -> Self {
        self.rest.log = Some(LogConfig { max_bytes, files });
        self
    }

    /// Selects the driver; default: `MSB_DRIVER`, else the first usable one with hardware
    /// isolation.
    #[must_use]
    pub fn driver(mut self, driver: impl Into<String>) -> Self {
        self.driver = Some(driver.into().into());
        self
    }

    /// Sets the time limit of the start; default: `MSB_BOOT_TIMEOUT` in seconds, else 30 seconds.
    #[must_use]
    pub fn boot_timeout(mut self, time: Duration) -> Self {
        self.rest.boot_timeout = Some(time);
        self
    }

    /// Creates and starts the sandbox.
    ///
    /// Dropping the future during the pull of the image cancels creation; after the pull it has no
    /// effect: the sandbox starts and can be found by its name.
    pub async fn create(self) -> MicrosandboxResult<Sandbox> {
        let cancel = Cancel::default();
        let pending = self.begin(&cancel);
        let _cancelled = cancel.when_dropped();
        pending.await
    }

    /// Starts to create the sandbox.
    pub(crate) fn begin(self, cancel: &Cancel) -> Pending<Sandbox> {
        let cancel = cancel.clone();
        let name = self.name.clone();
        // Read on the caller's thread, like the rest of the environment.
        let driver = DriverChoice::resolve(self.driver.clone());
        let boot_timeout = resolve_boot_timeout(self.rest.boot_timeout.map(millis));
        let found = Surroundings::find();
        with_name(&name, "msb-create", move |home, name, companions| {
            let options = CreateOptions { replace: self.replace };
            let mut found = found?;
            let mounts = self.rest.mounts.iter().cloned().map(MountBuilder::build);
            let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
            let stop_signal = self.rest.stop_signal.as_deref().map(own_signal).transpose()?;
            found.require_jail |= self.rest.require_jail;
            let boot_timeout = boot_timeout?;
            let configure = |builder: SandboxBuilder, resolved: &Resolved| {
                let mut config = builder.config(name.clone(), driver.clone(), resolved);
                config.stop_signal = match stop_signal {
                    None => signal_of(resolved)?,
                    own => own,
                };
                config.boot_timeout_ms = boot_timeout;
                config.mounts.clone_from(&mounts);
                config.require_jail = found.require_jail;
                Ok::<_, Error>(config)
            };
            // What can be refused without the image is refused before it is pulled.
            let bare = configure(self.clone(), &Resolved::unknown())?;
            msb_state::check_new(&home, &bare, options)?;
            let check = || Ok(msb_state::check_driver(&home, &bare, &companions)?);
            let shares_kernel = driver == DriverChoice::Named("container".to_owned());
            let resolved = self.resolve(&found, &cancel, shares_kernel, &check)?;
            let config = configure(self, &resolved)?;
            let starting = msb_state::create(&home, config, options, &companions)?;
            // From now on, the sandbox's own configuration keeps the image in use.
            drop(resolved);
            starting.wait()?;
            tracing::info!(sandbox = %name, "sandbox created");
            let info = msb_state::get(&home, &name, None)?;
            let sandbox = Sandbox::of(home, info);
            sandbox.connect_now()?;
            Ok(sandbox)
        })
    }

    /// Finds the image, and gets it where it is not here. Blocks.
    fn resolve(
        &self,
        found: &Surroundings,
        cancel: &Cancel,
        shares_kernel: bool,
        check: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Resolved, Error> {
        let Some(image) = &self.image else {
            let context = "the sandbox has no image; give a name or the path of a directory";
            return Err(Error::new(ErrorKind::InvalidConfig, Origin::Caller, context));
        };
        let wanted = Wanted {
            image,
            policy: self.pull_policy,
            platform: platform_of(self.platform.as_deref())?,
            shares_kernel,
            cancel,
            check,
        };
        let mut each = |progress| {
            if let Some(OnProgress(report)) = &self.progress {
                report(progress);
            }
        };
        resolve(found, &wanted, &mut each)
    }

    /// Combines the options of the caller with the defaults of the image.
    fn config(
        self,
        name: msb_state::Name,
        driver: DriverChoice,
        resolved: &Resolved,
    ) -> SandboxConfig {
        let (rest, image) = (self.rest, &resolved.config);
        let of_image = image.env_pairs().map(|(key, value)| (key.into(), value.into()));
        let (entrypoint, cmd) = match rest.entrypoint {
            Some(own) => (own, Vec::new()),
            None => (image.entrypoint.clone(), image.cmd.clone()),
        };
        // One empty text means none, as in docker.
        let is_none = matches!(entrypoint.as_slice(), [word] if word.is_empty());
        let some = |text: &str| (!text.is_empty()).then(|| ByteString::from(text));
        SandboxConfig {
            image_name: resolved.name.clone(),
            entrypoint: if is_none { Vec::new() } else { entrypoint },
            cmd,
            cpus: rest.cpus,
            memory_mib: rest.memory_mib,
            shm_size: rest.shm_size,
            pids_limit: rest.pids_limit,
            disk_mib: rest.disk_mib,
            require_jail: rest.require_jail,
            security: rest.security,
            env: of_image.chain(rest.env).collect(),
            workdir: rest.workdir.or_else(|| image.absolute_workdir().map(ByteString::from)),
            shell: rest.shell.or_else(|| image.shell_program().and_then(some)),
            user: rest.user.or_else(|| some(&image.user)),
            hostname: rest.hostname,
            labels: rest.labels.into_iter().collect(),
            detached: rest.detached,
            network: rest.network,
            max_duration_ms: rest.max_duration.map(millis),
            idle_timeout_ms: rest.idle_timeout.map(millis),
            log: rest.log,
            driver,
            ..SandboxConfig::new(name, resolved.rootfs.clone())
        }
    }
}

/// Parses the caller's stop signal.
fn own_signal(text: &str) -> Result<Signal, Error> {
    let refuse = |why| Error::new(ErrorKind::InvalidConfig, Origin::Caller, why);
    text.parse().map_err(|error| refuse(format!("stop_signal: {error}")))
}

/// Parses the stop signal of an image, if it names one.
fn signal_of(resolved: &Resolved) -> Result<Option<Signal>, Error> {
    let text = resolved.config.stop_signal.as_str();
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|error: String| {
        let name = resolved.name.as_deref().unwrap_or_default();
        let context = format!("cannot use the stop signal of image {name}: {error}");
        Error::new(ErrorKind::ImageInvalid, Origin::Caller, context)
    })
}

/// Whole milliseconds; a part of one counts as one, so that no time becomes none.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
