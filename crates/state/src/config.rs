//! The configuration of a sandbox.

use crate::bounds::{Cpus, Security, host_memory_mib};
use crate::byte_string::ByteString;
use crate::error::{Failure, Result};
use crate::mounts::{self, Mount};
use crate::name::Name;
use crate::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Version of the stored form of [`SandboxConfig`].
pub const CONFIG_VERSION: u32 = 1;

/// Least memory: below it not even the agent starts reliably.
const MIN_MEMORY_MIB: u32 = 16;
/// Most memory, 16 TiB: a larger number is a number of bytes.
const MAX_MEMORY_MIB: u32 = 16 * 1024 * 1024;
/// How many times the host's memory a sandbox may have. What nobody touches costs nothing, but more
/// than this is most likely a number of another unit.
const MAX_HOSTS: u64 = 16;
/// Least size of `/dev/shm`: less is most likely a number of MiB.
const MIN_SHM_BYTES: u64 = 64 * 1024;
/// Size of `/dev/shm` unless one is set, as in docker.
const DEFAULT_SHM_BYTES: u64 = 64 * 1024 * 1024;
/// Fewest processes: the agent, a command, and its child.
const MIN_PIDS: u32 = 8;
/// Least and most size of the upper layer (the most is the limit of ext4).
const MIN_DISK_MIB: u64 = 16;
const MAX_DISK_MIB: u64 = 16 * 1024 * 1024;
/// Least size limit of a log file: more than the longest record.
const MIN_LOG_BYTES: u64 = 512 * 1024;
/// Most log files.
const MAX_LOG_FILES: u32 = 10_000;
/// Default boot timeout.
const DEFAULT_BOOT_TIMEOUT_MS: u64 = 30_000;

/// The configuration of a sandbox, as stored in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Version of this form, [`CONFIG_VERSION`].
    pub version: u32,
    /// Its name.
    pub name: Name,
    /// The root filesystem: the path of a directory, which is never written.
    pub image: ByteString,
    /// The image's name, unless it is a directory.
    #[serde(default)]
    pub image_name: Option<String>,
    /// The image's entrypoint.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The image's default command.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Limit of processors; `None` is the driver's default.
    #[serde(default)]
    pub cpus: Option<Cpus>,
    /// Limit of memory; `None` is 2 GiB or half of the host's, whichever is less.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// Size of `/dev/shm` in bytes; `None` is 64 MiB.
    #[serde(default)]
    pub shm_size: Option<u64>,
    /// Limit of processes and threads; `None` is 4096.
    #[serde(default)]
    pub pids_limit: Option<u32>,
    /// Size limit of the upper layer in MiB; `None` is 32 GiB.
    #[serde(default)]
    pub disk_mib: Option<u64>,
    /// Fail the start if a wall of the jail is missing.
    #[serde(default)]
    pub require_jail: bool,
    /// The security profile of commands in a virtual machine.
    #[serde(default)]
    pub security: Security,
    /// Its mounts.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Environment of every command.
    #[serde(default)]
    pub env: Vec<(ByteString, ByteString)>,
    /// Default working directory of commands.
    #[serde(default)]
    pub workdir: Option<ByteString>,
    /// Shell that runs scripts.
    #[serde(default)]
    pub shell: Option<ByteString>,
    /// Default user of commands.
    #[serde(default)]
    pub user: Option<ByteString>,
    /// Its host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The signal with which commands are asked to end; `None` is SIGTERM.
    #[serde(default)]
    pub stop_signal: Option<Signal>,
    /// The caller's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it outlives its creator.
    #[serde(default)]
    pub detached: bool,
    /// Maximum duration, after which it is killed.
    #[serde(default)]
    pub max_duration_ms: Option<u64>,
    /// Idle time after which it is stopped.
    #[serde(default)]
    pub idle_timeout_ms: Option<u64>,
    /// The driver.
    #[serde(default)]
    pub driver: DriverChoice,
    /// Whether it can reach the network.
    #[serde(default)]
    pub network: bool,
    /// Boot timeout; `None` is 30 seconds.
    #[serde(default)]
    pub boot_timeout_ms: Option<u64>,
    /// The session log; `None` keeps none.
    #[serde(default)]
    pub log: Option<LogConfig>,
}

/// The limits of the session log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Size limit of a file, in bytes.
    pub max_bytes: u64,
    /// Most files that are kept.
    pub files: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { max_bytes: 16 * 1024 * 1024, files: 4 }
    }
}

