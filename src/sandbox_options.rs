//! Options of a new sandbox.

use super::failure::{Failure, wrong};
use super::input::{bytes, pair, text, texts};
use super::mount::{mount, msb_mount};
use super::sized::{copy_array, sized};
use super::status::MSB_E_INVALID;
use microsandbox::image::PullPolicy;
use microsandbox::sandbox::{Sandbox, Security};
use std::ffi::c_char;
use std::time::Duration;

/// The sandbox outlives the process that creates it.
pub const MSB_SANDBOX_DETACHED: u32 = 1;
/// An existing sandbox with this name is killed and removed first.
pub const MSB_SANDBOX_REPLACE: u32 = 2;
/// The sandbox has network access. A driver that cannot provide it fails with `MSB_E_CONFIG`.
pub const MSB_SANDBOX_NETWORK: u32 = 4;
/// The output of its sessions is recorded in a log, which `msb_log_open` and `msb logs` read.
pub const MSB_SANDBOX_LOG: u32 = 8;
/// The start fails if a wall of the jail is missing. `MSB_REQUIRE_JAIL=1` in the environment does
/// so for every sandbox.
pub const MSB_SANDBOX_REQUIRE_JAIL: u32 = 16;
/// Reap orphans and forward signals, as docker's `--init` does. Every sandbox does so, with the flag
/// or without.
pub const MSB_SANDBOX_INIT: u32 = 32;

const FLAGS: u32 = MSB_SANDBOX_DETACHED
    | MSB_SANDBOX_REPLACE
    | MSB_SANDBOX_NETWORK
    | MSB_SANDBOX_LOG
    | MSB_SANDBOX_REQUIRE_JAIL
    | MSB_SANDBOX_INIT;

/// Commands in a virtual machine have all privileges of root, in their own kernel.
pub const MSB_SECURITY_DEFAULT: u32 = 0;
/// Commands in a virtual machine have only the privileges of a container.
pub const MSB_SECURITY_RESTRICTED: u32 = 1;

/// Pull if the image is not in the store.
pub const MSB_PULL_MISSING: u32 = 0;
/// Pull each time; unchanged layers are not downloaded again.
pub const MSB_PULL_ALWAYS: u32 = 1;
/// Never pull: the image must be in the store.
pub const MSB_PULL_NEVER: u32 = 2;

