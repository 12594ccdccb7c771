//! Options that several commands share.

use crate::mounts;
use crate::values::{self, Label, Variable, Words};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use microsandbox::{Cpus, PullPolicy, Rlimit, Security, Signal, VolumeMount};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Options of a new sandbox.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox options")]
pub(crate) struct SandboxOptions {
    /// Isolation driver; default: MSB_DRIVER, else the first with strong isolation
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// When to pull the image: always, missing (only if it is not in the store) or never
    #[arg(long, value_name = "WHEN", value_parser = values::pull_policy, default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Platform of the image, such as linux/arm64 or linux/arm/v7; default: this host's
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Number of processors, such as 2 or 0.5; more than 0, at most 4096
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) cpus: Option<Cpus>,
    /// Memory limit: 512 and 512M are MiB, 1.5G is 1536 MiB; default: 2G or half of the host's,
    /// whichever is less
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory)]
    pub(crate) memory: Option<u32>,
    /// Size of /dev/shm, which is part of the memory: 67108864 is a number of bytes, 64M and 1.5G are
    /// MiB and GiB; default: 64M
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub(crate) shm_size: Option<u64>,
    /// Limit on processes and threads, at least 8; default: 4096
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<u32>,
    /// Limit on written files: 512 and 512M are MiB, 1.5G is 1536 MiB; default: 32G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) disk: Option<u64>,
    /// Mount a directory or file of the host, or a volume, which is created if it does not exist;
    /// options: ro, noexec; repeatable
    #[arg(short, long = "volume", value_name = "SOURCE:PATH[:OPTIONS]", value_parser = mounts::volume)]
    pub(crate) volumes: Vec<VolumeMount>,
    /// Mount, with keys as in docker: type=bind|volume|tmpfs|disk, src, dst, readonly, noexec, size,
    /// uid, gid; repeatable
    #[arg(long = "mount", value_name = "KEY=VALUE,...", value_parser = mounts::mount)]
    pub(crate) mounts: Vec<VolumeMount>,
    /// Mount an empty filesystem in memory; options: size, ro, noexec, uid, gid; repeatable
    #[arg(long = "tmpfs", value_name = "PATH[:OPTIONS]", value_parser = mounts::tmpfs)]
    pub(crate) tmpfs: Vec<VolumeMount>,
    /// Privileges of commands in a virtual machine: default (all that root has in its own kernel)
    /// or restricted (those of a container)
    #[arg(long, value_name = "WHICH", default_value = "default")]
    pub(crate) security: Security,
    /// Refuse to start if a wall of the jail is missing, as MSB_REQUIRE_JAIL=1 does for all
    /// sandboxes; see msb doctor
    #[arg(long)]
    pub(crate) require_jail: bool,
    /// Host name
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Entrypoint instead of the image's, without the image's command: a program, or a JSON list of a
    /// program and its arguments; empty for none
    #[arg(long, value_name = "WORDS", value_parser = values::words)]
    pub(crate) entrypoint: Option<Words>,
    /// Signal that asks commands to end, such as INT, 2 or RTMIN+3; only the process of each session
    /// gets it; default: the image's, else TERM for every process
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) stop_signal: Option<Signal>,
    /// Reap orphans and forward signals to the command; always so
    #[arg(long)]
    pub(crate) init: bool,
    /// Shell for -t without a command; default: /bin/sh
    #[arg(long, value_name = "PATH")]
    pub(crate) shell: Option<String>,
    /// Add a label; repeatable
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) labels: Vec<Label>,
    /// Log the output of sessions, for msb logs
    #[arg(long)]
    pub(crate) log: bool,
    /// Time limit for the start, such as 30 (seconds) or 2m; default: MSB_BOOT_TIMEOUT, in seconds
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) boot_timeout: Option<Duration>,
    /// Stop the sandbox after this time, such as 90 (seconds) or 1.5h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) max_duration: Option<Duration>,
    /// Stop the sandbox when nothing has run in it for this time, such as 90 (seconds) or 1.5h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// Replace an existing sandbox of that name
    #[arg(long)]
    pub(crate) replace: bool,
}

/// Environment, working directory and user of a process.
#[derive(Debug, Args)]
pub(crate) struct ProcessOptions {
    /// Set a variable; without a value, pass on the one of msb itself; repeatable
    #[arg(short, long, value_name = "KEY[=VALUE]",
        value_parser = OsStringValueParser::new().try_map(values::variable))]
    pub(crate) env: Vec<Variable>,
    /// Set the variables in a file, one KEY=VALUE per line; -e takes precedence; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<OsString>,
    /// User: name, uid, name:group or uid:gid
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}

/// Options of one session.
#[derive(Debug, Default, Args)]
pub(crate) struct SessionOptions {
    /// Forward standard input; default: only if it and standard output are a terminal
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Run it on this terminal; default command: the sandbox's shell
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run in the background and print the sandbox's name (run) or the session's id (exec); with -t
    /// on a new terminal, for msb attach
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keys that detach, such as ctrl-p,ctrl-q; default: ctrl-]
    #[arg(long, value_name = "KEYS", requires = "tty")]
    pub(crate) detach_keys: Option<String>,
    /// Kill the command after this time, such as 2 (seconds), 1.5s, 500ms or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Set a resource limit, such as nofile=1024 or nofile=1024:2048; repeatable
    #[arg(long = "rlimit", alias = "ulimit", value_name = "NAME=SOFT[:HARD]",
        value_parser = values::rlimit)]
    pub(crate) rlimits: Vec<Rlimit>,
    /// Print output as it arrives; always so
    #[arg(long)]
    pub(crate) stream: bool,
}