/// The requested driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum DriverChoice {
    /// The first usable one with strong isolation: hardware or gVisor.
    #[default]
    Auto,
    /// This one and no other.
    Named(String),
}

impl DriverChoice {
    /// Returns the caller's choice, else `MSB_DRIVER`, else [`DriverChoice::Auto`].
    pub fn resolve(explicit: Option<DriverChoice>) -> DriverChoice {
        explicit
            .or_else(|| {
                let name = std::env::var_os("MSB_DRIVER").filter(|name| !name.is_empty())?;
                Some(DriverChoice::from(name.to_string_lossy().into_owned()))
            })
            .unwrap_or_default()
    }
}

/// Returns the boot timeout: the caller's, else `MSB_BOOT_TIMEOUT` in whole seconds, else `None`
/// for the default.
pub fn resolve_boot_timeout(explicit_ms: Option<u64>) -> Result<Option<u64>> {
    let set = std::env::var_os("MSB_BOOT_TIMEOUT").filter(|text| !text.is_empty());
    let (None, Some(text)) = (explicit_ms, set) else { return Ok(explicit_ms) };
    let seconds = text.to_str().and_then(|text| text.parse::<u64>().ok());
    match seconds.and_then(|seconds| seconds.checked_mul(1000)) {
        Some(ms) if ms > 0 => Ok(Some(ms)),
        _ => invalid(format!("MSB_BOOT_TIMEOUT is {text:?}; it must be a number of seconds")),
    }
}

/// Returns whether `MSB_REQUIRE_JAIL` requires every wall of the jail.
pub fn jail_is_required() -> Result<bool> {
    match std::env::var_os("MSB_REQUIRE_JAIL") {
        None => Ok(false),
        Some(value) if value.is_empty() || value == "0" => Ok(false),
        Some(value) if value == "1" => Ok(true),
        Some(value) => invalid(format!("MSB_REQUIRE_JAIL is {value:?}; it must be 0 or 1")),
    }
}

impl From<String> for DriverChoice {
    fn from(name: String) -> Self {
        if name == "auto" { DriverChoice::Auto } else { DriverChoice::Named(name) }
    }
}

impl From<DriverChoice> for String {
    fn from(choice: DriverChoice) -> String {
        choice.to_string()
    }
}

impl fmt::Display for DriverChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DriverChoice::Auto => f.write_str("auto"),
            DriverChoice::Named(name) => f.write_str(name),
        }
    }
}

impl SandboxConfig {
    /// Returns the defaults with a name and an image.
    pub fn new(name: Name, image: impl Into<ByteString>) -> Self {
        SandboxConfig {
            version: CONFIG_VERSION,
            name,
            image: image.into(),
            image_name: None,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            cpus: None,
            memory_mib: None,
            shm_size: None,
            pids_limit: None,
            disk_mib: None,
            require_jail: false,
            security: Security::Default,
            mounts: Vec::new(),
            env: Vec::new(),
            workdir: None,
            shell: None,
            user: None,
            hostname: None,
            stop_signal: None,
            labels: BTreeMap::new(),
            detached: false,
            max_duration_ms: None,
            idle_timeout_ms: None,
            driver: DriverChoice::Auto,
            network: false,
            boot_timeout_ms: None,
            log: None,
        }
    }