/// Options of a new sandbox. Zero means default, except for `name` and `image`.
///
/// All pointers are lent. Texts are NUL-terminated.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_sandbox_options {
    /// `sizeof(msb_sandbox_options)`.
    pub struct_size: u32,
    /// `MSB_SANDBOX_*`.
    pub flags: u32,
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: *const c_char,
    /// Lent. A text that begins with `/`, `./` or `../`, or that contains a slash and names an
    /// existing file, is a path: of a directory, which is the root filesystem and is never
    /// modified, or of an archive. Any other text is the name of an image in the store or in a
    /// registry, as in docker: `"python:3.12"`.
    pub image: *const c_char,
    /// Lent. `"container"`, for example; NULL: `MSB_DRIVER`, else the first usable driver with
    /// strong isolation (by hardware or by gVisor).
    pub driver: *const c_char,
    /// Lent. Default working directory of commands; NULL: the image's, else `/`.
    pub workdir: *const c_char,
    /// Lent. Shell for scripts; NULL: the image's, else `/bin/sh`.
    pub shell: *const c_char,
    /// Lent. Default user of commands: `name`, `uid`, `name:group` or `uid:gid`; NULL: the image's,
    /// else root.
    pub user: *const c_char,
    /// Lent. Host name; NULL: the sandbox's name.
    pub hostname: *const c_char,
    /// Lent. `env_len` texts `NAME=value`, for every command; they override the image's.
    pub env: *const *const c_char,
    /// Number of elements.
    pub env_len: usize,
    /// Lent. `labels_len` texts `KEY=value`, which the library only stores. Of two with the same
    /// key the last one counts.
    pub labels: *const *const c_char,
    /// Number of elements.
    pub labels_len: usize,
    /// Number of processors, whole or a fraction such as 0.5, at most 4096; 0: the driver's
    /// default.
    pub cpus: f64,
    /// Memory in MiB, 16 to 16,777,216; 0: 2,048 or half of the host's, whichever is less.
    pub memory_mib: u32,
    /// Maximum number of concurrent processes and threads, at least 8; 0: 4,096.
    pub pids_limit: u32,
    /// Kill the sandbox after this many milliseconds; 0: never.
    pub max_duration_ms: u64,
    /// Stop the sandbox when no command has run in it for this many milliseconds; 0: never.
    pub idle_timeout_ms: u64,
    /// Timeout of the start, in milliseconds; 0: 30,000.
    pub boot_timeout_ms: u64,
    /// With `MSB_SANDBOX_LOG`: maximum size of one file of the log in bytes, at least 524,288. 0,
    /// and no `log_files`: 4 files of 16 MiB.
    pub log_max_bytes: u64,
    /// With `MSB_SANDBOX_LOG`: maximum number of files, 2 to 10,000; the oldest is deleted for a
    /// new one.
    pub log_files: u32,
    /// Zero.
    pub reserved: u32,
    /// When to pull the image: one of `MSB_PULL_*`.
    pub pull_policy: u32,
    /// Privileges of commands in a virtual machine: one of `MSB_SECURITY_*`.
    pub security: u32,
    /// Size of the upper layer in MiB, 16 to 16,777,216; 0: 32,768.
    pub disk_mib: u64,
    /// Lent. `entrypoint_len` texts, a program and its arguments, instead of the image's entrypoint
    /// and default command; one empty text: no entrypoint.
    pub entrypoint: *const *const c_char,
    /// How many; 0: the image's.
    pub entrypoint_len: usize,
    /// Lent. Signal that asks the process of each session to end when the sandbox is stopped:
    /// `"SIGINT"`, `"INT"`, `"2"` or `"RTMIN+3"`; NULL: the image's, else SIGTERM for every process.
    pub stop_signal: *const c_char,
    /// Size of `/dev/shm` in bytes, at least 65,536 and at most the memory, of which it is a part; 0:
    /// 64 MiB.
    pub shm_size: u64,
    /// Lent. Platform of the image, such as `"linux/arm64"` or `"linux/arm/v7"`; NULL: that of this
    /// host. An image whose programs this host cannot run is refused: `MSB_E_BAD_IMAGE`.
    pub platform: *const c_char,
    /// Lent. `mounts_len` mounts, in any order.
    pub mounts: *const msb_mount,
    /// Number of elements.
    pub mounts_len: usize,
}

sized!(msb_sandbox_options, reserved);

/// # Safety
/// The pointers in `options` are NULL or valid for what their comments say.
pub(super) unsafe fn builder(
    options: &msb_sandbox_options,
) -> Result<microsandbox::SandboxBuilder, Failure> {
    if options.flags & !FLAGS != 0 || options.reserved != 0 {
        let text = format!("unknown sandbox flags {:#x}", options.flags & !FLAGS);
        return Err(wrong(MSB_E_INVALID, text));
    }
    // SAFETY: by the contract, as for every text below.
    let name = unsafe { text(options.name, "the name") }?;
    let name = name.ok_or_else(|| wrong(MSB_E_INVALID, "a sandbox without a name"))?;
    let is_set = |flag: u32| options.flags & flag != 0;
    let mut builder = Sandbox::builder(name)
        .detached(is_set(MSB_SANDBOX_DETACHED))
        .require_jail(is_set(MSB_SANDBOX_REQUIRE_JAIL))
        .init(is_set(MSB_SANDBOX_INIT))
        .security(security(options.security)?)
        .network(is_set(MSB_SANDBOX_NETWORK));
    builder = match (is_set(MSB_SANDBOX_LOG), options.log_max_bytes, options.log_files) {
        (log, 0, 0) => builder.log(log),
        (true, max_bytes, files) if max_bytes != 0 && files != 0 => {
            builder.log_limits(max_bytes, files)
        }
        _ => return Err(wrong(MSB_E_INVALID, "a log has both its limits, or none")),
    };
    if is_set(MSB_SANDBOX_REPLACE) {
        builder = builder.replace();
    }
    builder = builder.pull_policy(pull_policy(options.pull_policy)?);
    // SAFETY: as above.
    if let Some(image) = unsafe { bytes(options.image) } {
        builder = builder.image(os_text(image));
    }
    type Set = fn(microsandbox::SandboxBuilder, String) -> microsandbox::SandboxBuilder;
    let settings: [(*const c_char, &str, Set); 7] = [
        (options.platform, "the platform", microsandbox::SandboxBuilder::platform),
        (options.driver, "the driver", microsandbox::SandboxBuilder::driver),
        (options.workdir, "the working directory", microsandbox::SandboxBuilder::workdir),
        (options.shell, "the shell", microsandbox::SandboxBuilder::shell),
        (options.user, "the user", microsandbox::SandboxBuilder::user),
        (options.hostname, "the host name", microsandbox::SandboxBuilder::hostname),
        (options.stop_signal, "the stop signal", microsandbox::SandboxBuilder::stop_signal),
    ];
    for (pointer, what, set) in settings {
        // SAFETY: as above.
        if let Some(value) = unsafe { text(pointer, what) }? {
            builder = set(builder, value);
        }
    }
    // SAFETY: by the contract.
    for entry in unsafe { texts(options.env, options.env_len, "variables") }? {
        let (key, value) = utf8_pair(&entry, "the variable")?;
        builder = builder.env(key, value);
    }
    // SAFETY: by the contract.
    for entry in unsafe { texts(options.labels, options.labels_len, "labels") }? {
        let (key, value) = utf8_pair(&entry, "the label")?;
        builder = builder.label(key, value);
    }
    // SAFETY: by the contract.
    let entrypoint = unsafe { texts(options.entrypoint, options.entrypoint_len, "entrypoint") }?;
    if !entrypoint.is_empty() {
        let words = entrypoint.into_iter().map(|word| utf8(word, "the entrypoint"));
        builder = builder.entrypoint(words.collect::<Result<Vec<_>, _>>()?);
    }
    // SAFETY: by the contract.
    for from in unsafe { copy_array(options.mounts, options.mounts_len, "mounts") }? {
        // SAFETY: as above.
        builder = builder.add_volume_mount(unsafe { mount(&from) }?);
    }
    Ok(bounded(builder, options))
}