    /// Returns the boot timeout.
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_millis(self.boot_timeout_ms.unwrap_or(DEFAULT_BOOT_TIMEOUT_MS))
    }

    /// Returns the size of `/dev/shm` in bytes, which is at most the memory.
    pub fn shm_bytes(&self, memory_bytes: Option<u64>) -> std::result::Result<u64, Failure> {
        let memory = memory_bytes.unwrap_or(u64::MAX);
        match self.shm_size {
            None => Ok(DEFAULT_SHM_BYTES.min(memory)),
            Some(size) if size <= memory => Ok(size),
            Some(size) => Err(Failure::invalid_config(format!(
                "shm_size is {size} bytes, more than the memory, which is {memory} bytes"
            ))
            .hint("give it more memory, or a smaller shm_size")),
        }
    }

    /// Validates the configuration and makes the image path absolute.
    pub fn validated(mut self) -> Result<Self> {
        self.check()?;
        self.image = image_directory(&self.image)?;
        Ok(self)
    }

    /// Validates everything except the image.
    pub fn check(&self) -> Result<()> {
        self.check_machine()?;
        mounts::check(&self.mounts)?;
        self.check_commands()
    }

    fn check_machine(&self) -> Result<()> {
        if self.version != CONFIG_VERSION {
            return invalid(format!(
                "the configuration has version {}, this library supports {CONFIG_VERSION}",
                self.version
            ));
        }
        if let Some(memory) =
            self.memory_mib.filter(|memory| !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(memory))
        {
            return invalid(format!(
                "memory is {memory} MiB; it must be {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB"
            ));
        }
        let host = host_memory_mib().unwrap_or(u64::MAX);
        let most = host.saturating_mul(MAX_HOSTS);
        if let Some(memory) = self.memory_mib.filter(|memory| u64::from(*memory) > most) {
            return invalid(format!(
                "memory is {memory} MiB, far more than the {host} MiB of this host"
            ));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !cpus.is_valid()) {
            return invalid(cpus.refusal());
        }
        let most = u64::from(MAX_MEMORY_MIB) << 20;
        if let Some(size) = self.shm_size.filter(|size| !(MIN_SHM_BYTES..=most).contains(size)) {
            return invalid(format!(
                "shm_size is {size} bytes; it must be {MIN_SHM_BYTES} to {most} bytes"
            ));
        }
        if let Some(pids) = self.pids_limit.filter(|pids| *pids < MIN_PIDS) {
            return invalid(format!("pids_limit is {pids}; it must be at least {MIN_PIDS}"));
        }
        if let Some(disk) =
            self.disk_mib.filter(|disk| !(MIN_DISK_MIB..=MAX_DISK_MIB).contains(disk))
        {
            return invalid(format!(
                "disk is {disk} MiB; it must be {MIN_DISK_MIB} to {MAX_DISK_MIB} MiB"
            ));
        }
        let times = [
            ("max_duration", self.max_duration_ms),
            ("idle_timeout", self.idle_timeout_ms),
            ("boot_timeout", self.boot_timeout_ms),
        ];
        if let Some((what, _)) = times.iter().find(|(_, time)| *time == Some(0)) {
            return invalid(format!("{what} is zero; leave it out or give it a time"));
        }
        self.check_log()?;
        if let Some(hostname) = self.hostname.as_deref().filter(|name| !is_hostname(name)) {
            return invalid(format!(
                "hostname {hostname:?} is not valid; use 1 to 64 letters, digits, '-' and '.'"
            ));
        }
        if let DriverChoice::Named(name) = &self.driver
            && (name.is_empty() || name.contains('\0'))
        {
            return invalid("the name of the driver is empty or contains a NUL byte");
        }
        if self.labels.keys().any(|key| key.is_empty()) {
            return invalid("a label has an empty key");
        }
        Ok(())
    }

    fn check_log(&self) -> Result<()> {
        let Some(LogConfig { max_bytes, files }) = self.log else { return Ok(()) };
        if max_bytes < MIN_LOG_BYTES {
            return invalid(format!(
                "a file of the log may have {max_bytes} bytes; it must be at least {MIN_LOG_BYTES}"
            ));
        }
        if !(2..=MAX_LOG_FILES).contains(&files) {
            return invalid(format!("the log has {files} files; it must be 2 to {MAX_LOG_FILES}"));
        }
        Ok(())
    }

    fn check_commands(&self) -> Result<()> {
        for (key, value) in &self.env {
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                return invalid(format!("environment key {key:?} is empty or contains '='"));
            }
            if key.as_bytes().contains(&0) || value.as_bytes().contains(&0) {
                return invalid(format!("environment entry {key:?} contains a NUL byte"));
            }
        }
        let texts = [("workdir", &self.workdir), ("shell", &self.shell), ("user", &self.user)];
        for (what, text) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() || text.as_bytes().contains(&0) {
                return invalid(format!("{what} is empty or contains a NUL byte"));
            }
        }
        if let Some(workdir) = self.workdir.as_ref().filter(|path| !path.as_path().is_absolute()) {
            return invalid(format!("workdir {workdir:?} is relative; give an absolute path"));
        }
        Ok(())
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Failure::invalid_config(message).into())
}

fn is_hostname(name: &str) -> bool {
    let fits = (1..=64).contains(&name.len());
    fits && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
}

fn image_directory(image: &ByteString) -> Result<ByteString> {
    if image.is_empty() || image.as_bytes().contains(&0) {
        return invalid("image is empty or contains a NUL byte");
    }
    let path: &Path = image.as_path();
    let absolute = match path.canonicalize() {
        Ok(absolute) => absolute,
        Err(error) => return invalid(format!("cannot use image {image:?}: {error}")),
    };
    if !absolute.is_dir() {
        return invalid(format!("image {image:?} is not a directory"));
    }
    Ok(absolute.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn config() -> SandboxConfig {
        SandboxConfig::new("a".parse().unwrap(), "/")
    }

    fn refused(change: impl FnOnce(&mut SandboxConfig)) -> String {
        let mut config = config();
        change(&mut config);
        let error = config.validated().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        error.to_string()
    }

    #[test]
    fn defaults_are_valid_and_survive_storage() {
        let mut config = config().validated().unwrap();
        config.env.push((vec![b'K', 0xff].into(), vec![0xfe].into()));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<SandboxConfig>(&json).unwrap(), config);
    }

    #[test]
    fn unknown_fields_of_later_versions_are_ignored() {
        let mut value = serde_json::to_value(config()).unwrap();
        value["later"] = true.into();
        assert_eq!(serde_json::from_value::<SandboxConfig>(value).unwrap(), config());
    }

    #[test]
    fn invalid_values_are_refused_by_value() {
        assert!(refused(|c| c.cpus = Some(0.into())).contains("cpus is 0"));
        assert!(refused(|c| c.cpus = Some(f64::NAN.into())).contains("cpus is NaN"));
        assert!(refused(|c| c.cpus = Some((-1).into())).contains("cpus is -1"));
        assert!(refused(|c| c.memory_mib = Some(104_857_600)).contains("104857600 MiB"));
        // Six million bytes, docker's least, taken for MiB.
        assert!(refused(|c| c.memory_mib = Some(6_291_456)).contains("6291456 MiB, far more than"));
        assert!(refused(|c| c.shm_size = Some(64)).contains("shm_size is 64 bytes"));
        assert!(refused(|c| c.shm_size = Some(u64::MAX)).contains("to 17592186044416 bytes"));
        assert!(refused(|c| c.pids_limit = Some(1)).contains("pids_limit is 1"));
        assert!(refused(|c| c.disk_mib = Some(1)).contains("disk is 1 MiB"));
        assert!(refused(|c| c.memory_mib = Some(1)).contains("1 MiB"));
        assert!(refused(|c| c.max_duration_ms = Some(0)).contains("max_duration"));
        assert!(refused(|c| c.env = vec![("A=B".into(), "".into())]).contains("A=B"));
        assert!(refused(|c| c.env = vec![("A".into(), "a\0".into())]).contains("NUL"));
        assert!(refused(|c| c.workdir = Some("tmp".into())).contains("relative"));
        assert!(refused(|c| c.user = Some("".into())).contains("user"));
        assert!(refused(|c| c.hostname = Some("a b".into())).contains("a b"));
        let log = |max_bytes, files| Some(LogConfig { max_bytes, files });
        assert!(refused(|c| c.log = log(1000, 4)).contains("1000 bytes"));
        assert!(refused(|c| c.log = log(1 << 20, 1)).contains("1 files"));
        assert!(refused(|c| c.version = 9).contains("version 9"));
    }

    #[test]
    fn j4_shared_memory_is_within_the_memory() {
        let mut config = config();
        assert_eq!(config.shm_bytes(None), Ok(64 << 20));
        assert_eq!(config.shm_bytes(Some(2 << 30)), Ok(64 << 20));
        assert_eq!(config.shm_bytes(Some(16 << 20)), Ok(16 << 20));
        config.shm_size = Some(1 << 30);
        assert_eq!(config.shm_bytes(Some(1 << 30)), Ok(1 << 30));
        let failure = config.shm_bytes(Some(512 << 20)).unwrap_err().to_string();
        assert!(failure.contains("1073741824") && failure.contains("536870912"), "{failure}");
    }

    #[test]
    fn images_that_are_not_directories_are_refused() {
        assert!(refused(|c| c.image = "/etc/passwd".into()).contains("not a directory"));
        assert!(refused(|c| c.image = "/nonexistent/x".into()).contains("No such file"));
        assert!(refused(|c| c.image = "/a\0b".into()).contains("NUL"));
    }
}