/// Sets the bounds that are not zero.
fn bounded(
    mut builder: microsandbox::SandboxBuilder,
    options: &msb_sandbox_options,
) -> microsandbox::SandboxBuilder {
    if options.cpus != 0.0 {
        builder = builder.cpus(options.cpus);
    }
    if options.memory_mib != 0 {
        builder = builder.memory(options.memory_mib);
    }
    if options.shm_size != 0 {
        builder = builder.shm_size(options.shm_size);
    }
    if options.pids_limit != 0 {
        builder = builder.pids_limit(options.pids_limit);
    }
    if options.disk_mib != 0 {
        builder = builder.disk(options.disk_mib);
    }
    type SetTime = fn(microsandbox::SandboxBuilder, Duration) -> microsandbox::SandboxBuilder;
    let times: [(u64, SetTime); 3] = [
        (options.max_duration_ms, microsandbox::SandboxBuilder::max_duration),
        (options.idle_timeout_ms, microsandbox::SandboxBuilder::idle_timeout),
        (options.boot_timeout_ms, microsandbox::SandboxBuilder::boot_timeout),
    ];
    for (ms, set) in times {
        if ms != 0 {
            builder = set(builder, Duration::from_millis(ms));
        }
    }
    builder
}

fn pull_policy(number: u32) -> Result<PullPolicy, Failure> {
    match number {
        MSB_PULL_MISSING => Ok(PullPolicy::Missing),
        MSB_PULL_ALWAYS => Ok(PullPolicy::Always),
        MSB_PULL_NEVER => Ok(PullPolicy::Never),
        _ => Err(wrong(MSB_E_INVALID, format!("unknown pull policy {number}"))),
    }
}

fn security(number: u32) -> Result<Security, Failure> {
    match number {
        MSB_SECURITY_DEFAULT => Ok(Security::Default),
        MSB_SECURITY_RESTRICTED => Ok(Security::Restricted),
        _ => Err(wrong(MSB_E_INVALID, format!("unknown security {number}"))),
    }
}

fn os_text(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

fn utf8_pair(entry: &[u8], what: &str) -> Result<(String, String), Failure> {
    let (key, value) = pair(entry, what)?;
    Ok((utf8(key, what)?, utf8(value, what)?))
}

fn utf8(bytes: Vec<u8>, what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| wrong(MSB_E_INVALID, format!("{what} is not valid UTF-8")))
}
